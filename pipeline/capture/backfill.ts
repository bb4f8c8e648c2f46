import type { Catalog } from '../../schemas/catalog.ts';
import { closePostgres, connectPostgres, stableText, type PgClient } from '../clients/postgres.ts';
import type { EventLog, Seq } from '../log/event-log.ts';
import { backoffMs, pause } from '../runtime/backoff.ts';
import { messageOf } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logging.ts';
import { EventEncoder } from '../source/event-encoder.ts';
import { parseLsn, type Lsn } from '../source/position.ts';
import { columnKind, Tuple } from '../source/pgoutput.ts';
import type { Relation } from '../source/relation.ts';
import { describeTable, keyTexts, lockTable, readRows, selectRows, type ReadableTable } from '../source/table-reader.ts';
import { TypeRegistry } from '../source/types.ts';
import type { CaptureLog } from './capture-log.ts';
import { keyString, type ChangeTracker } from './change-tracker.ts';
import type { CopyState, LogRecord } from './log-record.ts';
import type { CapturedTable } from './tables.ts';
import { Visibility } from './visibility.ts';

/** Bytes of rows that a chunk is to have at most, once the size of the rows is known. */
const chunkBytes = 8 * 1024 ** 2;
/** Rows of the first chunk, before it is known. */
const firstChunkRows = 100;

export interface BackfillOptions {
  readonly url: string;
  readonly catalog: Catalog;
  readonly subject: string;
  readonly chunkRows: number;
  /** Tables of more bytes than this are marked as large: the cache leaves them out. */
  readonly largeAbove: number;
  readonly eventLimit: number;
  readonly log: Logger;
  readonly eventLog: EventLog;
  readonly record: LogRecord;
  readonly out: CaptureLog;
  readonly tracker: ChangeTracker;
  readonly schemas: Map<string, string>;
  /** Transactions with a lower number began before the session did, and may have been logged before it. */
  readonly firstKnownXid: bigint;
  /** Writes a tick, so that the log passes the chunk's position without waiting for the next one. */
  readonly tick: () => Promise<void>;
  readonly signal: AbortSignal;
}

/** Rows of a table, read in one snapshot. */
interface Chunk {
  /** The table as it was then. */
  readonly table: ReadableTable;
  readonly rows: readonly Tuple[];
  readonly snapshot: Visibility;
  /** WAL position taken after the reading: everything the snapshot sees stands before it. */
  readonly position: Lsn;
  /** Key of the last row; undefined when the table is read to its end. */
  readonly next: readonly string[] | undefined;
}

/**
 * Copies a table's rows into the log while changes stream, a chunk at a time in the order of the primary key.
 *
 * A chunk is read in a repeatable-read transaction whose snapshot is kept, and logged once the log has passed the position
 * taken after it. A row is left out if a logged transaction that the snapshot does not see has changed it: then the log
 * already has something newer. Progress is kept for each chunk, so a crash repeats one at most.
 */
export class Backfill {
  readonly #options: BackfillOptions;
  readonly #types = new TypeRegistry();

  constructor(options: BackfillOptions) {
    this.#options = options;
  }

