import fc from 'fast-check';
import type { Comparison, CompareOp, Condition, Scalar } from '../../../../schemas/condition/condition.ts';
import { bareTypeName, columnType } from '../../../../schemas/condition/column-type.ts';
import type { AggregateFunction } from '../../../../schemas/query/query.ts';
import type { AskedQuery } from './evaluate-query.ts';

/** A column of the random table: its type, and texts that Postgres takes for it; few, so that they meet, and groups have many rows. */
export interface RandomColumn {
  readonly type: string;
  readonly values: readonly string[];
}

const texts = [
  '',
  'a',
  'A',
  'ab',
  'a b ',
  '%',
  'a%b',
  '_',
  'a\\b',
  'é',
  'É',
  'Σ',
  'ς',
  'İ',
  'ß',
  '\uffee',
  '😀',
  '😁',
  "'; --",
  '"x"',
  '$1',
  "O'Brien",
];

export const columns: Readonly<Record<string, RandomColumn>> = {
  i2: { type: 'smallint', values: ['-32768', '-1', '0', '1', '2', '32767'] },
  i4: { type: 'integer', values: ['-2147483648', '-3', '0', '1', '2', '7', '2147483647'] },
  i8: { type: 'bigint', values: ['-9223372036854775808', '-1', '0', '3', '9007199254740993', '9007199254740992', '9223372036854775807'] },
  num: {
    type: 'numeric',
    values: [
      '0',
      '1.0',
      '1.00',
      '-2.50',
      '0.1',
      '0.2',
      '12345678901234567890.123456789',
      '12345678901234567890.123456788',
      '-0.00000000000000000001',
      'NaN',
      'Infinity',
      '-Infinity',
      '99999999999999999999999999999999999999999',
    ],
  },
  money8: { type: 'numeric(20,8)', values: ['0.00000001', '3009.43', '3009.42', '-1', '100000000000.00000001', '0.5'] },
  f4: { type: 'real', values: ['0.125', '-3.5', '1024', 'NaN', '0', '7'] },
  // Their sums are exact, in whatever order.
  f8: { type: 'double precision', values: ['0.125', '-0.5', '1e9', 'Infinity', '-Infinity', 'NaN', '2'] },
  txt: { type: 'text', values: texts },
  vc: { type: 'character varying(12)', values: texts },
  pad: { type: 'character(8)', values: texts.filter((text) => !text.endsWith(' ')) },
  nam: { type: 'name', values: texts },
  flag: { type: 'boolean', values: ['true', 'false'] },
  tz: {
    type: 'timestamp with time zone',
    values: [
      '2026-11-22 12:00:00.123456+00',
      '2026-11-22 12:00:00.123457+00',
      '2026-11-22 12:59:59.999999+00',
      '2026-11-22 13:00:00+00',
      '1969-12-31 23:59:59.999999+00',
      '1970-01-01 00:00:00+00',
      '1900-02-28 00:00:00+00',
      'infinity',
      '-infinity',
    ],
  },
  ts: {
    type: 'timestamp(3) without time zone',
    values: ['2026-11-22 12:00:00.123', '2026-11-22 12:00:00', '1969-12-31 23:00:00', 'infinity'],
  },
  day: { type: 'date', values: ['2026-11-22', '2026-11-23', '2024-02-29', '1969-12-31', '1900-01-01', 'infinity'] },
  tod: { type: 'time without time zone', values: ['00:00:00', '12:30:00.5', '12:30:00.500001', '23:59:59.999999'] },
  uid: {
    type: 'uuid',
    values: ['00000000-0000-0000-0000-000000000000', 'a81bc81b-dead-4e5d-abff-90865d1e13b1', 'ffffffff-ffff-ffff-ffff-ffffffffffff'],
  },
  mood: { type: 'public."od""d mood"', values: ['sad', 'OK', 'ha"p\'py'] },
  raw: { type: 'bytea', values: ['\\x', '\\x00', '\\xff00', '\\x6162', '\\xf09f9880'] },
  ip: { type: 'inet', values: ['10.0.0.1', '10.0.0.0/8', '::1'] },
  doc: { type: 'jsonb', values: ['{"a": 1}', 'null', '[1, 2]', '9007199254740993'] },
  arr: { type: 'integer[]', values: ['{1,2}', '{}', '{NULL}'] },
  'we"ird; DROP TABLE t': { type: 'text', values: texts },
};

