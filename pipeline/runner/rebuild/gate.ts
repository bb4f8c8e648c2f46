import { once, EventEmitter } from 'node:events';
import type { EventLog, LogEvent, ReadOptions, Seq } from '../../log/event-log.ts';
import type { CommitOutcome, Holes, Offset, StateStore } from '../state-store.ts';

/** The log as far as a limit: what comes after it is held back until the limit is raised. */
export class GatedLog implements EventLog {
  readonly #log: EventLog;
  readonly #raised = new EventEmitter().setMaxListeners(0);
  #limit: Seq = Infinity;

  constructor(log: EventLog) {
    this.#log = log;
  }

  set limit(limit: Seq) {
    this.#limit = limit;
    this.#raised.emit('raised');
  }

  async *read(from: Seq, options: ReadOptions = {}): AsyncGenerator<readonly LogEvent[], void, undefined> {
    for await (const events of this.#log.read(from, options)) {
      for (let begin = 0; begin < events.length && !options.signal?.aborted;) {
        const limit = this.#limit;
        let end = begin;
        while (end < events.length && events[end]!.seq <= limit) end++;
        if (end > begin) yield begin === 0 && end === events.length ? events : events.slice(begin, end);
        else if (this.#limit === limit)
          await once(this.#raised, 'raised', options.signal ? { signal: options.signal } : {}).catch(() => undefined);
        begin = end;
      }
    }
  }

  append: EventLog['append'] = (events, expected) => this.#log.append(events, expected);
  appendEach: EventLog['appendEach'] = (events, expected) => this.#log.appendEach(events, expected);
  get: EventLog['get'] = (seq) => this.#log.get(seq);
  last: EventLog['last'] = (subject) => this.#log.last(subject);
  lastPerSubject: EventLog['lastPerSubject'] = (subject) => this.#log.lastPerSubject(subject);
  firstSince: EventLog['firstSince'] = (time) => this.#log.firstSince(time);
  bounds: EventLog['bounds'] = () => this.#log.bounds();
}

export interface HeldStoreOptions {
  /** Who has the lease already, before a runner asks for it. */
  readonly owner: string;
  /** Rejects when it is not to be gone on with. */
  readonly check: () => Promise<void>;
  /** Throws when nothing is to begin after this offset. */
  readonly requireBeginning: (offset: Offset) => void;
}

/** A store whose commits can be held up, so that what it holds stands still for a moment. */
export class HeldStore<Effects> implements StateStore<Effects> {
  readonly #store: StateStore<Effects>;
  readonly #options: HeldStoreOptions;
  /** Called after each commit, before the next one may begin, for as long as it is there. */
  afterCommit: (() => Promise<void>) | undefined;
  #at: Offset | undefined;
  #from: Offset | undefined;
  /** What commits have to wait for. */
  #still: Promise<unknown> = Promise.resolve();
  /** The commits that have been given so far. */
  #commits: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(store: StateStore<Effects>, options: HeldStoreOptions) {
    this.#store = store;
    this.#options = options;
  }

  /** How far it is known to have come. */
  get at(): Offset | undefined {
    return this.#at;
  }

  /** Where it began. */
  get from(): Offset | undefined {
    return this.#from;
  }

  /** It begins anew. */
  restart(): void {
    this.#from = undefined;
  }

  /** From now on nothing is committed any more. */
  close(): void {
    this.#closed = true;
  }

  get ordered(): boolean {
    return this.#store.ordered ?? false;
  }

  /** Runs something while nothing is being committed. */
  still<T>(work: () => Promise<T>): Promise<T> {
    const done = Promise.all([this.#still, this.#commits]).then(work);
    this.#still = done.catch(() => undefined);
    return done;
  }

  offset(): Promise<Offset | undefined> {
    return this.still(async () => {
      this.#requireOpen();
      await this.#options.check();
      this.#at = await this.#store.offset();
      this.#from ??= this.#at;
      return this.#at;
    });
  }

  commit(effects: Effects, expected: Offset | undefined, next: Offset, holes?: Holes): Promise<CommitOutcome> {
    const commit = (): Promise<CommitOutcome> => this.#commit(effects, expected, next, holes);
    if (this.afterCommit)
      return this.still(async () => {
        const outcome = await commit();
        if (outcome === 'committed') await this.afterCommit?.();
        return outcome;
      });
    const done = this.#still.then(commit);
    this.#commits = Promise.allSettled([this.#commits, done]).then(() => undefined);
    return done;
  }

  async #commit(effects: Effects, expected: Offset | undefined, next: Offset, holes?: Holes): Promise<CommitOutcome> {
    this.#requireOpen();
    if (!expected) this.#options.requireBeginning(next);
    const outcome = await this.#store.commit(effects, expected, next, holes);
    if (outcome === 'committed') {
      this.#at = next;
      this.#from ??= expected ?? next;
    }
    return outcome;
  }

  holes(seqs: readonly Seq[]): Promise<ReadonlySet<Seq>> {
    return this.#store.holes(seqs);
  }

  lease(_owner: string, ttlMs: number): Promise<boolean> {
    return this.#store.lease(this.#options.owner, ttlMs);
  }

  release(): Promise<void> {
    return this.#store.release(this.#options.owner);
  }

  #requireOpen(): void {
    if (this.#closed) throw new Error('the rebuild is over');
  }
}
