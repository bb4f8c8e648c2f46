import type { Seq } from '../../../pipeline/log/event-log.ts';
import type { Level, Micros, Sliding } from '../model.ts';
import type { Head } from './answer.ts';
import type { AggregateItem } from './items.ts';

/** A stretch of time in microseconds; the end is not part of it. */
export interface Stretch {
  readonly start: Micros;
  readonly end: Micros;
}

/** A page of the windows of one group, in order of time. */
export interface SeriesPage {
  readonly seq: Seq;
  readonly items: readonly { readonly start: Micros; readonly item: AggregateItem }[];
  /** Where the next page begins. */
  readonly next: Micros | undefined;
  /** Windows that begin before are not kept any more. */
  readonly keptFrom: Micros;
  /** Stretches of which commits are missing. */
  readonly missing: readonly Stretch[];
}

/** The windows that begin in a stretch; undefined bounds are open. */
export interface SeriesRequest {
  /** JSON arrays: how the group may be spelled. */
  readonly groups: readonly string[];
  readonly size: { readonly window: Level } | { readonly sliding: Sliding };
  readonly from: Micros | undefined;
  readonly to: Micros | undefined;
  readonly limit: number;
}

/** `position`: of the column in `by`, from 0; without text it must be null. */
export interface Condition {
  readonly position: number;
  readonly text: string | undefined;
}

export interface LatestRequest {
  readonly groups: readonly string[];
  readonly conditions: readonly Condition[];
  readonly windows: readonly Level[];
  readonly sliding: readonly Sliding[];
  /** The last group of the page before. */
  readonly after: string | undefined;
  readonly limit: number;
}

/** An item and the text of its size. */
export interface SizedItem {
  readonly size: string;
  readonly item: AggregateItem;
}

/** A group as it is: windows and the sliding windows that end with its newest pane. */
export interface GroupState {
  readonly group: string;
  readonly windows: readonly SizedItem[];
  readonly sliding: readonly SizedItem[];
}

export interface LatestPage {
  readonly seq: Seq;
  readonly groups: readonly GroupState[];
  readonly next: string | undefined;
}

export interface Change {
  readonly pane: number;
  readonly group: string;
  readonly seq: Seq;
}

export interface Changes {
  readonly head: Head;
  /** Changes up to here may be missing. */
  readonly forgotten: Seq;
  /** In order of their sequences. */
  readonly changes: readonly Change[];
  /** Whether these are all. */
  readonly complete: boolean;
}
