import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Seq } from '../log/event-log.ts';
import { EventEncoder } from '../source/event-encoder.ts';
import type { Tuple } from '../source/pgoutput.ts';
import type { Relation } from '../source/relation.ts';
import type { ReadableTable } from '../source/table-reader.ts';
import type { Chunk } from './backfill-reader.ts';
import type { CaptureLog } from './capture-log.ts';
import { keyString, type ChangeTracker } from './change-tracker.ts';
import { mergedRow } from './merged-row.ts';
import type { Visibility } from './visibility.ts';

/** Rows that are logged in one go: between two of these the stream has its turn. */
const portionRows = 500;
/** The same in bytes. */
const portionBytes = 500_000;

export interface ChunkWriterOptions {
  readonly subject: string;
  readonly out: CaptureLog;
  readonly tracker: ChangeTracker;
  readonly schemas: Map<string, string>;
  /** Writes a tick, so that the log passes the chunk's position without waiting for the next one. */
  readonly tick: () => Promise<void>;
}

export interface Inserted {
  /** How many rows were logged. */
  readonly logged: number;
  /** The log's end before the last of them: of all events up to there the tracker has been told. Undefined without rows. */
  readonly seq: Seq | undefined;
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

  /** Logs a chunk as soon as the log has passed its position, in portions between which the stream goes on. */
  async insert(chunk: Chunk): Promise<Inserted> {
    const { out, tick } = this.#options;
    let inserted: Inserted = { logged: 0, seq: undefined };
    for (let from = 0; from < chunk.rows.length;) {
      const portion = portionFrom(chunk.rows, from);
      const written = out.between(() => this.#write(chunk, portion), from === 0 ? (lsn) => lsn >= chunk.position : undefined);
      // Should the tick fail, nobody waits for the rows any more.
      written.catch(() => undefined);
      if (from === 0) await tick();
      const { logged, seq } = await written;
      inserted = { logged: inserted.logged + logged, seq };
      from += portion.length;
      // What the stream has ready goes first.
      await nextTurn();
    }
    return inserted;
  }

  async #write({ table, snapshot }: Chunk, portion: readonly Tuple[]): Promise<Inserted> {
    const { out } = this.#options;
    const { relation } = table;
    // All that is logged up to here the tracker has been told.
    const { seq } = out.end;
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
    return { logged: rows.length, seq };
  }

  /** The rows of which the log has nothing newer; those of which it has only a newer part, with that. */
  #due(table: ReadableTable, snapshot: Visibility, portion: readonly Tuple[]): readonly DueRow[] {
    const { tracker } = this.#options;
    const { name } = table.relation;
    if (tracker.isQuiet(name)) return portion.map((row) => ({ row, parts: undefined }));
    return portion.flatMap((row): readonly DueRow[] => {
      const key = this.#key(table, row);
      if (!tracker.outdated(name, key, snapshot)) return [{ row, parts: undefined }];
      const parts = tracker.parts(name, key, snapshot);
      return parts ? [{ row, parts }] : [];
    });
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

  /** The columns in front of the first rows that have them, if the log does not know them yet. */
  async #schema(relation: Relation): Promise<void> {
    const { schemas, out } = this.#options;
    if (schemas.get(relation.name) === relation.columnsJson) return;
    await out.writeBetween([relation.schemaSubject], (encoder, index) => encoder.schema(index, relation, 0));
    schemas.set(relation.name, relation.columnsJson);
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