/** A value of a condition as JSON has it; some in another spelling of the same. */
function scalars(type: string, values: readonly string[]): fc.Arbitrary<Scalar> {
  const { family } = columnType(type);
  const given = fc.constantFrom(...values);
  switch (family) {
    case 'boolean':
      return fc.boolean();
    case 'number':
      return fc.oneof(given, given.map(respelled), fc.integer({ min: -4, max: 8 }));
    case 'time':
      return given.map((text) =>
        bareTypeName(type).startsWith('timestamp') ? text.replace(/(\d) (\d)/u, '$1T$2').replace('+00', 'Z') : text,
      );
    case 'uuid':
      return fc.oneof(
        given,
        given.map((text) => text.toUpperCase()),
      );
    case 'printed':
      return type === 'bytea' ? given.map((hex) => Buffer.from(hex.slice(2), 'hex').toString('base64')) : given;
    case 'text':
      return fc.oneof(given, fc.constantFrom(...texts));
    default:
      return given;
  }
}

function respelled(text: string): Scalar {
  if (/^[NI-]*[A-Z]/u.test(text)) return text;
  if (text.includes('e')) return Number(text);
  if (text.includes('.')) return `${text}00`;
  return Number.isSafeInteger(Number(text)) ? Number(text) : `${text}.0`;
}

const wild = fc
  .array(fc.constantFrom('%', '_', '\\%', '\\_', '\\\\', 'a', 'A', 'b', 'é', 'É', 'σ', '😀'), { maxLength: 5 })
  .map((parts) => parts.join(''));

/** What a condition can be about: a column, or a member of groups. */
type Fields = readonly (readonly [name: string, type: string, values: readonly string[]])[];

function leaf([field, type, values]: Fields[number]): fc.Arbitrary<Comparison> {
  const { family } = columnType(type);
  const one = scalars(type, values);
  const of = (ops: readonly CompareOp[], value: fc.Arbitrary<Scalar | readonly Scalar[]>): fc.Arbitrary<Comparison> =>
    fc.record({ field: fc.constant(field), op: fc.constantFrom(...ops), value });
  const isNull = of(['is_null'], fc.boolean());
  if (family === 'tree') return isNull;
  const equal = fc.oneof(of(['eq', 'ne'], one), of(['in', 'nin'], fc.array(one, { minLength: 1, maxLength: 4 })), isNull);
  if (family === 'boolean' || family === 'printed') return equal;
  const ordered = fc.oneof(equal, of(['gt', 'gte', 'lt', 'lte'], one), of(['between'], fc.tuple(one, one)));
  return family === 'text' || family === 'open' ? fc.oneof(ordered, of(['like', 'ilike'], wild)) : ordered;
}

function conditions(fields: Fields): fc.Arbitrary<Condition> {
  const leaves = fc.oneof(...fields.map(leaf));
  const { node } = fc.letrec<{ node: Condition }>((tie) => ({
    node: fc.oneof(
      { maxDepth: 3, withCrossShrink: true },
      leaves,
      fc.record({ and: fc.array(tie('node'), { minLength: 1, maxLength: 3 }) }),
      fc.record({ or: fc.array(tie('node'), { minLength: 1, maxLength: 3 }) }),
      fc.record({ not: tie('node') }),
    ),
  }));
  return node;
}

const columnFields: Fields = Object.entries(columns).map(([name, { type, values }]) => [name, type, values] as const);
const sortable = Object.keys(columns).filter((name) => columnType(columns[name]!.type).family !== 'tree' && name !== 'ip');
const dirs = fc.constantFrom('asc' as const, 'desc' as const);

function orders(names: readonly string[]): fc.Arbitrary<NonNullable<AskedQuery['orderBy']>> {
  return fc
    .subarray([...names], { maxLength: Math.min(3, names.length) })
    .chain((fields) =>
      fc.tuple(...fields.map((field) => fc.record({ field: fc.constant(field), dir: dirs }, { requiredKeys: ['field'] }))),
    );
}

