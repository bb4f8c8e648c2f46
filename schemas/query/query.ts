import type { Condition } from '../condition/condition.ts';

/** What an aggregate computes, named as in SQL; `percentile` is `percentile_disc`. */
export const aggregateFunctions = ['count', 'count_distinct', 'sum', 'avg', 'min', 'max', 'percentile'] as const;
export type AggregateFunction = (typeof aggregateFunctions)[number];

/** One aggregate of the answer, under the name `as`. */
export interface Aggregate {
  readonly as: string;
  readonly fn: AggregateFunction;
  /** Left out of `count` alone, which then counts rows. */
  readonly field?: string;
  /** Of `percentile`: from 0 to 1. */
  readonly p?: number;
}

/** One column of the answer that groups are made by. */
export interface GroupBy {
  readonly as: string;
  readonly field: string;
  /** A duration in microseconds: of a time, the beginning of the interval of this length in which it is, counted from 1970 (UTC). */
  readonly bucket?: number;
}

export interface OrderBy {
  /** Of a query for rows a column of the table, of one for groups a member of the answer. */
  readonly field: string;
  readonly dir: 'asc' | 'desc';
}

/** A query, checked, with every default filled in and its conditions in normal form: what means the same is the same. */
export interface Query {
  /** `<schema>.<table>`. */
  readonly from: string;
  /** Of a query for rows: the columns of the answer. Undefined in a query for groups. */
  readonly select: readonly string[] | undefined;
  readonly where: Condition | undefined;
  /** Of a query for groups; both undefined in a query for rows. Without `groupBy` there is one group: all rows. */
  readonly groupBy: readonly GroupBy[] | undefined;
  readonly aggregate: readonly Aggregate[] | undefined;
  /** About members of the answer. */
  readonly having: Condition | undefined;
  /**
   * The whole order, to the last tie: what was asked for, then the primary key, or the groups. Nulls stand where Postgres has them:
   * last of `asc`, first of `desc`.
   */
  readonly orderBy: readonly OrderBy[];
  readonly limit: number;
}

/** Bounds of a query beside those of its conditions (`conditionLimits`, which hold for `where` and `having` together). */
export const queryLimits = { limit: 1_000, defaultLimit: 100, groupBy: 16, aggregates: 32, orderBy: 16 } as const;

/** What is wrong with a query. The message is a sentence without the name of the field: `where.and[1].value`, `from`. */
export interface QueryFault {
  readonly field: string;
  readonly message: string;
  /** Where the field was given as text: the place in it, both from 1. */
  readonly line?: number;
  readonly column?: number;
}
