import type { Seq } from '../../../pipeline/log/event-log.ts';
import { divideDecimal } from '../../../schemas/decimal-sum.ts';
import type { Distribution } from '../engine/distribution.ts';
import type { AggregateFunction, Definition, Micros } from '../model.ts';
import type { Summary } from './summary.ts';

/** A value of a `by` column as events have it. */
export type ByValue = string | number | boolean | null;

/** One window of one group, as applications get it: besides these, one member a function, decimals as text. */
export interface AggregateItem {
  readonly by: Readonly<Record<string, ByValue>>;
  /** ISO 8601, UTC; the end is not part of the window. */
  readonly start: string;
  readonly end: string;
  /** Sequence of the last event that changed it. */
  readonly revision: Seq;
  readonly count: number;
  /** Whether percentiles are exact, where there are any; otherwise they are within 1 %. */
  readonly exact?: boolean;
  readonly [member: string]: unknown;
}

/** Where a window is. */
export interface Place {
  readonly group: string;
  readonly start: Micros;
  readonly micros: Micros;
}

export function itemOf(definition: Definition, place: Place, summary: Summary, distribution: Distribution | undefined): AggregateItem {
  return {
    ...placeOf(definition, place),
    revision: summary.revision,
    count: summary.count,
    ...Object.fromEntries(definition.functions.map((fn) => [fn, valueOf(fn, summary, distribution)])),
    ...(distribution && { exact: distribution.exact }),
  };
}

/** A window that has become empty: nothing but its count is known of it. */
export function emptyItemOf(definition: Definition, place: Place, revision: Seq): AggregateItem {
  return { ...placeOf(definition, place), revision, ...Object.fromEntries(definition.functions.map((fn) => [fn, null])), count: 0 };
}

function placeOf(definition: Definition, { group, start, micros }: Place): Pick<AggregateItem, 'by' | 'start' | 'end'> {
  return { by: byOf(definition, group), start: isoOf(start), end: isoOf(start + micros) };
}

/** Column → value of a group. */
export function byOf({ by }: Definition, group: string): Readonly<Record<string, ByValue>> {
  const values = JSON.parse(group) as readonly ByValue[];
  return Object.fromEntries(by.map((column, i) => [column, values[i] ?? null]));
}

/** ISO 8601 to the second: windows begin and end with seconds. */
export function isoOf(micros: Micros): string {
  return new Date(Math.floor(micros / 1_000)).toISOString().replace('.000Z', 'Z');
}

function valueOf(fn: AggregateFunction, summary: Summary, distribution: Distribution | undefined): string | number | null {
  switch (fn) {
    case 'count':
      return summary.count;
    case 'sum':
      return summary.sum;
    case 'avg':
      return divideDecimal(summary.sum, summary.count);
    case 'min':
    case 'low':
      return summary.min;
    case 'max':
    case 'high':
      return summary.max;
    case 'open':
      return summary.open.value;
    case 'close':
      return summary.close.value;
    default:
      return distribution?.percentile(Number(fn.slice(1))) ?? null;
  }
}
