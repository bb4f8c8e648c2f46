import { keyTexts } from '../../source/table-reader.ts';
import type { Visibility } from '../visibility.ts';
import type { Chunk } from './reader.ts';
import type { BackfillOptions, Run } from './run.ts';
import { ChunkWriter } from './writer.ts';

/** Rows, and the columns of the table that the stream had decoded when they were read. */
export interface ReadChunk {
  readonly chunk: Chunk;
  readonly schema: string | undefined;
}

/** A chunk that is in the log, and how many of its rows were logged: the others are there in a newer form. */
export interface LoggedChunk {
  readonly chunk: Chunk;
  readonly logged: number;
}

/** The way of rows from the table into the log, and what has to be known of both ends. */
export class Transfer {
  readonly writer: ChunkWriter;
  readonly #options: BackfillOptions;

  constructor(options: BackfillOptions) {
    this.#options = options;
    this.writer = new ChunkWriter(options);
  }

  /**
   * Reads rows, and notes the columns that the stream has decoded by then: while they are read, nobody can change the columns.
   * Undefined when it was interrupted before.
   */
  read(run: Run, read: (onSnapshot: (snapshot: Visibility) => void) => Promise<Chunk>): Promise<ReadChunk | undefined> {
    const { tracker, schemas } = this.#options;
    return run.unlocked(async () => {
      let schema: string | undefined;
      const chunk = await read((snapshot) => {
        tracker.forgetChanges(snapshot);
        schema = schemas.get(run.table.name);
      });
      return { chunk, schema };
    });
  }

  /**
   * Logs a chunk. When so much is changed meanwhile that its last rows have to be read again, what is returned ends before them;
   * undefined when that goes for all rows.
   */
  async insert(run: Run, { chunk, schema }: ReadChunk): Promise<LoggedChunk | undefined> {
    const inserted = await this.writer.insert(chunk, schema);
    if (!inserted) return undefined;
    const { logged, seq } = inserted;
    run.seq = seq ?? run.seq;
    if (inserted.rows === chunk.rows.length) return { chunk, logged };
    const rows = chunk.rows.slice(0, inserted.rows);
    const bytes = rows.reduce((sum, row) => sum + row.source.length, 0);
    return { chunk: { ...chunk, rows, bytes, cut: true, next: keyTexts(chunk.table, rows.at(-1)!) }, logged };
  }
}
