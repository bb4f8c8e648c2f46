import type { Catalog } from '../../../schemas/catalog.ts';
import { quoteTable, type PgClient } from '../../clients/postgres.ts';
import { usage } from '../../runtime/errors.ts';
import type { Logger } from '../../runtime/logging.ts';
import type { Lsn } from '../../source/position.ts';
import type { Tuple } from '../../source/pgoutput.ts';
import {
  describeTable,
  hasKey,
  keyOrder,
  keyTexts,
  lockTable,
  readRows,
  selectKey,
  selectRows,
  type ReadableTable,
  type RowRange,
} from '../../source/table-reader.ts';
import { TypeRegistry } from '../../source/types.ts';
import { keyTextsOf } from '../../source/key-text.ts';
import { checkCondition } from './condition.ts';
import { endAfter, endWaiting, estimateTable } from './estimate.ts';
import { ReaderConnection } from './reader-connection.ts';
import { copyOf, keyAt } from './tuples.ts';
import type { Key } from '../row-key.ts';
import type { CapturedTable } from '../tables.ts';
import type { Visibility } from '../visibility.ts';

/** Bytes of rows that a chunk is to have, once the size of the rows is known. */
const chunkBytes = 8 * 1024 ** 2;
/** A chunk whose rows turn out to be larger than those before ends here. */
const cutBytes = 2 * chunkBytes;
/** Rows of the first chunk, before it is known. */
const firstChunkRows = 100;
/** A chunk that becomes too old has as many all the same: these are logged in one go, and fewer would hardly be read sooner. */
const leastRows = 500;
/** Most keys that are gone through at once for the rows that meet a condition. */
const maxWindow = 1_000_000;
const queryCanceled = '57014';

export interface ChunkReaderOptions {
  readonly url: string;
  readonly catalog: Catalog;
  readonly subject: string;
  readonly chunkRows: number;
  /** How long a query with a condition may take, in ms. */
  readonly timeoutMs: number;
  readonly log: Logger;
}

/** From where the next chunk is read, and of what. */
export interface ChunkRange {
  readonly after?: readonly string[] | undefined;
  /** The order of the key in which `after` is a place; undefined when it is not known. */
  readonly key?: string | undefined;
  readonly where?: string | undefined;
  readonly rate?: number | undefined;
}

/** Rows of a table, read in one snapshot. */
export interface Chunk {
  /** The table as it was then. */
  readonly table: ReadableTable;
  readonly rows: readonly Tuple[];
  readonly bytes: number;
  /** It begins with the table's first row. */
  readonly first: boolean;
  /** There were too many bytes: it has not all rows that were asked for, but one at least. */
  readonly cut: boolean;
  readonly snapshot: Visibility;
  /** WAL position taken after the reading: everything the snapshot sees stands before it. */
  readonly position: Lsn;
  /** Where the next one begins; undefined when the table is read to its end. */
  readonly next: readonly string[] | undefined;
  /** The order of the key in which that is a place. */
  readonly key: string;
}

/** Reads chunks of one table, each in a repeatable-read transaction of its own, on a connection of its own. */
export class ChunkReader {
  readonly #options: ChunkReaderOptions;
  readonly #table: CapturedTable;
  readonly #types = new TypeRegistry();
  readonly #connection: ReaderConnection;
  /** So many rows have about 8 MB. */
  #fitting = firstChunkRows;
  /** Most rows of the next chunk, however small they are. */
  #most: number;
  /** Keys that are gone through for one chunk; undefined as long as the server finds the rows of a condition quickly enough. */
  #window: number | undefined;

  constructor(options: ChunkReaderOptions, table: CapturedTable) {
    this.#options = options;
    this.#table = table;
    this.#connection = new ReaderConnection(options.url, options.log);
    this.#most = options.chunkRows;
  }

  /** A snapshot of now. */
  now(): Promise<Visibility> {
    return this.#connection.snapshot();
  }

