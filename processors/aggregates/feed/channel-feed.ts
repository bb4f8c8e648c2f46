import type { Seq } from '../../../pipeline/log/event-log.ts';
import { pause } from '../../../pipeline/runtime/backoff.ts';
import { messageOf } from '../../../pipeline/runtime/errors.ts';
import type { FeedReceiver, FeedStart } from '../../../pipeline/runtime/feed.ts';
import type { Logger } from '../../../pipeline/runtime/logging.ts';
import { matches, type Filter } from '../../../schemas/filter.ts';
import type { Definition } from '../model.ts';
import type { AggregateReader } from '../read/reader.ts';
import type { Changes } from '../read/pages.ts';
import type { AggregateView } from '../read/view.ts';
import { Dirty } from './dirty.ts';
import { eventOf, filterableOf } from './frames.ts';
import { building, expired, redefined, Subscriber, type Faults } from './subscriber.ts';

export interface ChannelFeedParts {
  readonly name: string;
  readonly channel: string;
  readonly reader: AggregateReader;
  readonly log: Logger;
  readonly pollMs: number;
  readonly everyMs: number;
}

const mostChanges = 5_000;
const groupsAtOnce = 100;

/**
 * One channel's loop. It knows all changes up to `position`; what of them has not been told yet is dirty. A subscriber catches up by itself,
 * and gets what is told meanwhile afterwards, so that nothing falls between the two.
 */
export class ChannelFeed {
  readonly #parts: ChannelFeedParts;
  readonly #subscribers = new Set<Subscriber>();
  readonly #dirty: Dirty;
  #stopping = new AbortController();
  #placed: Promise<void> = Promise.resolve();
  #position: Seq = 0;
  #epoch = '';
  /** The definition whose states are told. */
  #definition: Definition | undefined;
  #away = false;

  constructor(parts: ChannelFeedParts) {
    this.#parts = parts;
    this.#dirty = new Dirty(parts.everyMs);
  }

  /** Nobody listens. */
  get idle(): boolean {
    return this.#subscribers.size === 0;
  }

  /** Begins a subscription, and returns what ends it. */
  join(filter: Filter, start: FeedStart, receiver: FeedReceiver): () => void {
    const { reader, name, channel, log } = this.#parts;
    const subscriber = new Subscriber({ reader, name, channel, log, filter, start, receiver, onEnd: () => this.#leave(subscriber) });
    this.#subscribers.add(subscriber);
    if (this.#subscribers.size === 1) {
      this.#stopping = new AbortController();
      this.#placed = this.#place(this.#stopping.signal);
      void this.#run(this.#stopping.signal);
    }
    // Not before this loop knows where it is: what comes after that is told to whoever catches up meanwhile, too.
    void this.#placed.then(() => subscriber.catchUp());
    return () => subscriber.end();
  }

  #leave(subscriber: Subscriber): void {
    this.#subscribers.delete(subscriber);
    if (this.#subscribers.size === 0) this.#stopping.abort();
  }

  async #run(signal: AbortSignal): Promise<void> {
    await this.#placed;
    while (!signal.aborted) {
      const begun = performance.now();
      try {
        await this.#turn(signal);
        this.#away = false;
      } catch (error) {
        this.#warn(error);
      }
      // What takes long is done less often, so that others get their turn in Redis.
      await pause(Math.max(this.#parts.pollMs, 2 * (performance.now() - begun)), signal);
    }
  }

  /** Finds out where to begin; when that is not to be known now, everybody is told so. Never rejects. */
  async #place(signal: AbortSignal): Promise<void> {
    const { reader, name } = this.#parts;
    this.#dirty.clear();
    try {
      const isPlaced = await reader.use(name, async (view) => {
        const { head, forgotten } = await view.changes(Number.MAX_SAFE_INTEGER, 1);
        if (head.seq === undefined || head.seq < forgotten || signal.aborted) return false;
        [this.#position, this.#epoch, this.#definition] = [head.seq, head.epoch, view.definition];
        return true;
      });
      if (isPlaced === undefined) this.#failAll(gone(name), signal);
      else if (!isPlaced) this.#failAll(building, signal);
    } catch (error) {
      this.#warn(error);
      this.#failAll(building, signal);
    }
  }

  #warn(error: unknown): void {
    if (!this.#away)
      this.#parts.log.warn(
        { error: messageOf(error), aggregate: this.#parts.name },
        'the changes of an aggregate cannot be read, trying again',
      );
    this.#away = true;
  }

  async #turn(signal: AbortSignal): Promise<void> {
    const { reader, name } = this.#parts;
    const isKnown = await reader.use(name, async (view) => {
      const changes = await view.changes(this.#position, mostChanges);
      if (!signal.aborted && this.#take(view.definition, changes, signal)) await this.#tell(view, signal);
      return true;
    });
    if (!isKnown) this.#failAll(gone(name), signal);
  }

  /** Notes what has changed; false when there is nothing to go by. */
  #take(definition: Definition, { head, forgotten, changes, complete }: Changes, signal: AbortSignal): boolean {
    const position = this.#position;
    const { seq = 0, epoch } = head;
    // Behind where it was, it is being made anew, or Redis has lost its last second.
    const fault = this.#breakOf(definition, epoch, seq < position || forgotten > position);
    if (fault) {
      this.#failAll(fault, signal);
      return false;
    }
    this.#definition = definition;
    for (const change of changes) if (this.#takers(change.group).length > 0) this.#dirty.add(change, position);
    // The changes of one event may be cut apart.
    this.#position = complete ? seq : Math.max(changes.at(-1)!.seq - 1, position);
    return true;
  }

  #breakOf({ hash }: Definition, epoch: string, isForgotten: boolean): Faults | undefined {
    // Emptied, it has no epoch.
    if (epoch !== '' && epoch !== this.#epoch)
      return { code: 'epoch_changed', message: 'the log has begun another history: start anew, with a snapshot' };
    if (hash !== this.#definition!.hash) return redefined;
    return isForgotten ? expired : undefined;
  }

  /** Who wants to hear of a group. */
  #takers(group: string): readonly Subscriber[] {
    const event = filterableOf(this.#parts.channel, this.#definition!, group);
    return [...this.#subscribers].filter(({ filter }) => matches(filter, event));
  }

  async #tell(view: AggregateView, signal: AbortSignal): Promise<void> {
    for (let due = this.#dirty.due(performance.now()); due.length > 0 && !signal.aborted;) {
      const part = due.slice(0, groupsAtOnce);
      const { seq, states } = await view.states(new Map(part.map(({ group, panes }) => [group, panes])));
      if (signal.aborted || states.length === 0) return;
      const now = performance.now();
      for (const state of states) {
        this.#dirty.told(state.group, now);
        const item = { seq: this.#dirty.passed(this.#position), event: eventOf(view.definition, state, seq) };
        for (const subscriber of this.#takers(state.group)) subscriber.give(state.group, item, seq);
      }
      due = due.slice(states.length);
    }
    const passed = this.#dirty.passed(this.#position);
    for (const subscriber of this.#subscribers) subscriber.passed(passed);
  }

  #failAll(fault: Faults, signal: AbortSignal): void {
    if (signal.aborted) return;
    for (const subscriber of [...this.#subscribers]) subscriber.fail(fault);
  }
}

function gone(name: string): Faults {
  return { code: 'unknown_channel', message: `there is no aggregate ${name}` };
}