const where = fc.oneof({ arbitrary: fc.constant(undefined), weight: 2 }, { arbitrary: conditions(columnFields), weight: 3 });
const limits = fc.oneof({ arbitrary: fc.integer({ min: 5, max: 60 }), weight: 9 }, { arbitrary: fc.constant(1), weight: 1 });

/** Leaves out what is undefined. */
function compact(query: Readonly<Record<string, unknown>>): AskedQuery {
  return Object.fromEntries(
    Object.entries(query).filter(([, value]) => value !== undefined && !(Array.isArray(value) && value.length === 0)),
  ) as unknown as AskedQuery;
}

/** Queries for rows of `public.t`. @param key its primary key */
export function rowQueries(key: readonly string[]): fc.Arbitrary<AskedQuery> {
  return fc
    .record({
      from: fc.constantFrom('t', 'public.t'),
      select: fc.oneof(
        fc.constant(undefined),
        fc.subarray(Object.keys(columns), { minLength: 1 }).map((names) => [...key, ...names]),
      ),
      where,
      orderBy: orders([...sortable, ...key]),
      limit: limits,
    })
    .map(compact);
}

const functions: readonly AggregateFunction[] = ['count', 'count_distinct', 'sum', 'avg', 'min', 'max', 'percentile'];

function takes(fn: AggregateFunction, type: string): boolean {
  const { family } = columnType(type);
  if (fn === 'count') return true;
  if (fn === 'count_distinct') return family !== 'tree' && type !== 'inet';
  if (family === 'number') return true;
  return fn !== 'sum' && fn !== 'avg' && (family === 'time' || (family === 'text' && fn !== 'percentile'));
}

const aggregate = fc.constantFrom(...functions).chain((fn) =>
  fc
    .record({
      fn: fc.constant(fn),
      field: fc.constantFrom(...Object.keys(columns).filter((name) => takes(fn, columns[name]!.type))),
      ...(fn === 'percentile' && { p: fc.constantFrom(0, 0.01, 0.5, 0.9, 0.95, 1) }),
    })
    .map((one) => (fn === 'count' && one.field === 'i2' ? { fn } : one)),
);

const buckets: Readonly<Record<string, readonly string[]>> = {
  tz: ['1ms', '1s', '7m', '1h', '1d', '7d'],
  ts: ['1h', '36h'],
  day: ['1d', '7d', '28d'],
};
const groupings = fc
  .subarray(
    sortable.filter((name) => name !== 'f8'),
    { maxLength: 2 },
  )
  .chain((names) =>
    fc.tuple(
      ...names.map((name) =>
        buckets[name] === undefined
          ? fc.constant(name)
          : fc.oneof(
              fc.constant(name),
              fc.record({ field: fc.constant(name), bucket: fc.constantFrom(...buckets[name]), as: fc.constant(`${name}_start`) }),
            ),
      ),
    ),
  );

/** Queries for groups. @param typesOf the types of a query's members, so that conditions about them can be made */
export function groupQueries(typesOf: (query: AskedQuery) => ReadonlyMap<string, string>): fc.Arbitrary<AskedQuery> {
  const base = fc
    .record({
      from: fc.constant('t'),
      where,
      groupBy: groupings,
      aggregate: fc.array(aggregate, { maxLength: 4 }),
      limit: limits,
    })
    .map(({ aggregate: list, ...rest }) =>
      compact({
        ...rest,
        aggregate:
          list.length === 0 && rest.groupBy.length > 0
            ? undefined
            : Object.fromEntries([...list, ...(list.length === 0 ? [{ fn: 'count' }] : [])].map((one, i) => [`a${i}`, one])),
      }),
    );
  return base.chain((query) => {
    const members = [...typesOf(query)];
    const fields: Fields = members.map(([name, type]) => [name, type, poolOf(type)] as const);
    return fc
      .record({ having: fc.oneof(fc.constant(undefined), conditions(fields)), orderBy: orders(members.map(([name]) => name)) })
      .map(({ having, orderBy }) => compact({ ...query, having, orderBy }));
  });
}

/** Values that members of this type may well have. */
function poolOf(type: string): readonly string[] {
  if (type === 'bigint') return ['0', '1', '2', '5', '20'];
  return Object.values(columns).find((column) => bareTypeName(column.type) === bareTypeName(type))?.values ?? ['0', '1'];
}
