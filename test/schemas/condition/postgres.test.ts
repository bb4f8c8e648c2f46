import { expect } from 'chai';
import fc from 'fast-check';
import { connectPostgres, escapeIdentifier, stableText, type PgClient } from '../../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { encodeRow } from '../../../pipeline/source/event-encoder.ts';
import { describeTable, readRows, selectRows } from '../../../pipeline/source/table-reader.ts';
import { TypeRegistry } from '../../../pipeline/source/types.ts';
import { defaultCatalog } from '../../../schemas/catalog.ts';
import { checkCondition } from '../../../schemas/condition/check.ts';
import type { CompareOp, Comparison, Condition, Scalar } from '../../../schemas/condition/condition.ts';
import { compileFilter } from '../../../schemas/condition/evaluate.ts';
import { freshDatabase, type FreshDatabase } from '../../support/servers.ts';

const smallDecimals = fc.tuple(fc.integer({ min: -300, max: 300 }), fc.integer({ min: 0, max: 3 })).map(([n, scale]) => decimal(n, scale));
const longDecimals = fc
  .tuple(fc.constantFrom('', '-'), fc.stringMatching(/^[0-9]{1,40}$/), fc.stringMatching(/^[0-9]{1,30}$/))
  .map(([sign, whole, fraction]) => `${sign}${whole}.${fraction}`);
const specials = fc.constantFrom('NaN', 'Infinity', '-Infinity');
const doubles = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }).filter((n) => n === 0 || Math.abs(n) > 1e-300),
  fc.constantFrom(0.1, 0.2, 0.3, -0.5, 1e22, 123456.789),
);
/** Large whole numbers are refused as numbers: many JSON readers would round them. */
const asGiven = (n: number): Scalar => (Number.isInteger(n) && !Number.isSafeInteger(n) ? String(n) : n);
const characters = fc.constantFrom(
  'a',
  'A',
  'b',
  'B',
  '%',
  '_',
  '\\',
  ' ',
  'é',
  'É',
  'Σ',
  'σ',
  'ς',
  'ß',
  'İ',
  'i',
  '\uffee',
  '😀',
  '😁',
  '0',
);
const texts = fc.array(characters, { maxLength: 7 }).map((parts) => parts.join(''));
const dates = fc.oneof(
  fc.constantFrom('infinity', '-infinity', '0044-03-15 BC', '0001-01-01', '12345-06-07', '2024-02-29', '1969-12-31'),
  fc
    .tuple(fc.integer({ min: 1900, max: 2100 }), fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 28 }))
    .map(([y, m, d]) => `${y}-${two(m)}-${two(d)}`),
);
const times = fc
  .tuple(fc.nat(23), fc.nat(59), fc.nat(59), fc.constantFrom('', '.5', '.50', '.000001', '.123456'))
  .map(([h, m, s, fraction]) => `${two(h)}:${two(m)}:${two(s)}${fraction}`);
const moments = fc.oneof(
  fc.constantFrom(
    'infinity',
    '-infinity',
    '2026-11-22 12:00:00.123456',
    '2026-11-22 12:00:00.123457',
    '0044-03-15 10:00:00 BC',
    '200000-01-01 00:00:00',
  ),
  fc
    .tuple(
      dates.filter((date) => /^\d{4}-\d\d-\d\d$/.test(date)),
      times,
    )
    .map(([date, time]) => `${date} ${time}`),
);
const zones = fc.constantFrom('', 'Z', '+00', '+02:00', '-09:30', '+05:45');
const zoned = fc.tuple(moments, zones).map(([moment, zone]) => (/^[0-9-]+ [0-9:.]+$/.test(moment) ? `${moment}${zone}` : moment));

/** A column: its type, values that Postgres takes for it, the same for conditions, and whether it has an order, or patterns. */
interface Column {
  readonly type: string;
  readonly values: fc.Arbitrary<Scalar>;
  readonly ordered?: false;
  readonly pattern?: true;
}

