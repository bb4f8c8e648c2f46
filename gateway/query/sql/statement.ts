import { escapeIdentifier, quoteTable } from '../../../pipeline/clients/postgres.ts';
import { bareTypeName, type ColumnTypes } from '../../../schemas/condition/column-type.ts';
import { printMoment } from '../../../schemas/query/normal.ts';
import type { Aggregate, GroupBy, Query } from '../../../schemas/query/query.ts';
import type { QueryTable } from '../model.ts';
import { byCodePoint, groupKeyOf, keyOf, type SqlValue } from './columns.ts';
import { conditionSql } from './condition.ts';
import { afterSql, orderSql, type SortKey } from './keyset.ts';
import { Parameters } from './parameters.ts';

export interface Statement {
  readonly text: string;
  readonly values: readonly unknown[];
  /** The names of the first columns; the others are the keyset's. */
  readonly output: readonly string[];
}

export interface StatementParts {
  readonly query: Query;
  readonly table: QueryTable;
  /** Types of the members of an answer about groups; undefined in a query for rows. */
  readonly groups: ColumnTypes | undefined;
  readonly paged: boolean;
  /** Texts of the last row's keys; undefined at the first page. */
  readonly after: readonly (string | null)[] | undefined;
}

/** The SQL of a checked query. Its identifiers come from the table's description, its values are parameters, the rest is from here. */
export function statementOf(parts: StatementParts): Statement {
  return parts.groups ? groupsStatement(parts, parts.groups) : rowsStatement(parts);
}

function rowsStatement({ query, table, paged, after }: StatementParts): Statement {
  const parameters = new Parameters();
  const valueOf = columnsOf(table);
  const keys = query.orderBy.map(({ field, dir }): SortKey => ({
    ...keyOf(valueOf(field)),
    dir,
    notNull: table.notNull.has(field) || table.key.includes(field),
  }));
  const output = query.select ?? [];
  const selected = [...output.map((name) => valueOf(name).sql), ...(paged ? keys.map(({ sql }) => sql) : [])];
  const conditions = [
    ...(query.where ? [conditionSql(query.where, valueOf, parameters)] : []),
    ...(after ? [`(${afterSql(keys, after, parameters)})`] : []),
  ];
  const text = `SELECT ${selected.join(', ')} FROM ${sourceOf(table)}${clause('WHERE', conditions, ' AND ')}${clause('ORDER BY', keys.length > 0 ? [orderSql(keys)] : [])} LIMIT ${parameters.add(String(query.limit + 1), 'int8')}`;
  return { text, values: parameters.values, output };
}

/** Groups stand in a query of their own, so that what is around them sees plain columns. */
function groupsStatement({ query, table, paged, after }: StatementParts, types: ColumnTypes): Statement {
  const parameters = new Parameters();
  const valueOf = columnsOf(table);
  const groupBy = query.groupBy ?? [];
  const inner = [
    ...groupBy.map((group) => ({ as: group.as, sql: groupSql(group, valueOf(group.field), parameters) })),
    ...(query.aggregate ?? []).map((one) => ({ as: one.as, sql: aggregateSql(one, valueOf, parameters) })),
  ];
  const names = new Map(inner.map(({ as }, i) => [as, `r.c${i + 1}`]));
  const memberOf = (as: string): SqlValue => ({ sql: names.get(as)!, type: types.get(as)!, loose: false });
  const where = query.where ? [conditionSql(query.where, valueOf, parameters)] : [];
  const grouping = groupBy.map((_, i) => String(i + 1));
  const groups = `SELECT ${inner.map(({ sql }, i) => `${sql} AS c${i + 1}`).join(', ')} FROM ${sourceOf(table)}${clause('WHERE', where)}${clause('GROUP BY', grouping)}`;
  const keys = query.orderBy.map(({ field, dir }): SortKey => ({ ...keyOf(memberOf(field)), dir, notNull: false }));
  const conditions = [
    ...(query.having ? [conditionSql(query.having, memberOf, parameters)] : []),
    ...(after ? [`(${afterSql(keys, after, parameters)})`] : []),
  ];
  const selected = [...names.values(), ...(paged ? keys.map(({ sql }) => sql) : [])];
  const text = `SELECT ${selected.join(', ')} FROM (${groups}) r${clause('WHERE', conditions, ' AND ')}${clause('ORDER BY', keys.length > 0 ? [orderSql(keys)] : [])} LIMIT ${parameters.add(String(query.limit + 1), 'int8')}`;
  return { text, values: parameters.values, output: [...names.keys()] };
}

function clause(word: string, parts: readonly string[], separator = ', '): string {
  return parts.length === 0 ? '' : ` ${word} ${parts.join(separator)}`;
}

function sourceOf({ schema, table, partitioned }: QueryTable): string {
  return `${partitioned ? '' : 'ONLY '}${quoteTable(schema, table)} t`;
}

function columnsOf(table: QueryTable): (field: string) => SqlValue {
  return (field) => {
    const type = table.columns.get(field);
    if (type === undefined) throw new Error(`${table.name} has no column ${field}`);
    return { sql: `t.${escapeIdentifier(field)}`, type, loose: table.looseText.has(field) };
  };
}

function groupSql({ bucket }: GroupBy, value: SqlValue, parameters: Parameters): string {
  return bucket === undefined ? groupKeyOf(value) : bucketSql(bucket, value, parameters);
}

/** About the year 1, in microseconds before 1970. PostgreSQL before 14.12 and 15.7 misplaced what lies before the origin. */
const originMicros = 62_135_596_800_000_000n;

/** The beginning of the bucket. The origin lies a whole number of buckets before 1970. */
function bucketSql(bucket: number, { sql, type }: SqlValue, parameters: Parameters): string {
  const bare = bareTypeName(type);
  const zoned = bare === 'timestamp with time zone';
  const stride = parameters.add(`${bucket / 1_000_000} seconds`, 'interval');
  const buckets = originMicros / BigInt(bucket);
  const origin = printMoment(-buckets * BigInt(bucket), zoned ? type : 'timestamp without time zone');
  const bin = (value: string): string =>
    `pg_catalog.date_bin(${stride}, ${value}, ${parameters.add(origin, zoned ? 'timestamptz' : 'timestamp')})`;
  return bare === 'date' ? `${bin(`${sql}::pg_catalog.timestamp`)}::pg_catalog.date` : bin(sql);
}

function aggregateSql({ fn, field, p }: Aggregate, valueOf: (field: string) => SqlValue, parameters: Parameters): string {
  if (field === undefined) return 'pg_catalog.count(*)';
  const value = valueOf(field);
  switch (fn) {
    case 'count':
      return `pg_catalog.count(${value.sql})`;
    case 'count_distinct':
      return `pg_catalog.count(DISTINCT ${groupKeyOf(value)})`;
    case 'percentile':
      return `pg_catalog.percentile_disc(${parameters.add(String(p), 'float8')}) WITHIN GROUP (ORDER BY ${value.sql})`;
    case 'sum':
    case 'avg':
      return `pg_catalog.${fn}(${value.sql})`;
    case 'min':
    case 'max':
      return `pg_catalog.${fn}(${keyOf(value).sql}${value.loose ? byCodePoint : ''})`;
  }
}