  /** Estimated rows of the table that meet the condition. */
  async estimate(where: string | undefined): Promise<number> {
    const client = await this.#connection.client();
    const table = await this.#describe(client);
    if (where !== undefined) return checkCondition(client, table, where, this.#options.timeoutMs);
    return estimateTable(client, table);
  }

  /**
   * Reads the next chunk: of so many rows that they have about 8 MB. Throws what the server answers (`isLocked` tells that the
   * table was locked all the while), or `slow_condition` (usage).
   * @param onSnapshot called with the snapshot before it is read
   */
  async read(range: ChunkRange, onSnapshot: (snapshot: Visibility) => void): Promise<Chunk> {
    for (;;) {
      const begun = performance.now();
      try {
        const chunk = await this.#chunk(range, onSnapshot);
        this.#widen(performance.now() - begun);
        return chunk;
      } catch (error) {
        const late = performance.now() - begun >= this.#options.timeoutMs * 0.9;
        if (range.where === undefined || (error as { code?: unknown }).code !== queryCanceled || !late) throw error;
        this.#narrow(range.where);
      }
    }
  }

  async #chunk(range: ChunkRange, onSnapshot: (snapshot: Visibility) => void): Promise<Chunk> {
    return this.#inSnapshot(onSnapshot, async (client, table) => {
      const key = keyOrder(table);
      this.#requireKey(table);
      const after = range.key === undefined || range.key === key ? range.after : undefined;
      if (range.where !== undefined) await client.query(endAfter(this.#options.timeoutMs));
      const limit = Math.max(1, Math.min(this.#limit, range.rate ?? Infinity));
      const upTo = this.#window === undefined ? undefined : await keyAt(client, selectKey(table, after, this.#window));
      const { rows, bytes, cut } = await this.#rows(client, table, { after, upTo, limit, where: range.where });
      if (rows.length > 0) this.#fitting = Math.max(1, Math.floor((chunkBytes * rows.length) / Math.max(1, bytes)));
      const last = rows.at(-1);
      const next = last && (cut || rows.length === limit) ? keyTexts(table, last) : upTo;
      // The same rows would come again and again.
      if (next && after && next.every((text, i) => text === after[i]))
        throw usage('no_progress', `the rows of ${this.#table.name} behind ${JSON.stringify(after)} begin with that key again`);
      return { rows, bytes, first: after === undefined, cut, next, key };
    });
  }

  /**
   * Reads single rows, those of the keys that are there and meet the condition: few of them, since they may be large.
   * @param range of the chunk before
   * @throws when the table has got another key
   */
  async readKeys(keys: readonly Key[], range: ChunkRange, onSnapshot: (snapshot: Visibility) => void): Promise<Chunk> {
    return this.#inSnapshot(onSnapshot, async (client, table) => {
      const { where: condition, key } = range;
      this.#requireKey(table);
      if (keyOrder(table) !== key) throw new Error(`${this.#table.name} has got another primary key`);
      const among = keys.map((one) => `(${hasKey(table, keyTextsOf(table, one))})`).join(' OR ');
      const where = condition === undefined ? among : `(${condition}\n) AND (${among})`;
      const { rows, bytes, cut } = await this.#rows(client, table, { where });
      return { rows, bytes, first: false, cut, next: undefined, key };
    });
  }