const columns: Readonly<Record<string, Column>> = {
  i4: { type: 'integer', values: fc.oneof(fc.integer({ min: -5, max: 5 }), fc.integer()) },
  i8: {
    type: 'bigint',
    values: fc.oneof(fc.integer({ min: -5, max: 5 }), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String)),
  },
  num: { type: 'numeric', values: fc.oneof(smallDecimals, smallDecimals, longDecimals, specials) },
  f4: {
    type: 'real',
    values: fc.oneof(fc.constantFrom(0.1, 0.2, '0.1', '0.10000001', 16777217, '3.4e38'), fc.integer({ min: -3, max: 3 }), specials),
  },
  f8: {
    type: 'double precision',
    values: fc.oneof(doubles.map(asGiven), doubles.map(String), specials, fc.constant('0.1000000000000000055')),
  },
  txt: { type: 'text', values: texts, pattern: true },
  pad: { type: 'character(5)', values: texts.filter((text) => text.trimEnd().length <= 4), pattern: true },
  flag: { type: 'boolean', values: fc.boolean(), ordered: false },
  tz: { type: 'timestamp with time zone', values: zoned },
  ts: { type: 'timestamp without time zone', values: moments },
  day: { type: 'date', values: dates },
  tod: { type: 'time without time zone', values: times },
  uid: {
    type: 'uuid',
    values: fc.oneof(
      fc.uuid(),
      fc.uuid().map((id) => id.toUpperCase()),
    ),
  },
};
const columnNames = Object.keys(columns);

function decimal(n: number, scale: number): string {
  return (n / 10 ** scale).toFixed(scale);
}

function two(n: number): string {
  return String(n).padStart(2, '0');
}

/** Rows hold values that are in conditions, too: drawn from the same few, they meet. */
const rows = fc.record(Object.fromEntries(columnNames.map((name) => [name, fc.option(columns[name]!.values, { freq: 6 })])));

const wild = fc.array(
  fc.oneof(
    { arbitrary: fc.constantFrom('%', '_', '\\%', '\\_', '\\\\'), weight: 2 },
    { arbitrary: characters.filter((c) => c !== '\\'), weight: 2 },
  ),
  { maxLength: 6 },
);

function comparisonOf(field: string, pool: fc.Arbitrary<Scalar>): fc.Arbitrary<Comparison> {
  const { ordered = true, pattern = false } = columns[field]!;
  const of = (ops: readonly CompareOp[], value: fc.Arbitrary<Scalar | readonly Scalar[]>): fc.Arbitrary<Comparison> =>
    fc.record({ field: fc.constant(field), op: fc.constantFrom(...ops), value });
  return fc.oneof(
    of(['eq', 'ne'], pool),
    of(['in', 'nin'], fc.array(pool, { minLength: 1, maxLength: 4 })),
    of(['is_null'], fc.boolean()),
    ...(ordered ? [of(['gt', 'gte', 'lt', 'lte'], pool), of(['between'], fc.tuple(pool, pool))] : []),
    ...(pattern
      ? [
          of(
            ['like', 'ilike'],
            fc.oneof(
              wild.map((parts) => parts.join('')),
              texts.filter((text) => !text.includes('\\')),
            ),
          ),
        ]
      : []),
  );
}

function conditions(pools: ReadonlyMap<string, readonly Scalar[]>): fc.Arbitrary<Condition> {
  const leaf = fc.oneof(
    ...columnNames.map((name) => comparisonOf(name, fc.oneof(columns[name]!.values, fc.constantFrom(...pools.get(name)!)))),
  );
  const { node } = fc.letrec<{ node: Condition }>((tie) => ({
    node: fc.oneof(
      { maxDepth: 3, withCrossShrink: true },
      leaf,
      leaf,
      fc.record({ and: fc.array(tie('node'), { minLength: 1, maxLength: 3 }) }),
      fc.record({ or: fc.array(tie('node'), { minLength: 1, maxLength: 3 }) }),
      fc.record({ not: tie('node') }),
    ),
  }));
  return node;
}

