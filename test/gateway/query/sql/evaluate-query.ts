import { bareTypeName, columnType, type ColumnTypes } from '../../../../schemas/condition/column-type.ts';
import type { Condition } from '../../../../schemas/condition/condition.ts';
import { compileFilter } from '../../../../schemas/condition/evaluate.ts';
import type { Instant } from '../../../../schemas/condition/instant.ts';
import { parseDuration } from '../../../../schemas/duration.ts';
import type { AggregateFunction } from '../../../../schemas/query/query.ts';
import { pgAverage, pgSum } from './pg-decimal.ts';

/** A query as it is asked, with `where` and `having` as trees. */
export interface AskedQuery {
  readonly from: string;
  readonly select?: readonly string[];
  readonly where?: Condition;
  readonly groupBy?: readonly (string | { readonly field: string; readonly bucket?: string; readonly as?: string })[];
  readonly aggregate?: Readonly<Record<string, { readonly fn: AggregateFunction; readonly field?: string; readonly p?: number }>>;
  readonly having?: Condition;
  readonly orderBy?: readonly { readonly field: string; readonly dir?: 'asc' | 'desc' }[];
  readonly limit?: number;
}

export type Row = Readonly<Record<string, unknown>>;

/** What an answer holds, from the first item to the last, whatever the limit. */
export interface Evaluated {
  readonly items: readonly Row[];
  readonly types: ColumnTypes;
}

/**
 * What a query says of rows as events have them, computed from the contract's words alone: no SQL, no normal form, no cursor.
 * @param key the primary key's columns
 */
export function evaluateQuery(query: AskedQuery, rows: readonly Row[], types: ColumnTypes, key: readonly string[]): Evaluated {
  const kept = query.where ? rows.filter(passes(query.where, types)) : rows;
  if (query.groupBy === undefined && query.aggregate === undefined) {
    const sorted = [...kept].sort(byAll(completed(query.orderBy ?? [], key), types));
    const select = query.select ?? [...types.keys()];
    return { items: sorted.map((row) => Object.fromEntries(select.map((name) => [name, row[name] ?? null]))), types };
  }
  const groups = groupsOf(query, kept, types);
  const having = query.having ? groups.items.filter(passes(query.having, groups.types)) : groups.items;
  const names = (query.groupBy ?? []).map((one) => (typeof one === 'string' ? one : (one.as ?? one.field)));
  const order = names.length === 0 ? [] : completed(query.orderBy ?? [], names);
  return { items: [...having].sort(byAll(order, groups.types)), types: groups.types };
}

function passes(condition: Condition, types: ColumnTypes): (row: Row) => boolean {
  const evaluate = compileFilter(condition, types);
  return (row) => evaluate((field) => row[field]) === true;
}

type Order = NonNullable<AskedQuery['orderBy']>;

/** Ties are broken by what tells all apart, in the direction of the last that was asked for. */
function completed(asked: Order, unique: readonly string[]): Order {
  const dir = asked.at(-1)?.dir ?? 'asc';
  return [...asked, ...unique.filter((field) => asked.every((one) => one.field !== field)).map((field) => ({ field, dir }))];
}

function byAll(order: Order, types: ColumnTypes): (a: Row, b: Row) => number {
  return (a, b) => {
    for (const { field, dir } of order) {
      const difference = compareValues(a[field], b[field], types.get(field)!);
      if (difference !== 0) return dir === 'desc' ? -difference : difference;
    }
    return 0;
  };
}

/** Null is above all. */
export function compareValues(a: unknown, b: unknown, typeName: string): number {
  if (a == null || b == null) return Number(a == null) - Number(b == null);
  if (bareTypeName(typeName) === 'bytea') return Buffer.compare(Buffer.from(a as string, 'base64'), Buffer.from(b as string, 'base64'));
  const type = columnType(typeName);
  return type.order(type.read(a)!, type.read(b)!)!;
}

