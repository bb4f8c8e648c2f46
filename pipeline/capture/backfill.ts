import type { EventLog } from '../log/event-log.ts';
import { backoffMs, pause } from '../runtime/backoff.ts';
import { messageOf, usage } from '../runtime/errors.ts';
import { isFaultOfRequest, isLocked } from './backfill-faults.ts';
import { readBack } from './backfill-history.ts';
import { ChunkReader, type Chunk, type ChunkReaderOptions } from './backfill-reader.ts';
import { Run, type Turn } from './backfill-run.ts';
import { ChunkWriter, type ChunkWriterOptions } from './backfill-writer.ts';
import type { CopyState, LogRecord } from './log-record.ts';
import type { BackfillMetrics } from './metrics.ts';
import { parsedKey, type Key, type Moved } from './change-tracker.ts';
import type { CapturedTable } from './tables.ts';
import type { Visibility } from './visibility.ts';

/** Rows that are read again in one go. */
const movedAtOnce = 50;
/** So many may wait for it: they are kept in the state. */
const maxMoved = 200;
/** After so many chunks of a condition that were begun and never came to an end, one after the other, it is given up. */
const maxAttempts = 5;
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

/** What keeps a table from coming on may last, and others wait. */
class StepAside extends Error {}

/** Rows, and the columns that the log had for the table when they were read. */
interface ReadChunk {
  readonly chunk: Chunk;
  readonly schema: string | undefined;
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
   * @returns `later` when it has made room for others and is to be run again
   */
  async run(table: CapturedTable, state: CopyState, turn: Turn): Promise<'ended' | 'later'> {
    const { tracker, log, signal } = this.#options;
    if (!table.hasKey) return this.#withoutKey(table, state);
    log.info({ table: table.name, from: state.after ?? 'the beginning' }, 'backfill begins');
    const reader = new ChunkReader(this.#options, table);
    const run = new Run(table, reader, state, turn);
    const { interrupt } = turn;
    // It may be waiting for an answer.
    const cut = (): void => void reader.close();
    signal.addEventListener('abort', cut, { once: true });
    try {
      for (let attempt = 0; !interrupt.aborted; attempt++) {
        const { movedOnAt } = run;
        try {
          await this.#copy(run);
          return 'ended';
        } catch (error) {
          if (signal.aborted) return 'ended';
          if (isFaultOfRequest(error)) return await this.#fail(run.state, error);
          if (error instanceof StepAside) return 'later';
          log.warn({ table: table.name, error: messageOf(error) }, 'backfill interrupted, going on from the last chunk');
          await this.#note(run, `tries again: ${messageOf(error)}`);
          if (this.#isStuck(run)) return 'later';
          if (run.movedOnAt > movedOnAt) attempt = 0;
          await pause(backoffMs(attempt), interrupt);
          await reader.disconnect();
        } finally {
          tracker.untrack(table.name);
        }
      }
      return 'ended';
    } finally {
      this.#options.metrics.chunkRows.set(0);
      signal.removeEventListener('abort', cut);
      await reader.close();
    }
  }

  /** Notes in the log that a backfill has been given up. */
  async cancelled(state: CopyState): Promise<void> {
    this.#options.log.info({ table: state.table, rows: state.rows }, 'backfill cancelled');
    if (state.begun) await this.#writer.mark({ phase: 'cancelled', table: state.table, rows: state.rows });
  }

  async #copy(run: Run): Promise<void> {
    const { record, log, tracker } = this.#options;
    const { table, reader, interrupt } = run;
    run.atPlace = true;
    await this.#prime(run);
    await this.#attempt(run);
    await this.#estimate(run);
    let again = 0;
    while (!interrupt.aborted) {
      const begun = performance.now();
      const found = await this.#read(run, (onSnapshot) => reader.read(run.state, onSnapshot));
      if (!found) return;
      const { chunk } = found;
      if (chunk.first) tracker.beginMoved(table.name, chunk.snapshot);
      if (!run.state.begun) await this.#begin(run);
      run.atPlace = false;
      const logged = chunk.first && tracker.lostMoved(table.name) ? undefined : await this.#insert(run, found);
      if (logged === undefined) {
        await this.#waitUntilVisible(run, again++);
        continue;
      }
      const moved = await this.#readMoved(run, chunk);
      if (interrupt.aborted && moved === undefined) return;
      if (tracker.lostMoved(table.name)) {
        this.#beginAnew(run, 'too many of its rows have got another key meanwhile');
        continue;
      }
      const { next } = chunk;
      const { rows, read = rows } = run.state;
      this.#count(chunk, logged + (moved ?? 0), (performance.now() - begun) / 1_000);
      const counts = { rows: rows + logged + (moved ?? 0), read: read + chunk.rows.length, speed: run.pace.passed(chunk.rows.length) };
      if (!next) await this.#writer.mark({ phase: 'end', table: table.name, rows: counts.rows });
      const place = { state: next ? 'running' : 'done', after: next, key: next && chunk.key, ...this.#passed(run) } as const;
      const reached: CopyState = { ...run.state, ...counts, ...place, note: undefined, attempts: undefined };
      await record.putCopy(reached);
      run.state = reached;
      run.atPlace = true;
      run.movedOnAt = performance.now();
      again = 0;
      log.debug({ table: table.name, rows: counts.rows, of: reached.total, chunk: chunk.rows.length, bytes: chunk.bytes }, 'backfill');
      if (!next) return log.info({ table: table.name, rows: counts.rows }, 'backfill complete');
      await run.pace.wait(interrupt);
    }
  }

  #count({ rows }: Chunk, logged: number, seconds: number): void {
    const { metrics } = this.#options;
    metrics.rows.inc(logged);
    metrics.chunks.inc();
    metrics.chunkRows.set(rows.length);
    metrics.chunkSeconds.observe(seconds);
  }

  /** What another session has to know of the log up to here. */
  #passed({ table, seq }: Run): Pick<CopyState, 'seq' | 'moved'> {
    const moved = this.#options.tracker.moved(table.name);
    return { seq, moved: moved.length > 0 ? moved : undefined };
  }

