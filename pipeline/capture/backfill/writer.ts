import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Seq } from '../../log/event-log.ts';
import { EventEncoder } from '../../source/event-encoder.ts';
import type { Tuple } from '../../source/pgoutput.ts';
import type { Lsn } from '../../source/position.ts';
import type { Relation } from '../../source/relation.ts';
import type { ReadableTable } from '../../source/table-reader.ts';
import type { Chunk } from './reader.ts';
import type { CaptureLog } from '../capture-log.ts';
import type { ChangeTracker } from './change-tracker.ts';
import { mergedRow } from './merged-row.ts';
import { keyString, rawKeyOf } from './row-change.ts';
import type { Visibility } from '../visibility.ts';

/** Rows that are logged in one go: between two of these the stream has its turn. */
const portionRows = 500;
/** The same in bytes. */
const portionBytes = 500_000;

export interface ChunkWriterOptions {
  readonly subject: string;
  readonly out: CaptureLog;
  readonly tracker: ChangeTracker;
  /** The columns of each table as the stream last read them, in the log or on their way to it. */
  readonly schemas: Map<string, string>;
  /** Writes a tick, so that the log passes the chunk's position without waiting for the next one. */
  readonly tick: () => Promise<void>;
}

export interface Inserted {
  /** How many rows were logged. */
  readonly logged: number;
  /** The log's end before the last of them: of all events up to there the tracker has been told. */
  readonly seq: Seq | undefined;
  /** How many of the chunk's rows, from its first on, this covers: of them the log has what is newest. */
  readonly rows: number;
}

/** A row to log, and newer events that have a part of it. */
interface DueRow {
  readonly row: Tuple;
  readonly parts: readonly Uint8Array[] | undefined;
}

/** Writes chunks of rows into the log, between transactions, without those of which the log has something newer. */
export class ChunkWriter {
  readonly #options: ChunkWriterOptions;

  constructor(options: ChunkWriterOptions) {
    this.#options = options;
  }

  /**
   * Logs a chunk as soon as the log has passed its position, in portions between which the stream goes on. One without rows waits
   * for its position as well: behind it the tracker knows of every change that the chunk's snapshot sees.
   * @param schema the columns of the table that the stream had decoded when the chunk was read
   * @returns what was logged: the first portions only when so much has been changed meanwhile that the other rows have to be read
   * again; undefined when that goes for all of them
   * @throws when the table has been redefined since: then it has to be read again as well
   */
  async insert(chunk: Chunk, schema: string | undefined): Promise<Inserted | undefined> {
    const { out } = this.#options;
    const { name, columnsJson } = chunk.table.relation;
    let inserted: Inserted = { logged: 0, seq: undefined, rows: 0 };
    let from = 0;
    do {
      const portion = portionFrom(chunk.rows, from);
      const known = from === 0 ? schema : columnsJson;
      const write = (): Promise<Inserted | 'redefined' | 'unknown'> => this.#write(chunk, portion, known);
      const written = await (from === 0 ? this.#behind(chunk.position, write) : out.between(write));
      if (written === 'unknown') return from === 0 ? undefined : inserted;
      if (written === 'redefined' || !written) throw new Error(`the columns of ${name} have changed since the rows were read`);
      from += portion.length;
      inserted = { logged: inserted.logged + written.logged, seq: written.seq, rows: from };
      // What the stream has ready goes first.
      await nextTurn();
    } while (from < chunk.rows.length);
    return inserted;
  }

  /** Does some work once the log has passed a position; never any more once this has failed. */
  async #behind<T>(position: Lsn, work: () => Promise<T>): Promise<T | undefined> {
    const { out, tick } = this.#options;
    let begun = false;
    let abandoned = false;
    const done = out.between(
      async () => {
        if (abandoned) return undefined;
        begun = true;
        return work();
      },
      (lsn) => lsn >= position,
    );
    done.catch(() => undefined);
    try {
      await tick();
    } catch (error) {
      abandoned = true;
      // The caller forgets what rows were changed meanwhile, which the work needs.
      if (begun) await done.catch(() => undefined);
      throw error;
    }
    return done;
  }

