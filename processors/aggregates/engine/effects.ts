import type { Seq } from '../../../pipeline/log/event-log.ts';
import type { Micros, Point, WindowRecord } from '../model.ts';

/** What a row of a `rows` definition contributes, and where: into the windows of `at` of its group. */
export interface Contribution extends Point {
  /** JSON array of the values of `by`. */
  readonly group: string;
}

/** What a batch does to one window. */
export interface WindowChange {
  /** Position in the definition's levels. */
  readonly level: number;
  readonly group: string;
  readonly index: number;
  /** The window as it is now; undefined: it is empty, and its record, values and buckets go. */
  readonly record: WindowRecord | undefined;
  /** The store has no record of it yet (then `record` is there): it joins the indexes, its group the groups. */
  readonly fresh: boolean;
  /** Value as canonical decimal → by how much its count grows; what comes to 0 goes. Undefined: nothing changes. */
  readonly values: ReadonlyMap<string, number> | undefined;
  /** The same for buckets. */
  readonly buckets: ReadonlyMap<string, number> | undefined;
  /** What is stored of its values and buckets goes first: it has become a sketch, or was empty in between. */
  readonly anew: boolean;
}

/** What a batch does to the points of a pane; of `rows` only. */
export interface PointsChange {
  readonly group: string;
  readonly index: number;
  /** Point's id → the point and its row; undefined: it goes. */
  readonly points: ReadonlyMap<string, RowPoint | undefined>;
}

export interface RowPoint extends Point {
  /** The row, as the keys of `rows` name it. */
  readonly row: string;
}

/** A pane that has changed in any of its levels. */
export interface PaneChange {
  readonly group: string;
  readonly index: number;
  /** Of the last event that changed it. */
  readonly seq: Seq;
}

/** What the engine knows besides windows and rows, small; kept with the offset, see `AggregateEngine.restore`. */
export interface EngineMeta {
  /** Log time: the largest `at` so far. */
  readonly logTime: Micros;
  /** Columns of the primary key that hold numbers, so far as schema events have told. */
  readonly numbers: readonly string[];
  /**
   * By level, the index of the oldest window that is kept; older ones may be there in part. Once a window is kept no longer it never is again,
   * however long windows are kept from then on; only when everything goes this begins anew. Empty when it is not known.
   */
  readonly oldest: readonly number[];
}

/** What a batch does to the store, in this order: `cleared`, then all others. */
export interface SealedEffects {
  /** Everything that was stored is gone (windows, values, points, rows, groups): the table was truncated, by this event. */
  readonly cleared: Seq | undefined;
  readonly meta: EngineMeta;
  readonly windows: readonly WindowChange[];
  /** Row → its contribution; undefined: it goes. */
  readonly rows: ReadonlyMap<string, Contribution | undefined>;
  readonly points: readonly PointsChange[];
  readonly changed: readonly PaneChange[];
}

/** The effects of a batch while it fills. */
export interface AggregateEffects {
  /** Ends the batch, and says what it does: the same however often it is asked. No event may be applied to it afterwards. */
  seal(): SealedEffects;
}