  /** A snapshot of the table that no change of its definition can be newer than. */
  async #inSnapshot(
    onSnapshot: (snapshot: Visibility) => void,
    read: (client: PgClient, table: ReadableTable) => Promise<Omit<Chunk, 'table' | 'snapshot' | 'position'>>,
  ): Promise<Chunk> {
    const client = await this.#connection.client();
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    try {
      await client.query(endWaiting);
      await client.query(lockTable(this.#table));
      const snapshot = await this.#connection.snapshot();
      await this.#requireSame(client);
      onSnapshot(snapshot);
      const table = await this.#describe(client);
      const found = await read(client, table);
      // Nothing is to be kept, not even a setting that a condition has made.
      if (this.#connection.is(client)) await client.query('ROLLBACK');
      return { table, snapshot, ...found, position: await this.#connection.position() };
    } catch (error) {
      await this.#connection.rollback();
      throw error;
    }
  }

  /** It can have been taken away, or made anew, since the copy began. */
  #requireKey({ relation, comparisons }: ReadableTable): void {
    if (comparisons.length > 0 && relation.key.length === comparisons.length) return;
    throw usage(
      'no_primary_key',
      `${this.#table.name} has no primary key any more by which its rows can be read in chunks (one with a generated column is none)`,
      'give it one, then ask for the copy again',
    );
  }

  /** The table is locked, and read, by its name: that can be another one's by now, whose changes nobody captures. */
  async #requireSame(client: PgClient): Promise<void> {
    const { schema, table, name, oid } = this.#table;
    const { rows } = await client.query<{ oid: number }>('SELECT to_regclass($1)::oid::int8::float8 AS oid', [quoteTable(schema, table)]);
    if (rows[0]?.oid === oid) return;
    throw usage(
      'another_table',
      `${name} is another table now than the one that was to be copied: its changes are not captured yet`,
      'restart capture: the new table is copied then',
    );
  }

  /** Rows are held in memory until they are logged: when there are too many bytes, the connection is cut, and with it what is to come. */
  async #rows(client: PgClient, table: ReadableTable, range: RowRange): Promise<{ rows: readonly Tuple[]; bytes: number; cut: boolean }> {
    const rows: Tuple[] = [];
    let bytes = 0;
    let cut = false;
    const enough = new Error('enough');
    try {
      await readRows(
        client,
        selectRows(table, range),
        (row) => {
          // What came in one piece with the row that was one too many.
          if (bytes >= cutBytes) return;
          const copy = copyOf(row);
          bytes += copy.source.length;
          rows.push(copy);
        },
        () => (bytes >= cutBytes ? Promise.reject(enough) : Promise.resolve()),
      );
    } catch (error) {
      if (error !== enough) throw error;
      cut = true;
      await this.#connection.disconnect(0);
    }
    return { rows, bytes, cut };
  }

  /** The chunk was too old before it, or all of it, was logged: the next ones are to take less time. */
  readLess(where: string | undefined): void {
    this.#most = Math.max(Math.min(this.#limit, leastRows), Math.floor(this.#limit / 2));
    if (where !== undefined) this.#window = this.#lessKeys();
  }

  /** All of the chunk was logged: the next ones may have more rows than it. */
  readMore(): void {
    this.#most = Math.min(this.#options.chunkRows, this.#most * 2);
  }

  /** Rows of the next chunk. */
  get #limit(): number {
    return Math.min(this.#most, this.#fitting);
  }

  #lessKeys(): number {
    return this.#window === undefined ? this.#options.chunkRows : Math.max(1, Math.floor(this.#window / 4));
  }

  /** The condition takes too long over the whole table: from now on over a part of its keys at a time. */
  #narrow(where: string): void {
    if (this.#window === 1)
      throw usage(
        'slow_condition',
        `the condition takes longer than ${this.#options.timeoutMs / 1_000} s on a single row: ${where.slice(0, 200)}`,
        'give one that needs less, or a longer HEADWATER_BACKFILL_TIMEOUT to capture',
      );
    this.#window = this.#lessKeys();
    this.#options.log.info(
      { table: this.#table.name, keys: this.#window },
      'the condition takes long: it is asked of so many rows at a time',
    );
  }

  #widen(ms: number): void {
    if (this.#window !== undefined && ms < this.#options.timeoutMs / 4) this.#window = Math.min(maxWindow, this.#window * 2);
  }

  async #describe(client: PgClient): Promise<ReadableTable> {
    const { catalog, subject } = this.#options;
    return describeTable(client, this.#table, this.#types, catalog, subject);
  }

  /** Gives up the connection, with whatever it waits for; the next question makes another one. */
  disconnect(): Promise<void> {
    return this.#connection.disconnect();
  }

  /** The same for good. */
  close(): Promise<void> {
    return this.#connection.close();
  }
}
