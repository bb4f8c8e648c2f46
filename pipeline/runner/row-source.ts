import type { Seq } from '../log/event-log.ts';

/** A current row: the last event that wrote it, with the log's own bytes. */
export interface CachedRow {
  readonly seq: Seq;
  readonly event: Uint8Array;
}

/** How far a store of current rows has come. */
export interface RowsPosition {
  readonly seq: Seq;
  readonly epoch: string;
  /** The first sequence that was folded: after the epoch's beginning, rows that have not changed since are missing. */
  readonly from: Seq;
  /** Which making of the rows it is: what was rebuilt and flipped is another one, though of the same events. */
  readonly making?: string;
}

export interface ReadRows {
  readonly signal?: AbortSignal | undefined;
  /** What was read before, with which these rows must make a whole. */
  readonly of?: RowsPosition | undefined;
}

/**
 * The current rows of captured tables, as a fold of the log. They can be newer than a position that was asked for
 * before: a reader that wants exactly a position leaves out rows with a later sequence and reads those from the log.
 */
export interface RowSource {
  /** Up to where every event is folded in; undefined while nothing is (no cache yet, or it is being rebuilt). Rejects when the store is away. */
  position(): Promise<RowsPosition | undefined>;
  /**
   * The rows of `<schema>.<table>` in pages, in no order, each at least once; none for a table that is not cached (see `holds`).
   * A row that changes meanwhile is given in its old or its new state. Rejects with `rows_interrupted` when they are not, or no
   * longer, those of the position `of` (of when it began, if that is not given) or a later one of the same making.
   */
  rows(table: string, options?: ReadRows): AsyncIterable<readonly CachedRow[]>;
  /** Whether this table's rows are kept at all. */
  holds(table: string): Promise<boolean>;
}
