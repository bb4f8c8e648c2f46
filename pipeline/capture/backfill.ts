import { tableToken } from '../../schemas/subjects.ts';
import { OffsetExpired } from '../log/errors.ts';
import type { EventLog, Seq } from '../log/event-log.ts';
import { backoffMs, pause } from '../runtime/backoff.ts';
import { HeadwaterError, messageOf } from '../runtime/errors.ts';
import { Pace } from './backfill-pace.ts';
import { ChunkReader, isLocked, type Chunk, type ChunkReaderOptions } from './backfill-reader.ts';
import { ChunkWriter, type ChunkWriterOptions } from './backfill-writer.ts';
import type { CopyState, LogRecord } from './log-record.ts';
import type { CapturedTable } from './tables.ts';

/** Rows that are read again in one go. */
const movedAtOnce = 50;
/** So many may wait for it: they are kept in the state. */
const maxMoved = 200;

export interface BackfillOptions extends ChunkReaderOptions, ChunkWriterOptions {
  /** Tables of more bytes than this are marked as large: the cache leaves them out. */
  readonly largeAbove: number;
  readonly eventLog: EventLog;
  readonly record: LogRecord;
  /** Transactions with a lower number began before the session did, and may have been logged before it. */
  readonly firstKnownXid: bigint;
  readonly signal: AbortSignal;
}

/**
 * Copies a table's rows into the log while changes stream, a chunk at a time in the order of the primary key.
 *
 * A chunk is read in a repeatable-read transaction whose snapshot is kept, and logged once the log has passed the position
 * taken after it. A row is left out if a logged transaction that the snapshot does not see has changed it: then the log
 * already has something newer; of a row whose change came without its large values, they are logged with what is newer.
 * Progress is kept for each chunk, so a crash repeats one at most.
 */
export class Backfill {
  readonly #options: BackfillOptions;
  readonly #writer: ChunkWriter;

  constructor(options: BackfillOptions) {
    this.#options = options;
    this.#writer = new ChunkWriter(options);
  }

