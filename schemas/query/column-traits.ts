import { bareTypeName, columnType, type ColumnTypes } from '../condition/column-type.ts';
import type { AggregateFunction } from './query.ts';

/** The part of a table's description that the language stands on. */
export interface DescribedTable {
  /** `<schema>.<table>`. */
  readonly name: string;
  readonly columns: ColumnTypes;
  /** The primary key's columns, in its order; empty without one. */
  readonly key: readonly string[];
}

/** Types that conditions compare only by their text, and that Postgres can sort all the same. */
const sortedByPostgres: ReadonlySet<string> = new Set([
  ...['bytea', 'inet', 'cidr', 'macaddr', 'macaddr8', 'interval', 'time with time zone', 'bit', 'bit varying', 'pg_lsn'],
]);

/** May rows be sorted and grouped by a column of this type, and its different values be counted? */
export function isSortable(type: string): boolean {
  const { family } = columnType(type);
  return family === 'printed' ? sortedByPostgres.has(bareTypeName(type)) : family !== 'tree';
}

/** May its values be put into buckets of time? */
export function isBucketable(type: string): boolean {
  return columnType(type).family === 'time' && bareTypeName(type) !== 'time without time zone';
}

/** Why the function does not take a column of this type, as the end of a sentence; undefined when it does. */
export function refuseArgument(fn: AggregateFunction, type: string): string | undefined {
  const { family } = columnType(type);
  switch (fn) {
    case 'count':
      return undefined;
    case 'count_distinct':
      return isSortable(type) ? undefined : 'values of this type cannot be told apart by PostgreSQL';
    case 'sum':
    case 'avg':
      return family === 'number' && bareTypeName(type) !== 'oid' ? undefined : `${fn} is of numbers`;
    case 'min':
    case 'max':
      return family === 'number' || family === 'time' || family === 'text' ? undefined : `${fn} is of numbers, times and text`;
    case 'percentile':
      return family === 'number' || family === 'time' ? undefined : 'percentile is of numbers and times';
  }
}

/** The type of an aggregate's result, as Postgres prints it. @param type of its column, which `refuseArgument` has accepted */
export function resultType(fn: AggregateFunction, type: string | undefined): string {
  const bare = bareTypeName(type ?? 'integer');
  const float = bare === 'real' || bare === 'double precision';
  switch (fn) {
    case 'count':
    case 'count_distinct':
      return 'bigint';
    case 'sum':
      return bare === 'smallint' || bare === 'integer' ? 'bigint' : float ? bare : 'numeric';
    case 'avg':
      return float ? 'double precision' : 'numeric';
    default:
      return columnType(bare).family === 'text' && bare !== 'character' ? 'text' : bare;
  }
}

/** The type of a column of groups. Types that are not known are grouped by their text. */
export function groupType(type: string): string {
  return columnType(type).family === 'open' ? 'text' : type;
}