function groupsOf(query: AskedQuery, rows: readonly Row[], types: ColumnTypes): { items: readonly Row[]; types: ColumnTypes } {
  const groupBy = (query.groupBy ?? []).map((one) => (typeof one === 'string' ? { field: one } : one));
  const names = groupBy.map(({ field, as = field }: { field: string; as?: string }) => as);
  const outputs = new Map(groupBy.map(({ field }, i) => [names[i]!, types.get(field)!]));
  const groups: { key: unknown[]; rows: Row[] }[] = groupBy.length === 0 ? [{ key: [], rows: [...rows] }] : [];
  for (const row of groupBy.length === 0 ? [] : rows) {
    const key = groupBy.map(({ field, bucket }: { field: string; bucket?: string }) =>
      bucket === undefined ? (row[field] ?? null) : beginning(row[field], types.get(field)!, bucket),
    );
    const found = groups.find((group) => group.key.every((value, i) => compareValues(value, key[i], outputs.get(names[i]!)!) === 0));
    if (found) found.rows.push(row);
    else groups.push({ key, rows: [row] });
  }
  const aggregates = Object.entries(query.aggregate ?? {});
  for (const [as, { fn, field }] of aggregates) outputs.set(as, typeOf(fn, field === undefined ? undefined : types.get(field)));
  const items = groups.map((group) => ({
    ...Object.fromEntries(names.map((name, i) => [name, group.key[i]])),
    ...Object.fromEntries(aggregates.map(([as, one]) => [as, aggregateOf(one, group.rows, types)])),
  }));
  return { items, types: outputs };
}

function beginning(value: unknown, typeName: string, bucket: string): unknown {
  const instant = value == null ? undefined : (columnType(typeName).read(value) as Instant);
  if (instant === undefined) return null;
  if (instant === Infinity || instant === -Infinity) return value;
  const size = BigInt(parseDuration(bucket)!);
  const micros = BigInt(instant);
  const start = micros - (((micros % size) + size) % size);
  const text = new Date(Number(start / 1_000n)).toISOString();
  return typeName === 'date' ? text.slice(0, 10) : typeName.includes('without') ? text.slice(0, -1) : text;
}

function typeOf(fn: AggregateFunction, type: string | undefined): string {
  const bare = bareTypeName(type ?? '');
  if (fn === 'count' || fn === 'count_distinct') return 'bigint';
  if (fn === 'avg') return bare === 'real' || bare === 'double precision' ? 'double precision' : 'numeric';
  if (fn === 'sum') return bare === 'smallint' || bare === 'integer' ? 'bigint' : bare === 'bigint' ? 'numeric' : bare;
  return bare;
}

function aggregateOf(
  { fn, field, p }: { readonly fn: AggregateFunction; readonly field?: string; readonly p?: number },
  rows: readonly Row[],
  types: ColumnTypes,
): unknown {
  if (field === undefined) return String(rows.length);
  const type = types.get(field)!;
  const values = rows.map((row) => row[field]).filter((value) => value != null);
  if (fn === 'count') return String(values.length);
  const sorted = [...values].sort((a, b) => compareValues(a, b, type));
  if (fn === 'count_distinct')
    return String(sorted.filter((value, i) => i === 0 || compareValues(value, sorted[i - 1], type) !== 0).length);
  if (values.length === 0) return null;
  if (fn === 'min') return sorted[0];
  if (fn === 'max') return sorted.at(-1);
  if (fn === 'percentile') return sorted[Math.max(0, Math.ceil(p! * sorted.length) - 1)];
  const bare = bareTypeName(type);
  if (bare === 'real' || bare === 'double precision') {
    const sum = values.reduce<number>((total, value) => total + Number(value), 0);
    return jsonNumber(fn === 'sum' ? sum : sum / values.length);
  }
  const texts = values.map(String);
  return fn === 'sum' ? pgSum(texts) : pgAverage(texts);
}

/** As events spell a float. */
function jsonNumber(value: number): unknown {
  return Number.isFinite(value) ? value : String(value);
}
