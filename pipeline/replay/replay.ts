import { setImmediate } from 'node:timers/promises';
import type { EventLog, LogEvent, Seq } from '../log/event-log.ts';
import { idOf } from '../runner/event-head.ts';
import type { Filter } from './filter.ts';
import { Pace } from './pace.ts';
import type { Range } from './range.ts';
import type { ReplayTarget, Settled } from './target.ts';

/** How far a replay has come. */
export interface ReplayProgress {
  /** The first sequence that has not been looked at. */
  readonly next: Seq;
  /** Events given to the target. */
  readonly events: number;
  /** Events that were looked at in this run. */
  readonly read: number;
}

/** What is done for good: the target's part, and from where it goes on. */
export interface Safe {
  readonly next: Seq;
  readonly mark: { readonly seq: Seq; readonly id: string } | undefined;
  readonly settled: Settled;
  /** Events in front of `next` that passed although they lack a value that is asked for. */
  readonly undecided: number;
}

export interface ReplayParts {
  readonly eventLog: EventLog;
  readonly filter: Filter;
  readonly range: Range;
  /** The first sequence to look at: the range's, or where an earlier run has ended. */
  readonly next: Seq;
  /** What the target has from earlier runs. */
  readonly before: Settled;
  /** How many of these lack a value that is asked for. */
  readonly undecidedBefore?: number | undefined;
  readonly target: ReplayTarget;
  /** Events a second. */
  readonly rate?: number | undefined;
  /** Stops it: what is whole is made durable and kept. */
  readonly signal: AbortSignal;
  /** Keeps what is done for good; called at the beginning, about once a second, and at every end but the last. */
  readonly save: (safe: Safe) => Promise<void>;
  readonly onProgress?: (progress: ReplayProgress) => void;
}

export interface ReplayOutcome {
  /** False when it was stopped before the range's end. */
  readonly done: boolean;
  /** Events in the target, with those of earlier runs. */
  readonly events: number;
  readonly bytes: number;
  /** The first sequence that is not done. */
  readonly next: Seq;
  readonly undecided: number;
}

const saveEveryMs = 1_000;
/** Bytes of events that may wait to be looked at. */
const highWaterBytes = 4 * 1024 ** 2;
/** Events that are looked at between two turns of the loop. */
const turn = 1_000;

/**
 * Reads a range of the log and gives what matches to a target, in order. It reads with a consumer of its own: no processor's or
 * reader's offset is touched.
 * @throws what the log and the target throw, after what is durable has been saved
 */
export function replay(parts: ReplayParts): Promise<ReplayOutcome> {
  return new Replay(parts).run();
}

class Replay {
  readonly #parts: ReplayParts;
  readonly #pace: Pace;
  #next: Seq;
  #events: number;
  #read = 0;
  #settled: Settled;
  /** The last event that was looked at. */
  #seen: LogEvent | undefined;
  #savedAt = performance.now();
  /** Undecided events that are done for good, and the sequences of those that are not. */
  #undecided: number;
  #undecidedOpen: Seq[] = [];

  constructor(parts: ReplayParts) {
    this.#parts = parts;
    this.#pace = new Pace(parts.rate);
    this.#next = parts.next;
    this.#settled = parts.before;
    this.#events = parts.before.events;
    this.#undecided = parts.undecidedBefore ?? 0;
  }

  async run(): Promise<ReplayOutcome> {
    const { signal } = this.#parts;
    await this.#save();
    try {
      await this.#readTo(await this.#end());
      if (!signal.aborted) return await this.#finish();
    } catch (error) {
      // What fails because it was told to stop is no failure.
      if (!signal.aborted) {
        await this.#save().catch(() => undefined);
        throw error;
      }
    }
    await this.#save();
    return this.#outcome(false);
  }

  async #finish(): Promise<ReplayOutcome> {
    const { range, signal, target } = this.#parts;
    this.#next = Math.max(this.#next, range.last + 1);
    this.#settled = await target.settle(true, signal);
    return this.#outcome(true);
  }

  /** The last sequence that has to be waited for: behind the last event of the filter's subjects nothing would ever come. */
  async #end(): Promise<Seq> {
    const { eventLog, filter, range } = this.#parts;
    if (!filter.subjects) return range.last;
    const newest = await Promise.all(filter.subjects.map((subject) => eventLog.last(subject)));
    return Math.min(range.last, Math.max(0, ...newest.map((event) => event?.seq ?? 0)));
  }

  async #readTo(end: Seq): Promise<void> {
    const { eventLog, filter, range, signal } = this.#parts;
    if (this.#next > end) return;
    const subjects = filter.subjects ? { subjects: filter.subjects } : {};
    for await (const events of eventLog.read(this.#next, { ...subjects, signal, highWaterBytes })) {
      for (let start = 0; start < events.length && !signal.aborted; start += turn) {
        await this.#take(events.slice(start, start + turn).filter(({ seq }) => seq <= range.last));
        await setImmediate();
      }
      if (signal.aborted || events.at(-1)!.seq >= end) return;
    }
  }

  async #take(events: readonly LogEvent[]): Promise<void> {
    const { target, signal } = this.#parts;
    const matching = events.filter((event) => this.#matches(event));
    for (let start = 0; start < matching.length; start += this.#pace.chunk) {
      const some = matching.slice(start, start + this.#pace.chunk);
      await this.#pace.take(some.length, signal);
      if (signal.aborted) return;
      await target.write(some, signal);
      this.#events += some.length;
      this.#passed(some.at(-1)!);
      await this.#saveWhenDue();
    }
    const last = events.at(-1);
    if (last) this.#passed(last);
    this.#read += events.length;
    await this.#saveWhenDue();
  }

  #matches(event: LogEvent): boolean {
    const { filter } = this.#parts;
    const { undecided } = filter;
    const matches = filter.matches(event);
    if (filter.undecided > undecided) this.#undecidedOpen.push(event.seq);
    return matches;
  }

  #passed(event: LogEvent): void {
    this.#seen = event;
    this.#next = event.seq + 1;
  }

  async #saveWhenDue(): Promise<void> {
    this.#parts.onProgress?.({ next: this.#next, events: this.#events, read: this.#read });
    if (performance.now() - this.#savedAt >= saveEveryMs) await this.#save();
  }

  async #save(): Promise<void> {
    this.#settled = await this.#parts.target.settle(false, this.#parts.signal);
    await this.#parts.save(this.#safe());
    this.#savedAt = performance.now();
  }

  /** What the target has not for good yet is read again. */
  #safe(): Safe {
    const { range } = this.#parts;
    const whole = this.#settled.events === this.#events;
    const next = whole ? this.#next : (this.#settled.through ?? range.first - 1) + 1;
    const mark = whole && this.#seen ? { seq: this.#seen.seq, id: idOf(this.#seen) } : undefined;
    return { next, mark, settled: this.#settled, undecided: this.#undecidedUpTo(next) };
  }

  #undecidedUpTo(next: Seq): number {
    const open = this.#undecidedOpen.filter((seq) => seq >= next);
    this.#undecided += this.#undecidedOpen.length - open.length;
    this.#undecidedOpen = open;
    return this.#undecided;
  }

  #outcome(done: boolean): ReplayOutcome {
    const { events, bytes } = this.#settled;
    const { next, undecided } = this.#safe();
    return { done, events, bytes, next, undecided };
  }
}
