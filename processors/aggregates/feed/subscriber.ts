import type { Seq } from '../../../pipeline/log/event-log.ts';
import { messageOf } from '../../../pipeline/runtime/errors.ts';
import type { FeedItem, FeedReceiver, FeedStart } from '../../../pipeline/runtime/feed.ts';
import type { Logger } from '../../../pipeline/runtime/logging.ts';
import { matches, type Filter } from '../../../schemas/filter.ts';
import { shownLevels } from '../model.ts';
import type { AggregateReader } from '../read/reader.ts';
import type { Change } from '../read/pages.ts';
import type { AggregateView } from '../read/view.ts';
import { atLeast, eventOf, filterableOf } from './frames.ts';

export type Faults = Parameters<FeedReceiver['failed']>[0];

const anew = 'start anew, with a snapshot';
export const expired: Faults = { code: 'resume_expired', message: `what has changed since this position is not known one by one: ${anew}` };
export const redefined: Faults = { code: 'resume_expired', message: `the aggregate is defined in another way by now: ${anew}` };
export const building: Faults = {
  code: 'overload',
  message: 'the aggregate cannot be read now, or is being built: try again',
  retryAfterMs: 1_000,
};

export interface SubscriberParts {
  readonly reader: AggregateReader;
  readonly name: string;
  readonly channel: string;
  readonly log: Logger;
  readonly filter: Filter;
  readonly start: FeedStart;
  readonly receiver: FeedReceiver;
  readonly onEnd: () => void;
}

const changesAtOnce = 500;
const groupsAtOnce = 100;

/** What ends a subscription, as something to throw. */
class Ended extends Error {
  readonly fault: Faults;

  constructor(fault: Faults) {
    super(fault.message);
    this.fault = fault;
  }
}

/** One subscription of a channel: it catches up by itself, then it is live. */
export class Subscriber {
  readonly filter: Filter;
  readonly #parts: SubscriberParts;
  /** What was told while it was catching up, of each group the last; undefined once it is live. */
  #held: Map<string, { readonly item: FeedItem; readonly asOf: Seq }> | undefined = new Map();
  /** All that changed up to here has been given, or is not wanted. */
  #position: Seq;
  #begun = false;
  #ended = false;

  constructor(parts: SubscriberParts) {
    this.#parts = parts;
    this.filter = parts.filter;
    this.#position = parts.start.after;
  }