  /**
   * `redefined` when the stream has decoded other columns of the table than it had, or than the rows have; `unknown` when it is not
   * known any more which rows have been changed since.
   */
  async #write(
    { table, snapshot }: Chunk,
    portion: readonly Tuple[],
    known: string | undefined,
  ): Promise<Inserted | 'redefined' | 'unknown'> {
    const { out, schemas, tracker } = this.#options;
    const { relation } = table;
    const schema = schemas.get(relation.name);
    if (schema !== relation.columnsJson && schema !== known) return 'redefined';
    // All that is logged up to here the tracker has been told.
    const { seq } = out.end;
    if (portion.length === 0) return { logged: 0, seq, rows: 0 };
    if (!tracker.knows(relation.name, snapshot)) return 'unknown';
    await this.#schema(relation);
    const rows = this.#due(table, snapshot, portion);
    await out.writeBetween(
      rows.map(() => relation.subjects.read),
      (encoder, index, n) => {
        const { row: after, parts } = rows[n]!;
        encoder.change(index, { relation, op: 'read', before: undefined, oldKind: 0, after }, 0);
        if (parts) encoder.replace((written, limit) => mergedRow(written, parts, limit));
      },
    );
    return { logged: rows.length, seq, rows: portion.length };
  }

  /** The rows of which the log has nothing newer; those of which it has only a newer part, with that. */
  #due(table: ReadableTable, snapshot: Visibility, portion: readonly Tuple[]): readonly DueRow[] {
    const { tracker } = this.#options;
    const { name } = table.relation;
    if (tracker.isQuiet(name)) return portion.map((row) => ({ row, parts: undefined }));
    return portion.flatMap((row): readonly DueRow[] => {
      const key = keyString(this.rawKeyOf(table, row));
      if (!tracker.outdated(name, key, snapshot)) return [{ row, parts: undefined }];
      const parts = tracker.parts(name, key, snapshot);
      return parts ? [{ row, parts }] : [];
    });
  }

  /** The raw text of a row's key: by way of the event, so that this and the tracker's have one spelling. */
  rawKeyOf({ relation }: ReadableTable, row: Tuple): string {
    const encoder = this.#keyEncoder;
    encoder.begin('0', undefined, '');
    encoder.change(0, { relation, op: 'read', before: undefined, oldKind: 0, after: row }, 0);
    return rawKeyOf(encoder.end(false))!;
  }
  readonly #keyEncoder = new EventEncoder(Number.MAX_SAFE_INTEGER);

  /**
   * The columns in front of the first rows that have them, if the log does not have them yet. What the stream has read of the
   * table may still be on its way, its schema event too: then there are two of them, which say the same.
   */
  async #schema(relation: Relation): Promise<void> {
    const { schemas, out, tracker } = this.#options;
    const { name, columnsJson } = relation;
    if (tracker.columns(name) === columnsJson) return;
    const known = schemas.get(name);
    await out.writeBetween([relation.schemaSubject], (encoder, index) => encoder.schema(index, relation, 0));
    tracker.noteColumns(name, columnsJson);
    // Unless the stream has come to others meanwhile.
    if (schemas.get(name) === known) schemas.set(name, columnsJson);
  }

  /** Writes a `backfill` mark between two transactions. */
  mark(data: object): Promise<void> {
    const { out, subject } = this.#options;
    return out.between(() => out.writeBetween([`${subject}._mark.backfill`], (encoder, index) => encoder.mark(index, 'backfill', data)));
  }
}

function portionFrom(rows: readonly Tuple[], from: number): readonly Tuple[] {
  let to = from;
  for (let bytes = 0; to < rows.length && to - from < portionRows && bytes < portionBytes; to++) bytes += rows[to]!.source.length;
  return rows.slice(from, to);
}
