import type { EventLog, Seq } from '../../log/event-log.ts';
import { pause } from '../../runtime/backoff.ts';
import type { CopyState, LogRecord } from '../log-record.ts';
import type { BackfillMetrics } from '../metrics.ts';
import type { CapturedTable } from '../tables.ts';
import { isLocked } from './faults.ts';
import { Pace } from './pace.ts';
import { ChunkReader, type ChunkReaderOptions } from './reader.ts';
import type { ChunkWriterOptions } from './writer.ts';

/** A table that has not come on for so many times the longest query is put behind others that wait. */
const patience = 4;
/** Between two looks whether a table is still locked, which each wait by themselves. */
const unlockedMs = 50;

export interface BackfillOptions extends ChunkReaderOptions, ChunkWriterOptions {
  /** Tables of more bytes than this are marked as large: the cache leaves them out. */
  readonly largeAbove: number;
  readonly eventLog: EventLog;
  readonly record: LogRecord;
  readonly metrics: BackfillMetrics;
  /** Transactions with a lower number began before the session did, and may have been logged before it. */
  readonly firstKnownXid: bigint;
  readonly signal: AbortSignal;
}

/** One table's time at work. */
export interface Turn {
  /** Fires when an operator wants something else. */
  readonly interrupt: AbortSignal;
  /** Are there others that wait for their turn? */
  readonly othersWait: () => boolean;
}

/** What keeps a table from coming on may last, and others wait. */
export class StepAside extends Error {
  constructor() {
    super('has waited for long, and others wait for their turn');
  }
}

/** One table's copy as far as it has come, and how it waits for what is in its way. */
export class Run {
  readonly table: CapturedTable;
  readonly reader: ChunkReader;
  readonly pace: Pace;
  /** Fires when an operator wants something else. */
  readonly interrupt: AbortSignal;
  state: CopyState;
  /** Sequence up to which the tracker knows all events of the table. */
  seq: Seq | undefined;
  /** What that was before the first chunk. */
  primed: Seq | undefined;
  /** Nothing has been logged that the state does not count: to end here repeats nothing. */
  atPlace = true;
  /** When the last chunk was done. */
  movedOnAt = performance.now();
  /** The rows to copy have been estimated: their number is only shown. */
  estimated = false;
  readonly #options: BackfillOptions;
  readonly #othersWait: () => boolean;

  constructor(options: BackfillOptions, table: CapturedTable, state: CopyState, { interrupt, othersWait }: Turn) {
    this.#options = options;
    this.table = table;
    this.reader = new ChunkReader(options, table);
    this.state = resumed(table, state);
    this.pace = new Pace(state.rate);
    this.interrupt = interrupt;
    this.#othersWait = othersWait;
  }

  /** Copies from the table's first row on. */
  beginAnew(why: string): void {
    this.#options.log.warn({ table: this.table.name }, `${why}: the backfill begins anew`);
    this.state = { ...this.state, after: undefined, key: undefined, moved: undefined };
  }

  /** Keeps a note for whoever looks. It is only shown: that it cannot be kept stops nothing. */
  async note(note: string): Promise<void> {
    this.state = { ...this.state, note };
    await this.#options.record.putCopy(this.state).catch(() => undefined);
  }

  /** Says, once, what is waited for. */
  async waitsFor(what: string): Promise<void> {
    const note = `waits for ${what}`;
    if (this.state.note === note) return;
    this.#options.log.info({ table: this.table.name }, `backfill ${note}`);
    await this.note(note);
  }

  /** The same for transactions of which the log has more than the last snapshot sees, unless they become visible soon. */
  async waitUntilVisible(waited: number): Promise<void> {
    if (waited > 7) await this.waitsFor('transactions that are in the log and not visible yet');
    await pause(Math.min(1_000, 10 * 2 ** waited), this.interrupt);
  }

  /** Asks until nobody has the table locked. What is tracked stays so meanwhile. Undefined when it was interrupted before. */
  async unlocked<T>(ask: () => Promise<T>): Promise<T | undefined> {
    while (!this.interrupt.aborted) {
      try {
        return await ask();
      } catch (error) {
        if (!isLocked(error)) throw error;
        // The condition has not even been asked.
        this.state = { ...this.state, attempts: undefined };
        await this.waitsFor('whoever has locked the table');
        this.stepAside();
        await pause(unlockedMs, this.interrupt);
      }
    }
    return undefined;
  }

  /** Has it not come on for long, while others wait? */
  get isStuck(): boolean {
    return this.#othersWait() && performance.now() - this.movedOnAt > patience * this.#options.timeoutMs;
  }

  /** Lets others go first, where that repeats nothing. Throws `StepAside`. */
  stepAside(): void {
    if (this.atPlace && this.isStuck) throw new StepAside();
  }
}

/** A place in another table of this name is none in this one. */
function resumed(table: CapturedTable, state: CopyState): CopyState {
  const { after, key, moved, seq, ...rest } = state;
  const copied = state.oid === table.oid ? { after, key, moved, seq } : { rows: 0, read: 0, total: 0 };
  return { ...rest, oid: table.oid, ...copied, note: undefined, error: undefined };
}