  /** A group has been told of; `asOf`: what the state includes. */
  give(group: string, item: FeedItem, asOf: Seq): void {
    if (this.#held) this.#held.set(group, { item, asOf });
    else if (!this.#ended) this.#parts.receiver.live(atLeast(item, this.#position));
  }

  passed(seq: Seq): void {
    if (this.#held || this.#ended || seq <= this.#position) return;
    this.#position = seq;
    this.#parts.receiver.passed(seq);
  }

  fail(fault: Faults): void {
    if (this.#ended) return;
    this.end();
    this.#parts.receiver.failed(fault);
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#parts.onEnd();
  }

  /** From its start to live; never rejects. */
  async catchUp(): Promise<void> {
    const { reader, name, log } = this.#parts;
    if (this.#ended) return;
    try {
      const known = await reader.use(name, async (view) => {
        await this.#begin(view);
        while (!this.#ended && !(await this.#step(view)));
        return true;
      });
      if (!known) this.fail({ code: 'unknown_channel', message: `there is no aggregate ${name}` });
    } catch (error) {
      if (error instanceof Ended) return this.fail(error.fault);
      if (!this.#ended) log.warn({ error: messageOf(error), aggregate: name }, 'a subscription of an aggregate could not be served');
      this.fail(building);
    }
  }

  async #begin(view: AggregateView): Promise<void> {
    const { start, receiver } = this.#parts;
    // Read again, since another definition has taken the place of the one it began with.
    if (this.#begun) throw new Ended(redefined);
    // Beyond all changes: only the head is of interest.
    const { head, forgotten } = await view.changes(Number.MAX_SAFE_INTEGER, 1);
    if (this.#ended) return;
    if (head.seq === undefined || head.epoch !== start.epoch) throw new Ended(building);
    if (!start.snapshot && start.after < forgotten) throw new Ended(expired);
    // Made anew, it has not come yet to where the former one may have been.
    if (head.seq < forgotten) throw new Ended(building);
    this.#begun = true;
    if (start.snapshot) return this.#sendSnapshot(view, head.seq);
    receiver.begun(start.after);
  }

  /** Pages of all groups, none older than `asOf`: what changes meanwhile comes again. */
  async #sendSnapshot(view: AggregateView, asOf: Seq): Promise<void> {
    const { receiver, filter, channel } = this.#parts;
    const { definition } = view;
    receiver.begun(asOf);
    this.#position = asOf;
    const request = { groups: [], conditions: [], windows: shownLevels(definition), sliding: definition.sliding, limit: groupsAtOnce };
    for (let after: string | undefined, more = true; more;) {
      if (!(await receiver.drained())) return;
      const page = await view.latest({ ...request, after });
      after = page.next;
      more = after !== undefined;
      const wanted = page.groups.filter(({ group }) => matches(filter, filterableOf(channel, definition, group)));
      const items = wanted.map((state) => ({ seq: page.seq, event: eventOf(definition, state, page.seq) }));
      if (this.#ended) return;
      if (items.length > 0 || !more) receiver.page(items, more);
    }
  }

  /** Gives the next changes. True when there are no more, and it is live. */
  async #step(view: AggregateView): Promise<boolean> {
    const { receiver, filter, channel } = this.#parts;
    if (!(await receiver.drained())) {
      this.end();
      return true;
    }
    // What is told from here on and is newer than what is read now has to follow.
    this.#held = new Map();
    const { head, forgotten, changes, complete } = await view.changes(this.#position, changesAtOnce);
    if (head.seq === undefined || forgotten > this.#position) throw new Ended(expired);
    const through = Math.max(this.#position, complete ? head.seq : changes.at(-1)!.seq - 1);
    const wanted = byGroup(changes.filter(({ group }) => matches(filter, filterableOf(channel, view.definition, group))));
    await this.#send(view, wanted, through);
    if (this.#ended || !complete) return this.#ended;
    receiver.caughtUp(through);
    const held = [...this.#held];
    this.#held = undefined;
    for (const [group, { item, asOf }] of held) if (asOf > head.seq) this.give(group, item, asOf);
    return true;
  }

  /** Sends the states of these groups, and with them all up to `through`. */
  async #send(view: AggregateView, wanted: ReadonlyMap<string, ReadonlyMap<number, Seq>>, through: Seq): Promise<void> {
    const { receiver } = this.#parts;
    const groups = [...wanted];
    for (let sent = 0; sent < groups.length;) {
      const { seq, states } = await view.states(new Map(groups.slice(sent, sent + groupsAtOnce)));
      if (this.#ended) return;
      sent += states.length;
      // Changes were given in their order, so all before the next group's first one have been told of.
      const reached = sent < groups.length ? this.#position : through;
      const items = states.map((state) => ({ seq: this.#position, event: eventOf(view.definition, state, seq) }));
      const last = items.pop();
      receiver.replayed(last ? [...items, { ...last, seq: reached }] : [], reached);
      if (sent < groups.length && !(await receiver.drained())) return this.end();
    }
    this.#position = through;
    if (groups.length === 0) receiver.replayed([], through);
  }
}

/** Group → pane → sequence of its last change. */
function byGroup(changes: readonly Change[]): ReadonlyMap<string, ReadonlyMap<number, Seq>> {
  const groups = new Map<string, Map<number, Seq>>();
  for (const { group, pane, seq } of changes) groups.set(group, (groups.get(group) ?? new Map<number, Seq>()).set(pane, seq));
  return groups;
}
