import type { Seq } from '../../pipeline/log/event-log.ts';

/** Microseconds since 1970, or of a duration. */
export type Micros = number;

/** A size of tumbling windows. The nth window is `[n × micros, (n + 1) × micros)` since 1970, in UTC. */
export interface Level {
  /** As the catalogue writes it: `5m`. */
  readonly text: string;
  readonly micros: Micros;
  /** How long a window is kept, from its start, in log time. */
  readonly keep: Micros;
}

/** A size of sliding windows: they begin and end where panes do. */
export interface Sliding {
  readonly text: string;
  readonly micros: Micros;
}

export const aggregateFunctions = [
  'count',
  'sum',
  'avg',
  'min',
  'max',
  'open',
  'high',
  'low',
  'close',
  'p50',
  'p90',
  'p95',
  'p99',
] as const;
export type AggregateFunction = (typeof aggregateFunctions)[number];

/** An aggregate of the catalogue, checked, with every default filled in. */
export interface Definition {
  readonly name: string;
  /** `<schema>.<table>` */
  readonly table: string;
  /** Columns that make a group; none: all rows are one. */
  readonly by: readonly string[];
  /** Undefined: rows are only counted. */
  readonly value: string | undefined;
  /** Column with the event time; undefined: the commit's. */
  readonly time: string | undefined;
  /** `rows`: rows that exist; `changes`: each insert and update is an observation. */
  readonly of: 'rows' | 'changes';
  /** Tumbling windows, shortest first; each is a multiple of the one before. The first are the panes, from which everything else can be made. */
  readonly levels: readonly Level[];
  /** The levels that the catalogue asks for; when it asks for sliding windows alone, their panes are not among them. */
  readonly windows: readonly string[];
  /** Each a multiple of a pane. */
  readonly sliding: readonly Sliding[];
  readonly functions: readonly AggregateFunction[];
  /** Some function is a percentile: values are kept besides. */
  readonly percentiles: boolean;
  /** Short text that changes when anything else here does that the stored state depends on. */
  readonly hash: string;
}

/** The levels that applications see, shortest first. */
export function shownLevels({ levels, windows }: Definition): readonly Level[] {
  return levels.filter(({ text }) => windows.includes(text));
}

/** A value at its place in a group's order: by time, then by id. */
export interface Point {
  readonly at: Micros;
  /** Of `rows` the row's key, of `changes` the event's id, spelled so that it sorts as text (by code unit) as it should. */
  readonly id: string;
  /** The value as the event has it: `1.10`. */
  readonly value: string;
}

/** What is known of one window of one group; windows without a value have none. */
export interface WindowRecord {
  readonly count: number;
  /** Exact, as decimal text. */
  readonly sum: string;
  readonly min: string;
  readonly max: string;
  /** The first and the last value. */
  readonly open: Point;
  readonly close: Point;
  /** Sequence of the last event that changed the window. */
  readonly revision: Seq;
  /** Percentiles are no longer exact: it has held more values than are kept one by one. */
  readonly sketched: boolean;
}

/** Up to so many values of a window are kept one by one, for percentiles. */
export const mostExactValues = 1_024;