  /** Copies one table from where its state says. Failures of the database are tried again; those of the request end it. */
  async run(table: CapturedTable, state: CopyState): Promise<void> {
    const { tracker, log, signal } = this.#options;
    if (!table.hasKey) return this.#withoutKey(table, state);
    log.info({ table: table.name, from: state.after ?? 'the beginning' }, 'backfill begins');
    let current: CopyState = { ...state, oid: table.oid, total: state.total ?? Math.max(0, table.estimate) };
    for (let attempt = 0; !signal.aborted; attempt++) {
      let client: PgClient | undefined;
      // It may be waiting for a lock.
      const cut = (): void => void (client && closePostgres(client));
      signal.addEventListener('abort', cut, { once: true });
      try {
        client = await connectPostgres(this.#options.url, 'headwater backfill', log);
        for (const setting of stableText) await client.query(setting);
        await this.#prime(client, table.name);
        if (current.state === 'pending') await this.#begin(current, table.size > this.#options.largeAbove);
        current = await this.#chunks(client, table, { ...current, state: 'running' }, (reached) => (current = reached));
        return;
      } catch (error) {
        if (signal.aborted) return;
        if (isRequestFault(error)) return await this.#fail(current, error);
        log.warn({ table: table.name, error: messageOf(error) }, 'backfill interrupted, going on from the last chunk');
        await pause(backoffMs(attempt), signal);
      } finally {
        signal.removeEventListener('abort', cut);
        tracker.untrack(table.name);
        if (client) await closePostgres(client);
      }
    }
  }

  async #chunks(client: PgClient, table: CapturedTable, begun: CopyState, reached: (state: CopyState) => void): Promise<CopyState> {
    const { record, log, signal } = this.#options;
    let state = begun;
    let limit = Math.min(this.#options.chunkRows, firstChunkRows);
    for (;;) {
      signal.throwIfAborted();
      const chunk = await this.#read(client, table, state, limit);
      limit = this.#nextLimit(chunk.rows);
      const logged = await this.#insert(chunk);
      state = { ...state, rows: state.rows + logged, state: chunk.next ? 'running' : 'done', after: chunk.next };
      if (!chunk.next) await this.#mark({ phase: 'end', table: state.table, rows: state.rows });
      await record.putCopy(state);
      reached(state);
      if (!chunk.next) {
        log.info({ table: state.table, rows: state.rows }, 'backfill complete');
        return state;
      }
      log.debug({ table: state.table, rows: state.rows, of: state.total }, 'backfill');
    }
  }

  /**
   * From here on the changes of the table are tracked. Those logged before, by transactions that a snapshot may still not
   * see, are read back from the log; transactions of before this session are waited for, since nobody knows if they are logged.
   */
  async #prime(client: PgClient, table: string): Promise<void> {
    const { tracker, firstKnownXid, log, signal } = this.#options;
    for (let waited = 0; ; waited++) {
      signal.throwIfAborted();
      const { rows } = await client.query<{ snapshot: string }>('SELECT pg_current_snapshot()::text AS snapshot');
      const snapshot = new Visibility(rows[0]!.snapshot);
      tracker.forgetTransactions(snapshot);
      if (snapshot.seesAllBelow(firstKnownXid)) break;
      if (waited % 60 === 1) log.info({ table }, 'backfill waits for transactions that began before capture did');
      await pause(Math.min(1_000, 20 * 2 ** waited), signal);
    }
    tracker.track(table);
    const from = tracker.oldestUnseenSeq;
    if (from !== undefined) await this.#readBack(table, from, this.#options.out.end.seq);
  }