  /**
   * A function in a condition may end connections, capture's own too: what was begun is noted before, so that no session begins
   * it again for ever.
   */
  async #attempt(run: Run): Promise<void> {
    const { where, attempts = 0 } = run.state;
    if (where === undefined || run.interrupt.aborted) return;
    if (attempts >= maxAttempts)
      throw usage('condition_ends_session', `${attempts} times the connection, or capture's session, ended when the condition was asked`);
    run.state = { ...run.state, attempts: attempts + 1 };
    await this.#options.record.putCopy(run.state);
  }

  async #estimate(run: Run): Promise<void> {
    const { where, total } = run.state;
    if (run.estimated || (where === undefined && total)) return;
    const estimate = await this.#unlocked(run, () => run.reader.estimate(where));
    if (estimate === undefined) return;
    run.state = { ...run.state, total: estimate };
    run.estimated = true;
  }

  /** Asks until nobody has the table locked. What is tracked stays so meanwhile. Undefined when it was interrupted before. */
  async #unlocked<T>(run: Run, ask: () => Promise<T>): Promise<T | undefined> {
    while (!run.interrupt.aborted) {
      try {
        return await ask();
      } catch (error) {
        if (!isLocked(error)) throw error;
        // The condition has not even been asked.
        run.state = { ...run.state, attempts: undefined };
        await this.#wait(run, 'waits for whoever has locked the table');
        this.#stepAside(run);
        await pause(unlockedMs, run.interrupt);
      }
    }
    return undefined;
  }

  /** Reads rows, and notes the columns that the log had for them: while they are read, nobody can change the columns. */
  #read(run: Run, read: (onSnapshot: (snapshot: Visibility) => void) => Promise<Chunk>): Promise<ReadChunk | undefined> {
    const { tracker, schemas } = this.#options;
    return this.#unlocked(run, async () => {
      let schema: string | undefined;
      const chunk = await read((snapshot) => {
        tracker.forgetChanges(snapshot);
        schema = schemas.get(run.table.name);
      });
      return { chunk, schema };
    });
  }

  /**
   * Reads rows that have moved, by an event that has only a part of them, to where the chunks may have gone by. Some of them at
   * once; all of them when there are many, or when this was the last chunk. Returns how many were logged, undefined when it
   * was interrupted before all that had to be were.
   */
  async #readMoved(run: Run, { key, next }: Chunk): Promise<number | undefined> {
    const { tracker } = this.#options;
    const { name } = run.table;
    const range = { where: run.state.where, key };
    let logged = 0;
    let atOnce = movedAtOnce;
    for (let waited = 0; tracker.moved(name).length > 0; waited++) {
      const some = tracker.moved(name).slice(0, atOnce);
      const keys = some.map((moved) => moved.key);
      const read = await this.#read(run, (onSnapshot) => run.reader.readKeys(keys, range, onSnapshot));
      if (!read) return undefined;
      const inserted = await this.#insert(run, read);
      logged += inserted ?? 0;
      const seen = inserted === undefined ? [] : this.#done(read.chunk, some);
      tracker.forgetMoved(name, new Set(seen));
      if (next && tracker.moved(name).length < maxMoved) break;
      // As many as found room.
      if (read.chunk.cut) atOnce = Math.max(1, Math.min(atOnce - 1, read.chunk.rows.length));
      if (seen.length > 0) waited = 0;
      if (seen.length === 0) await this.#waitUntilVisible(run, waited);
    }
    return logged;
  }

  /** Something in the log is not visible yet, or has only just become so. */
  async #waitUntilVisible(run: Run, waited: number): Promise<void> {
    if (waited > 10) await this.#wait(run, 'waits for transactions that are in the log and not visible yet');
    await pause(Math.min(1_000, 10 * 2 ** waited), run.interrupt);
  }

  /** From the table's first row on. */
  #beginAnew(run: Run, why: string): void {
    this.#options.log.warn({ table: run.table.name }, `${why}: the backfill begins anew`);
    run.state = { ...run.state, after: undefined, key: undefined, moved: undefined };
  }

  /** Those of the moved rows that a chunk has as they are, or that are no longer there. */
  #done({ table, rows, cut, snapshot }: Chunk, moved: readonly Moved[]): readonly Moved[] {
    const visible = moved.filter(({ xid }) => snapshot.sees(xid));
    if (!cut || moved.length === 1) return visible;
    const text = (key: Key): string => JSON.stringify(Object.values(key));
    const found = new Set(rows.map((row) => text(parsedKey(this.#writer.rawKeyOf(table, row)))));
    return visible.filter(({ key }) => found.has(text(key)));
  }

  /** Says to whoever looks what is waited for. */
  async #wait(run: Run, note: string): Promise<void> {
    if (run.state.note === note) return;
    this.#options.log.info({ table: run.table.name }, `backfill ${note}`);
    await this.#note(run, note);
  }

  /** It is only shown: that it cannot be kept stops nothing. */
  async #note(run: Run, note: string): Promise<void> {
    run.state = { ...run.state, note };
    await this.#options.record.putCopy(run.state).catch(() => undefined);
  }

  /** Has it not come on for long, while others wait? */
  #isStuck(run: Run): boolean {
    return run.othersWait() && performance.now() - run.movedOnAt > patience * this.#options.timeoutMs;
  }

  /** Lets others go first, where that repeats nothing. */
  #stepAside(run: Run): void {
    if (run.atPlace && this.#isStuck(run)) throw new StepAside(`${run.table.name} has waited for long`);
  }

  /**
   * From here on the changes of the table are tracked. Those logged before, by transactions that a snapshot may still not
   * see, are read back from the log; transactions of before this session are waited for, since nobody knows if they are logged.
   */
  async #prime(run: Run): Promise<void> {
    const { tracker, firstKnownXid } = this.#options;
    const snapshot = await this.#snapshot(run, 'transactions that began before capture did', (now) => now.seesAllBelow(firstKnownXid));
    if (!snapshot) return;
    const { name } = run.table;
    const { seq, after, moved = [] } = run.state;
    const to = this.#options.out.end.seq;
    tracker.track(name);
    tracker.forgetChanges(snapshot);
    const from = Math.min(tracker.oldestUnseenSeq ?? Infinity, after && seq !== undefined ? seq + 1 : Infinity);
    if (from <= to && !(await readBack(this.#options, run.table, { from, to }, snapshot))) {
      this.#beginAnew(run, 'the log does not hold what has happened since the last chunk');
      // What is gone may be of transactions that a chunk would not see.
      await this.#snapshot(run, 'transactions that are in the log and not visible yet', () => (tracker.oldestUnseenSeq ?? Infinity) > to);
    } else tracker.addMoved(name, moved);
    run.seq = to;
  }

  /** The first snapshot that fits; undefined when it was interrupted before. */
  async #snapshot(run: Run, waitsFor: string, fits: (snapshot: Visibility) => boolean): Promise<Visibility | undefined> {
    const { tracker, signal } = this.#options;
    for (let waited = 0; ; waited++) {
      signal.throwIfAborted();
      if (run.interrupt.aborted) return undefined;
      const snapshot = await run.reader.now();
      tracker.forgetTransactions(snapshot);
      if (fits(snapshot)) return snapshot;
      if (waited > 1) await this.#wait(run, `waits for ${waitsFor}`);
      this.#stepAside(run);
      await pause(Math.min(1_000, 20 * 2 ** waited), run.interrupt);
    }
  }

  /** Returns how many rows were logged; undefined when the chunk has to be read again. */
  async #insert(run: Run, { chunk, schema }: ReadChunk): Promise<number | undefined> {
    const inserted = await this.#writer.insert(chunk, schema);
    run.seq = inserted?.seq ?? run.seq;
    return inserted?.logged;
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

  async #withoutKey(table: CapturedTable, state: CopyState): Promise<'ended'> {
    const { record, log } = this.#options;
    const note = 'the table has no primary key, so its earlier rows cannot be copied: it is in the log from here on';
    log.warn({ table: table.name }, note);
    await this.#writer.mark({ phase: 'skipped', table: table.name, note });
    await record.putCopy({ ...state, oid: table.oid, state: 'none', error: note });
    return 'ended';
  }

  async #fail(state: CopyState, error: unknown): Promise<'ended'> {
    const { record, log } = this.#options;
    log.error({ table: state.table, error: messageOf(error) }, 'backfill failed');
    if (state.begun) await this.#writer.mark({ phase: 'failed', table: state.table, rows: state.rows });
    await record.putCopy({ ...state, state: 'failed', note: undefined, error: messageOf(error) });
    return 'ended';
  }
}
