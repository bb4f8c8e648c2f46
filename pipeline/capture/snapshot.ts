import type { Catalog } from '../../schemas/catalog.ts';
import { closePostgres, connectPostgres, escapeLiteral, quoteTable, stableText, type PgClient } from '../clients/postgres.ts';
import type { Logger } from '../runtime/logging.ts';
import { EventEncoder } from '../source/event-encoder.ts';
import { formatIdLsn, nowMicros, type Lsn } from '../source/position.ts';
import type { SourceEvent } from '../source/source.ts';
import { describeTable, lockTable, readRows, selectRows } from '../source/table-reader.ts';
import type { Tuple } from '../source/pgoutput.ts';
import { TypeRegistry } from '../source/types.ts';
import type { CaptureLog } from './capture-log.ts';
import type { LogRecord } from './log-record.ts';
import type { CapturedTable } from './tables.ts';

export interface SnapshotOptions {
  readonly url: string;
  readonly catalog: Catalog;
  readonly subject: string;
  readonly eventLimit: number;
  readonly log: Logger;
  readonly record: LogRecord;
  readonly out: CaptureLog;
  readonly schemas: Map<string, string>;
  readonly signal: AbortSignal;
}

/** Bytes of events that gather before they are handed on. */
const portionBytes = 500_000;

/**
 * Is the name another table's by now? Has the table another file than in the snapshot's eyes? The columns of the catalogue are
 * as the snapshot sees them, the functions tell what is now.
 */
const queryRewritten = `
  SELECT to_regclass($2)::oid IS DISTINCT FROM $1::oid AS other,
         EXISTS (SELECT FROM pg_class c WHERE (c.oid = $1 OR c.oid IN (SELECT relid FROM pg_partition_tree($1)))
                    AND c.relkind = 'r' AND c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid)) AS rewritten`;

/**
 * The first copy: every row of these tables as it was at the slot's consistent point, as `read` events right before the
 * stream's first possible event. Marks open and close it.
 */
export class Snapshot {
  readonly #options: SnapshotOptions;
  readonly #encoder: EventEncoder;
  readonly #lsn: Lsn;
  readonly #types = new TypeRegistry();
  #index = 0;
  #waiting: SourceEvent[] = [];
  #waitingBytes = 0;

  /** @param consistentPoint of the slot; the copy's events stand one before it */
  constructor(consistentPoint: Lsn, options: SnapshotOptions) {
    this.#options = options;
    this.#lsn = consistentPoint - 1n;
    this.#encoder = new EventEncoder(options.eventLimit);
  }

  /** Copies the tables in the exported snapshot, and notes each in the log's record when it is complete. */
  async copy(snapshotName: string, tables: readonly CapturedTable[]): Promise<void> {
    const { url, log, signal } = this.#options;
    const client = await connectPostgres(url, 'headwater snapshot', log);
    // It may be waiting for a lock.
    const cut = (): void => void closePostgres(client);
    signal.addEventListener('abort', cut, { once: true });
    try {
      for (const setting of stableText) await client.query(setting);
      await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
      await client.query(`SET TRANSACTION SNAPSHOT ${escapeLiteral(snapshotName)}`);
      await this.#mark({ phase: 'begin', tables: tables.map((table) => table.name) });
      let rows = 0;
      for (const table of tables) {
        signal.throwIfAborted();
        rows += await this.#table(client, table);
      }
      await this.#mark({ phase: 'end', rows });
      await this.#handOn();
      log.info(`first copy complete: ${tables.length} tables, ${rows} rows`);
    } finally {
      signal.removeEventListener('abort', cut);
      await closePostgres(client);
    }
  }

  async #table(client: PgClient, table: CapturedTable): Promise<number> {
    const { catalog, subject, schemas, record, out, log, signal } = this.#options;
    const begun = performance.now();
    await client.query(lockTable(table));
    const { rows: found } = await client.query<{ other: boolean; rewritten: boolean }>(queryRewritten, [
      table.oid,
      quoteTable(table.schema, table.table),
    ]);
    if (found[0]!.other) {
      log.warn(
        { table: table.name },
        'it is another table now, whose changes are not captured yet: it is copied when capture starts again',
      );
      return 0;
    }
    if (found[0]!.rewritten) {
      log.info(
        { table: table.name },
        'the table has been rewritten since the snapshot, to which it now looks empty: it is copied by backfill',
      );
      return 0;
    }
    const readable = await describeTable(client, table, this.#types, catalog, subject);
    const { relation } = readable;
    this.#emit(relation.schemaSubject, undefined, (index) => this.#encoder.schema(index, relation, 0));
    schemas.set(relation.name, relation.columnsJson);
    let rows = 0;
    const each = (row: Tuple): void => {
      rows++;
      this.#emit(relation.subjects.read, relation.name, (index) =>
        this.#encoder.change(index, { relation, op: 'read', before: undefined, oldKind: 0, after: row }, 0),
      );
    };
    await readRows(client, selectRows(readable, {}), each, async () => {
      signal.throwIfAborted();
      if (this.#waitingBytes >= portionBytes) await this.#handOn();
    });
    await this.#handOn();
    await out.flushed();
    await record.putCopy({ table: table.name, oid: table.oid, state: 'done', rows });
    const seconds = (performance.now() - begun) / 1_000;
    // A line each for a thousand small tables would hide what matters.
    log[seconds > 1 ? 'info' : 'debug']({ table: table.name, rows, seconds: Number(seconds.toFixed(2)) }, 'table copied');
    return rows;
  }

  async #mark(data: object): Promise<void> {
    this.#emit(`${this.#options.subject}._mark.snapshot`, undefined, (index) => this.#encoder.mark(index, 'snapshot', data));
    await this.#handOn();
  }

  #emit(subject: string, table: string | undefined, write: (index: number) => void): void {
    const index = this.#index++;
    // One time for all that was read at once.
    if (this.#waiting.length === 0) this.#encoder.begin(formatIdLsn(this.#lsn), undefined, nowMicros());
    write(index);
    const data = this.#encoder.end(false);
    this.#waitingBytes += data.length;
    this.#waiting.push({ subject, data, lsn: this.#lsn, index, xid: undefined, last: true, table });
  }

  async #handOn(): Promise<void> {
    const events = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    if (events.length > 0) await this.#options.out.push(events);
  }
}