  async #readBack(table: string, from: Seq, to: Seq): Promise<void> {
    for await (const events of this.#options.eventLog.read(from, { signal: this.#options.signal })) {
      for (const event of events) {
        const { table: name, tx } = JSON.parse(Buffer.from(event.data).toString('utf8')) as { table?: string; tx?: { xid: number } };
        if (name === table && event.seq <= to) this.#options.tracker.note({ data: event.data, xid: tx?.xid, table });
      }
      if (events.at(-1)!.seq >= to) return;
    }
  }

  /** Rows are held in memory until they are logged, so large ones are read few at a time. */
  #nextLimit(rows: readonly Tuple[]): number {
    const bytes = rows.reduce((sum, row) => sum + row.source.length, 0);
    const average = bytes / Math.max(1, rows.length);
    return Math.max(1, Math.min(this.#options.chunkRows, Math.floor(chunkBytes / Math.max(1, average))));
  }

  async #read(client: PgClient, captured: CapturedTable, state: CopyState, limit: number): Promise<Chunk> {
    const { tracker, catalog, subject } = this.#options;
    const rows: Tuple[] = [];
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    try {
      await client.query(lockTable(captured));
      const taken = await client.query<{ snapshot: string }>('SELECT pg_current_snapshot()::text AS snapshot');
      const snapshot = new Visibility(taken.rows[0]!.snapshot);
      const table = await describeTable(client, captured, this.#types, catalog, subject);
      await readRows(client, selectRows(table, { after: state.after, limit, where: state.where }), (row) => rows.push(copyOf(row)));
      const after = await client.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn');
      await client.query('COMMIT');
      tracker.forgetChanges(snapshot);
      const last = rows.at(-1);
      return {
        table,
        rows,
        snapshot,
        position: parseLsn(after.rows[0]!.lsn),
        next: last && rows.length === limit ? keyTexts(table, last) : undefined,
      };
    } catch (error) {
      await client.query('ROLLBACK').catch(() => undefined);
      throw error;
    }
  }

  /** Logs a chunk as soon as the log has passed its position; returns how many rows were logged. */
  async #insert(chunk: Chunk): Promise<number> {
    const { out, tracker, tick } = this.#options;
    const { relation } = chunk.table;
    const logged = out.between(
      async () => {
        await this.#schema(relation);
        const rows = chunk.rows.filter((row) => !tracker.outdated(relation.name, this.#key(chunk.table, row), chunk.snapshot));
        await out.writeBetween(
          rows.map(() => relation.subjects.read),
          (encoder, index, n) => encoder.change(index, { relation, op: 'read', before: undefined, oldKind: 0, after: rows[n]! }, 0),
        );
        return rows.length;
      },
      (lsn) => lsn >= chunk.position,
    );
    // Should the tick fail, nobody waits for the rows any more.
    logged.catch(() => undefined);
    await tick();
    return logged;
  }

  /** The key as the tracker spells it: by way of the event, so that both have one spelling. */
  #key({ relation }: ReadableTable, row: Tuple): string {
    const encoder = this.#keyEncoder;
    encoder.begin('0', undefined, '');
    encoder.change(0, { relation, op: 'read', before: undefined, oldKind: 0, after: row }, 0);
    const { key } = JSON.parse(encoder.end(false).toString('utf8')) as { key: Record<string, unknown> };
    return keyString(key);
  }
  readonly #keyEncoder = new EventEncoder(Number.MAX_SAFE_INTEGER);

  async #begin(state: CopyState, large: boolean): Promise<void> {
    const condition = state.where ? { where: state.where } : {};
    await this.#mark({ phase: 'begin', table: state.table, ...condition, ...(large ? { large } : {}) });
  }

  /** The columns in front of the first rows that have them, if the log does not know them yet. */
  async #schema(relation: Relation): Promise<void> {
    const { schemas, out } = this.#options;
    if (schemas.get(relation.name) === relation.columnsJson) return;
    await out.writeBetween([relation.schemaSubject], (encoder, index) => encoder.schema(index, relation, 0));
    schemas.set(relation.name, relation.columnsJson);
  }

  async #withoutKey(table: CapturedTable, state: CopyState): Promise<void> {
    const { record, log } = this.#options;
    const note = 'the table has no primary key, so its earlier rows cannot be copied: it is in the log from here on';
    log.warn({ table: table.name }, note);
    await this.#mark({ phase: 'skipped', table: table.name, note });
    await record.putCopy({ ...state, oid: table.oid, state: 'none', error: note });
  }

  async #fail(state: CopyState, error: unknown): Promise<void> {
    const { record, log } = this.#options;
    log.error({ table: state.table, error: messageOf(error) }, 'backfill failed');
    await record.putCopy({ ...state, state: 'failed', error: messageOf(error) });
  }

  #mark(data: object): Promise<void> {
    const { out, subject } = this.#options;
    return out.between(() => out.writeBetween([`${subject}._mark.backfill`], (encoder, index) => encoder.mark(index, 'backfill', data)));
  }
}

/** A tuple of its own, since the reader's is overwritten by the next row. */
function copyOf(row: Tuple): Tuple {
  const copy = new Tuple();
  copy.source = Buffer.from(row.source.subarray(row.starts[0] ?? 0, row.ends[row.count - 1]));
  copy.count = row.count;
  const base = row.starts[0] ?? 0;
  for (let i = 0; i < row.count; i++) {
    copy.kinds[i] = row.kinds[i] ?? columnKind.null;
    copy.starts[i] = row.starts[i]! - base;
    copy.ends[i] = row.ends[i]! - base;
  }
  return copy;
}

/** SQL states that another attempt will not change: a syntax error, an unknown column or table, a missing privilege. */
function isRequestFault(error: unknown): boolean {
  const code = (error as { code?: unknown }).code;
  return typeof code === 'string' && /^(42|22|no_such_table)/.test(code);
}