/** The condition as SQL, with its values as parameters: what the evaluator promises to agree with. */
function toSql(node: Condition, parameters: unknown[]): string {
  if ('and' in node) return `(${node.and.map((part) => toSql(part, parameters)).join(' AND ')})`;
  if ('or' in node) return `(${node.or.map((part) => toSql(part, parameters)).join(' OR ')})`;
  if ('not' in node) return `((${toSql(node.not, parameters)}) IS NOT TRUE)`;
  const { field, op, value } = node;
  const { type, pattern } = columns[field]!;
  const collate = pattern ? ' COLLATE "C"' : '';
  const cast = type.startsWith('character') ? 'bpchar' : type;
  const parameter = (one: Scalar, as = cast): string => `$${parameters.push(String(one))}::text::${as}`;
  const list = Array.isArray(value) ? (value as readonly Scalar[]) : [value as Scalar];
  const first = list[0]!;
  switch (op) {
    case 'is_null':
      return value === false ? `(${field} IS NOT NULL)` : `(${field} IS NULL)`;
    case 'in':
      return `(${field}${collate} IN (${list.map((one) => parameter(one)).join(', ')}))`;
    case 'nin':
      return `((${field}${collate} IN (${list.map((one) => parameter(one)).join(', ')})) IS NOT TRUE)`;
    case 'between':
      return `(${field}${collate} BETWEEN ${parameter(first)} AND ${parameter(list[1]!)})`;
    case 'like':
      return `(${field} LIKE ${parameter(first, 'text')})`;
    case 'ilike':
      return `(${field} ILIKE ${parameter(first, 'text')})`;
    case 'ne':
      return `(${field}${collate} IS DISTINCT FROM ${parameter(first)})`;
    default:
      return `(${field}${collate} ${{ eq: '=', gt: '>', gte: '>=', lt: '<', lte: '<=' }[op]} ${parameter(first)})`;
  }
}

describe('conditions beside PostgreSQL', () => {
  let database: FreshDatabase;
  let client: PgClient;

  before(async () => {
    database = await freshDatabase();
    client = await connectPostgres(database.url, 'test', silentLogger());
    for (const setting of stableText) await client.query(setting);
    const list = columnNames.map((name) => `${escapeIdentifier(name)} ${columns[name]!.type}`).join(', ');
    await client.query(`CREATE TABLE public.t (id integer PRIMARY KEY, ${list})`);
  });

  after(async () => {
    await client.end();
    await database.drop();
  });

  /** The rows as events have them. */
  async function asInEvents(): Promise<readonly Readonly<Record<string, unknown>>[]> {
    const { rows: found } = await client.query<{ oid: number }>(`SELECT 'public.t'::regclass::oid::int8::float8 AS oid`);
    const table = { oid: found[0]!.oid, schema: 'public', table: 't' };
    const readable = await describeTable(client, table, new TypeRegistry(), defaultCatalog(), 'ev');
    const events: Record<string, unknown>[] = [];
    await readRows(client, selectRows(readable, {}), (row) =>
      events.push(JSON.parse(encodeRow(readable.relation, row).toString('utf8')) as Record<string, unknown>),
    );
    return events;
  }

  it('say of every row what the same SQL says: true, false or unknown', async () => {
    const seed = Date.now() % 2 ** 31;
    const stored = fc.sample(rows, { numRuns: 250, seed });
    for (const [id, row] of stored.entries()) {
      const values = columnNames.map((name) => (row[name] === null ? null : String(row[name])));
      await client.query(`INSERT INTO public.t VALUES ($1, ${columnNames.map((_, i) => `$${i + 2}`).join(', ')})`, [id, ...values]);
    }
    const events = await asInEvents();
    expect(events).to.have.length(stored.length);
    const pools = new Map(columnNames.map((name) => [name, stored.map((row) => row[name]).filter((value) => value != null)] as const));
    const { rows: types } = await client.query<{ name: string; type: string }>(
      `SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute WHERE attrelid = 'public.t'::regclass AND attnum > 0`,
    );
    const known = new Map(types.map(({ name, type }) => [name, type]));
    const seen = new Set<string>();
    await fc.assert(
      fc.asyncProperty(conditions(pools), async (tree) => {
        const { value: condition, faults = [] } = checkCondition(tree, { columns: known, name: 'where' });
        for (const { message } of faults) expect(message).to.match(/nothing is between those$|ends in a backslash/);
        fc.pre(condition !== undefined);
        const parameters: unknown[] = [];
        const sql = `SELECT id, ${toSql(condition, parameters)} AS truth FROM public.t`;
        const answer = await client.query<{ id: number; truth: boolean | null }>(sql, parameters);
        const evaluate = compileFilter(condition, known);
        const truths = new Map(events.map((row) => [row['id'], evaluate((field) => row[field]) ?? null]));
        for (const { id, truth } of answer.rows) {
          seen.add(String(truth));
          expect(
            truths.get(id),
            `${sql} ${JSON.stringify(parameters)}: ${JSON.stringify(events.find((row) => row['id'] === id))}`,
          ).to.equal(truth);
        }
      }),
      { numRuns: 1_500, seed },
    );
    expect([...seen].sort()).to.deep.equal(['false', 'null', 'true']);
  });
});