  /**
   * Copies one table from where its state says, until it is done or the signal fires, and keeps the state in the log's record.
   * Failures of the database are tried again; those of the request end it.
   */
  async run(table: CapturedTable, state: CopyState, interrupt: AbortSignal): Promise<void> {
    const { tracker, log, signal } = this.#options;
    if (!table.hasKey) return this.#withoutKey(table, state);
    log.info({ table: table.name, from: state.after ?? 'the beginning' }, 'backfill begins');
    const reader = new ChunkReader(this.#options, table);
    const run = new Run(table, reader, this.#resumed(table, state), interrupt);
    // It may be waiting for an answer.
    const cut = (): void => void reader.close();
    signal.addEventListener('abort', cut, { once: true });
    try {
      for (let attempt = 0; !interrupt.aborted; attempt++) {
        try {
          return await this.#copy(run);
        } catch (error) {
          if (signal.aborted) return;
          if (isRequestFault(error)) return await this.#fail(run.state, error);
          if (isLocked(error)) await this.#wait(run, 'waits for whoever has locked the table');
          else log.warn({ table: table.name, error: messageOf(error) }, 'backfill interrupted, going on from the last chunk');
          await pause(isLocked(error) ? 0 : backoffMs(attempt), interrupt);
          if (!isLocked(error)) await reader.disconnect();
        } finally {
          tracker.untrack(table.name);
        }
      }
    } finally {
      signal.removeEventListener('abort', cut);
      await reader.close();
    }
  }

  /** Notes in the log that a backfill has been given up. */
  async cancelled(state: CopyState): Promise<void> {
    this.#options.log.info({ table: state.table, rows: state.rows }, 'backfill cancelled');
    if (state.begun) await this.#writer.mark({ phase: 'cancelled', table: state.table, rows: state.rows });
  }

  /** A place in another table of this name is none in this one. */
  #resumed(table: CapturedTable, state: CopyState): CopyState {
    const { after, key, moved, seq, ...rest } = state;
    const copied = state.oid === table.oid ? { after, key, moved, seq } : { rows: 0, read: 0, total: 0 };
    return { ...rest, oid: table.oid, ...copied, note: undefined, error: undefined };
  }

  async #copy(run: Run): Promise<void> {
    const { record, log } = this.#options;
    const { table, reader, interrupt } = run;
    await this.#prime(run);
    if (run.state.where !== undefined || !run.state.total) {
      const total = await reader.estimate(run.state.where);
      run.state = { ...run.state, total };
    }
    while (!interrupt.aborted) {
      const chunk = await reader.read(run.state, (snapshot) => this.#options.tracker.forgetChanges(snapshot));
      if (!run.state.begun) await this.#begin(run);
      const logged = await this.#insert(run, chunk);
      const moved = await this.#readMoved(run, chunk.next === undefined);
      if (interrupt.aborted && moved === undefined) return;
      const { next } = chunk;
      const { rows, read = rows } = run.state;
      const counts = { rows: rows + logged + (moved ?? 0), read: read + chunk.rows.length, speed: run.pace.passed(chunk.rows.length) };
      if (!next) await this.#writer.mark({ phase: 'end', table: table.name, rows: counts.rows });
      const place = { state: next ? 'running' : 'done', after: next, key: next && chunk.key, ...this.#passed(run) } as const;
      const reached: CopyState = { ...run.state, ...counts, ...place, note: undefined };
      await record.putCopy(reached);
      run.state = reached;
      log.debug({ table: table.name, rows: counts.rows, of: reached.total, chunk: chunk.rows.length, bytes: chunk.bytes }, 'backfill');
      if (!next) return log.info({ table: table.name, rows: counts.rows }, 'backfill complete');
      await run.pace.wait(interrupt);
    }
  }

  /** What another session has to know of the log up to here. */
  #passed({ table, seq }: Run): Pick<CopyState, 'seq' | 'moved'> {
    const moved = this.#options.tracker.moved(table.name);
    return { seq, moved: moved.length > 0 ? moved : undefined };
  }

  /**
   * Reads rows that have moved, by an event that has only a part of them, to where the chunks may have gone by. Some of them at
   * once; all of them when there are many, or when the table is read to its end. Returns how many were logged, undefined when it
   * was interrupted before all that had to be were.
   */
  async #readMoved(run: Run, all: boolean): Promise<number | undefined> {
    const { tracker } = this.#options;
    const { name } = run.table;
    let logged = 0;
    for (let waited = 0; tracker.moved(name).length > 0; waited++) {
      if (run.interrupt.aborted) return undefined;
      const some = tracker.moved(name).slice(0, movedAtOnce);
      const keys = some.map(({ key }) => key);
      const chunk = await run.reader.readKeys(keys, run.state.where, (snapshot) => tracker.forgetChanges(snapshot));
      logged += await this.#insert(run, chunk);
      const seen = some.filter(({ xid }) => chunk.snapshot.sees(xid));
      tracker.forgetMoved(name, new Set(seen));
      if (!all && tracker.moved(name).length < maxMoved) break;
      if (seen.length > 0) waited = 0;
      if (waited > 20) await this.#wait(run, 'waits for transactions that are in the log and not visible yet');
      if (seen.length === 0) await pause(Math.min(1_000, 10 * 2 ** waited), run.interrupt);
    }
    return logged;
  }

