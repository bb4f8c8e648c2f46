import type { Visibility } from '../visibility.ts';
import type { Chunk } from './reader.ts';
import type { BackfillOptions, Run } from './run.ts';
import { ChunkWriter } from './writer.ts';

/** Rows, and the columns that the stream had for the table when they were read. */
export interface ReadChunk {
  readonly chunk: Chunk;
  readonly schema: string | undefined;
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
   * Reads rows, and notes the columns that the stream had for them: while they are read, nobody can change the columns. Undefined
   * when it was interrupted before.
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

  /** Returns how many rows were logged; undefined when they have to be read again. */
  async insert(run: Run, { chunk, schema }: ReadChunk): Promise<number | undefined> {
    const inserted = await this.writer.insert(chunk, schema);
    run.seq = inserted?.seq ?? run.seq;
    return inserted?.logged;
  }
}
