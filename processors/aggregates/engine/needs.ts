import type { Seq } from '../../../pipeline/log/event-log.ts';
import type { Point, WindowRecord } from '../model.ts';
import type { Contribution } from './effects.ts';

/** What the engine wants to know of the store before it applies a batch. Nothing is named twice in one `Needs`. */
export interface Needs {
  readonly rows: readonly string[];
  readonly windows: readonly WindowNeed[];
  /** Groups of which the newest window of each level is wanted. */
  readonly newest: readonly string[];
  /** All points of these panes. */
  readonly points: readonly { readonly group: string; readonly index: number }[];
  /** All values of these windows. */
  readonly values: readonly { readonly level: number; readonly group: string; readonly index: number }[];
}

/** Records of windows of one group and level (the position in the definition's levels). */
export interface WindowNeed {
  readonly level: number;
  readonly group: string;
  readonly indexes: readonly number[];
}

/** The answer: each list is in the order of the question. */
export interface Loaded {
  /** The stored offset's sequence at which this was read: all of it and the offset in one atomic call. */
  readonly seq: Seq;
  readonly rows: readonly (Contribution | undefined)[];
  readonly windows: readonly (readonly (WindowRecord | undefined)[])[];
  /** Indexes by level; undefined: it has none. */
  readonly newest: readonly (readonly (number | undefined)[])[];
  /** By the points' ids. */
  readonly points: readonly ReadonlyMap<string, Point>[];
  readonly values: readonly ReadonlyMap<string, number>[];
}