  /** Says to whoever looks what is waited for. */
  async #wait(run: Run, note: string): Promise<void> {
    if (run.state.note === note) return;
    run.state = { ...run.state, note };
    this.#options.log.info({ table: run.table.name }, `backfill ${note}`);
    await this.#options.record.putCopy(run.state);
  }

  /**
   * From here on the changes of the table are tracked. Those logged before, by transactions that a snapshot may still not
   * see, are read back from the log; transactions of before this session are waited for, since nobody knows if they are logged.
   */
  async #prime(run: Run): Promise<void> {
    const { tracker, firstKnownXid, log, signal } = this.#options;
    for (let waited = 0; ; waited++) {
      signal.throwIfAborted();
      if (run.interrupt.aborted) return;
      const snapshot = await run.reader.now();
      tracker.forgetTransactions(snapshot);
      if (snapshot.seesAllBelow(firstKnownXid)) break;
      if (waited > 1) await this.#wait(run, 'waits for transactions that began before capture did');
      await pause(Math.min(1_000, 20 * 2 ** waited), run.interrupt);
    }
    const { name } = run.table;
    const { seq, after, moved = [] } = run.state;
    const to = this.#options.out.end.seq;
    tracker.track(name);
    const from = Math.min(tracker.oldestUnseenSeq ?? Infinity, after && seq !== undefined ? seq + 1 : Infinity);
    if (from <= to && !(await this.#readBack(run.table, from, to))) {
      log.warn({ table: name }, 'the log does not hold what has happened since the last chunk: the backfill begins anew');
      run.state = { ...run.state, after: undefined };
    } else tracker.addMoved(name, moved);
    run.seq = to;
  }

  /** False when the log does not hold that any more. */
  async #readBack({ schema, table, name }: CapturedTable, from: Seq, to: Seq): Promise<boolean> {
    const { eventLog, tracker, subject, signal } = this.#options;
    const subjects = `${subject}.${tableToken(schema, table)}.`;
    try {
      for await (const events of eventLog.read(from, { signal })) {
        for (const event of events) {
          if (!event.subject.startsWith(subjects) || event.seq > to) continue;
          const { tx } = JSON.parse(Buffer.from(event.data).toString('utf8')) as { tx?: { xid: number } };
          tracker.note({ data: event.data, xid: tx?.xid, table: name });
        }
        if (events.at(-1)!.seq >= to) break;
      }
      return true;
    } catch (error) {
      if (error instanceof OffsetExpired) return false;
      throw error;
    }
  }

  async #insert(run: Run, chunk: Chunk): Promise<number> {
    const { logged, seq } = await this.#writer.insert(chunk);
    run.seq = seq ?? run.seq;
    return logged;
  }

  async #begin(run: Run): Promise<void> {
    const { table, state } = run;
    const large = table.size > this.#options.largeAbove;
    // One that was begun by a version that did not note it has its mark.
    if (state.state !== 'running')
      await this.#writer.mark({
        phase: 'begin',
        table: table.name,
        ...(state.where ? { where: state.where } : {}),
        ...(large ? { large } : {}),
      });
    run.state = { ...state, begun: true };
  }

  async #withoutKey(table: CapturedTable, state: CopyState): Promise<void> {
    const { record, log } = this.#options;
    const note = 'the table has no primary key, so its earlier rows cannot be copied: it is in the log from here on';
    log.warn({ table: table.name }, note);
    await this.#writer.mark({ phase: 'skipped', table: table.name, note });
    await record.putCopy({ ...state, oid: table.oid, state: 'none', error: note });
  }

  async #fail(state: CopyState, error: unknown): Promise<void> {
    const { record, log } = this.#options;
    log.error({ table: state.table, error: messageOf(error) }, 'backfill failed');
    if (state.begun) await this.#writer.mark({ phase: 'failed', table: state.table, rows: state.rows });
    await record.putCopy({ ...state, state: 'failed', note: undefined, error: messageOf(error) });
  }
}

/** One table's copy as far as it has come. */
class Run {
  readonly table: CapturedTable;
  readonly reader: ChunkReader;
  readonly pace: Pace;
  /** Fires when an operator wants something else. */
  readonly interrupt: AbortSignal;
  state: CopyState;
  /** Sequence up to which the tracker knows all events of the table. */
  seq: Seq | undefined;

  constructor(table: CapturedTable, reader: ChunkReader, state: CopyState, interrupt: AbortSignal) {
    this.table = table;
    this.reader = reader;
    this.state = state;
    this.pace = new Pace(state.rate);
    this.interrupt = interrupt;
  }
}

/**
 * SQL states that another attempt will not change: a fault in values, in the statement or in a function that a condition calls,
 * a write (which the transaction does not allow), an unknown column or table, a missing privilege.
 */
function isRequestFault(error: unknown): boolean {
  if (error instanceof HeadwaterError && error.reaction === 'usage') return true;
  const code = (error as { code?: unknown }).code;
  return typeof code === 'string' && /^(0A|21|22|25006|38|39|42|54|P0|no_such_table)/.test(code);
}
