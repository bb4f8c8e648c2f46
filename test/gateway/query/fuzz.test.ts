import { expect } from 'chai';
import fc from 'fast-check';
import { startQueryRest, type QueryAnswerBody, type QueryRest } from './support/query-rest.ts';

const timeoutMs = 1_000;

const seed = `
  CREATE TABLE public.thing (id int PRIMARY KEY, big bigint, exact numeric, money_ money, float_ float8, name text, code varchar(8), flag boolean,
    at timestamptz, naive timestamp, day date, clock time, uid uuid, bytes bytea, doc jsonb, tags text[], span interval, net inet, bits bit(4), "Ünï ""q""" text);
  INSERT INTO public.thing SELECT i, 9007199254740993 + i, i * 1.10, i, CASE i % 10 WHEN 0 THEN 'NaN' WHEN 1 THEN 'Infinity' ELSE i / 3.0 END, CASE WHEN i % 7 = 0 THEN NULL ELSE 'näme_%' || i END,
    'c' || i, i % 2 = 0, CASE i WHEN 1 THEN 'infinity' WHEN 2 THEN '0044-03-15 BC' ELSE now() - i * interval '1 hour' END, now(), now(), now(), gen_random_uuid(), '\\x00ff', '{"a":1}', '{a,NULL}', '1 day', '10.0.0.1', B'0101', 'q' || i
    FROM generate_series(1, 2000) i;
  ANALYZE public.thing`;

const columns = [
  ...[
    'id',
    'big',
    'exact',
    'money_',
    'float_',
    'name',
    'code',
    'flag',
    'at',
    'naive',
    'day',
    'clock',
    'uid',
    'bytes',
    'doc',
    'tags',
    'span',
    'net',
    'bits',
    'Ünï "q"',
  ],
  // None of them is a column.
  ...['ctid', 'xmin', 'nothing', '', '"', 'id; DROP TABLE thing', '__proto__', 'constructor', 'toString', '*'],
];
const ops = [
  'eq',
  'ne',
  'gt',
  'gte',
  'lt',
  'lte',
  'in',
  'nin',
  'between',
  'like',
  'ilike',
  'is_null',
  'crosses_above',
  'changed',
  'hasOwnProperty',
  '',
];
const field = fc.constantFrom(...columns);
const scalar = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.constantFrom<unknown>(
      '1',
      '0',
      '-1',
      'a%',
      '%',
      '_',
      '\\',
      'NaN',
      'Infinity',
      '-infinity',
      '1e400',
      '1e-400',
      '9'.repeat(200),
      "'; --",
      '2026-11-22T12:00:00Z',
      '2026-11-22',
      '0001-01-01 BC',
      '294276-12-31T00:00:00Z',
      '99999-01-01',
      '{}',
      '[]',
      'true',
      'f47ac10b-58cc-4372-a567-0e02b2c3d479',
      '\\x00',
      '$1',
      '💥',
      '12:00',
      '1 day',
    ),
  },
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.bigInt({ min: -(2n ** 70n), max: 2n ** 70n }).map(String),
  fc.boolean(),
  fc.constant(null),
  fc.string({ unit: 'grapheme', maxLength: 30 }),
);
const value = fc.oneof({ weight: 4, arbitrary: scalar }, fc.array(scalar, { maxLength: 4 }), fc.constant({ a: 1 }));
const leaf = fc.record({ field, op: fc.constantFrom(...ops), value }, { requiredKeys: ['field', 'op'] });
const { condition } = fc.letrec<{ condition: unknown }>((tie) => ({
  condition: fc.oneof(
    { maxDepth: 6, depthSize: 'small' },
    leaf,
    fc.array(tie('condition'), { maxLength: 3 }).map((and) => ({ and })),
    fc.array(tie('condition'), { maxLength: 3 }).map((or) => ({ or })),
    tie('condition').map((not) => ({ not })),
  ),
}));

/** Texts of the grammar, and texts that are nearly so. */
const word = fc.oneof(
  field.map((name) => (/^[a-z]\w*$/i.test(name) ? name : JSON.stringify(name))),
  fc.constantFrom(
    'AND',
    'OR',
    'NOT',
    'IN',
    'BETWEEN',
    'LIKE',
    'ILIKE',
    'IS',
    'NULL',
    '(',
    ')',
    ',',
    '=',
    '!=',
    '<>',
    '<',
    '>=',
    '"a"',
    "'b'",
    '1',
    '-1.5',
    '1e9',
    'TRUE',
    '%',
    ';',
    '--',
    '/*',
    '$1',
    '\\',
    '"',
    "'",
  ),
  fc.string({ unit: 'grapheme', maxLength: 5 }),
);
const conditionText = fc.oneof(
  fc.array(word, { maxLength: 12 }).map((words) => words.join(' ')),
  fc
    .tuple(field, fc.constantFrom('=', '>', 'LIKE', 'ILIKE', '!='), scalar)
    .map(([name, op, one]) => `"${name.replaceAll('"', '""')}" ${op} ${JSON.stringify(one)}`),
);
const where = fc.oneof(condition, conditionText, fc.jsonValue({ maxDepth: 3 }));
const alias = fc.constantFrom('n', 'total', 'id', 'Ünï', '1', '', '__proto__', 'a b', 'x'.repeat(64));
const aggregate = fc.dictionary(
  alias,
  fc.record(
    {
      fn: fc.constantFrom('count', 'count_distinct', 'sum', 'avg', 'min', 'max', 'percentile', 'pg_sleep', ''),
      field,
      p: fc.oneof(fc.double(), fc.constant('0.5')),
    },
    { requiredKeys: ['fn'] },
  ),
  { maxKeys: 4 },
);
const bucket = fc.constantFrom('1s', '1m', '1h', '7d', '0s', '1', '-1h', '99999999999d', 'x');
const groupBy = fc.array(fc.oneof(field, fc.record({ field, bucket, as: alias }, { requiredKeys: ['field'] })), { maxLength: 3 });
const orderBy = fc.array(
  fc.record({ field: fc.oneof(field, alias), dir: fc.constantFrom('asc', 'desc', 'up') }, { requiredKeys: ['field'] }),
  { maxLength: 3 },
);
const limit = fc.oneof(fc.integer({ min: 1, max: 1000 }), fc.constantFrom<unknown>(0, -1, 1001, 1.5, '5', null, 2 ** 53));
const cursor = fc.oneof(fc.base64String(), fc.string(), fc.constantFrom('AcyOkI', 'A'.repeat(5_000)));
const rare = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(arbitrary, { nil: undefined, freq: 1 });
const often = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(arbitrary, { nil: undefined, freq: 3 });
const query = fc.record({
  from: fc.oneof(
    { weight: 8, arbitrary: fc.constant('thing') },
    fc.constantFrom(
      'public.thing',
      'prices',
      'pg_catalog.pg_class',
      'headwater.api_keys',
      '',
      'x'.repeat(500),
      '__proto__',
      'public.thing"; --',
    ),
  ),
  select: rare(fc.array(field, { maxLength: 5 })),
  where: often(where),
  aggregate: rare(aggregate),
  groupBy: rare(groupBy),
  having: rare(where),
  orderBy: rare(orderBy),
  limit: often(limit),
  cursor: fc.oneof({ weight: 10, arbitrary: fc.constant(undefined) }, cursor),
});

describe('queries, fuzzed over HTTP', function () {
  this.timeout(300_000);
  let rest: QueryRest;
  before(async () => {
    rest = await startQueryRest({ seed, env: { HEADWATER_QUERY_TIMEOUT: `${timeoutMs}ms` } });
    await rest.post({ from: 'thing', limit: 1 });
  });
  after(() => rest?.close());

  /** No input gives a 500 or takes longer than the time-out, and none gets as far as the database with a fault that could be seen before. */
  function judge(answer: QueryAnswerBody, expected: readonly number[]): void {
    expect(answer.status, answer.text).to.be.oneOf(expected);
    expect(answer.ms, answer.text.slice(0, 500)).to.be.lessThan(timeoutMs + 500);
    if (answer.status === 200) return;
    const { code, message } = answer.error;
    expect(message.length, message).to.be.greaterThan(10);
    // What only running it can tell: a sum beyond its type.
    if (message.startsWith('the database cannot do this')) expect(message).to.match(/out of range|overflow/);
    if (answer.status === 400)
      expect(code).to.be.oneOf(['bad_query', 'bad_cursor', 'bad_request', 'query_timeout', 'query_too_costly', 'query_too_large']);
  }

  it('trees: every query is answered or refused with a reason', async () => {
    let answered = 0;
    await fc.assert(
      fc.asyncProperty(query, async (one) => {
        const answer = await rest.post(one);
        judge(answer, [200, 400]);
        if (answer.status === 200) answered++;
      }),
      { numRuns: 500 },
    );
    // Enough of them are queries.
    expect(answered).to.be.greaterThan(15);
  });

  it('conditions that are well formed are answered with rows of them', async () => {
    await fc.assert(
      fc.asyncProperty(condition, async (one) => {
        judge(await rest.post({ from: 'thing', where: one, limit: 10 }), [200, 400]);
        judge(
          await rest.post({
            from: 'thing',
            where: one,
            groupBy: ['flag'],
            aggregate: { n: { fn: 'count' }, s: { fn: 'sum', field: 'exact' } },
          }),
          [200, 400],
        );
      }),
      { numRuns: 300 },
    );
  });

  it('URLs: every one is answered or refused with a reason', async () => {
    const part = fc.oneof(conditionText, word, fc.string({ unit: 'grapheme' }), field);
    const parameters = fc.record(
      {
        from: fc.constantFrom('thing', 'thing', 'thing', 'public.thing', 'x'),
        select: part,
        where: part,
        groupBy: fc.oneof(part, fc.constantFrom('flag', 'bucket(at,1h) as hour', 'bucket(at,1h', 'flag,code')),
        aggregate: fc.oneof(
          part,
          fc.constantFrom('count(*)', 'sum(exact) as s', 'percentile(exact,0.5)', 'percentile(exact,2)', 'sum(', 'pg_sleep(10)'),
        ),
        having: part,
        orderBy: fc.oneof(part, fc.constantFrom('id desc', 'exact asc, id', 'id sideways')),
        limit: fc.oneof(part, fc.nat().map(String)),
        cursor: part,
        minSeq: fc.constantFrom('0', '-1', 'x', ''),
      },
      { requiredKeys: ['from'] },
    );
    await fc.assert(
      fc.asyncProperty(parameters, async (one) => judge(await rest.get(one), [200, 400])),
      { numRuns: 500 },
    );
  });

  it('bytes: whatever a body or a URL is, the answer has the form of an error', async () => {
    const headers = { 'content-type': 'application/json' };
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 200 }),
        fc.json({ maxDepth: 5 }),
        fc.string({ unit: 'binary-ascii' }),
        async (bytes, json, text) => {
          judge(await rest.send('POST', '/v2/query', { body: Buffer.from(bytes), headers }), [400]);
          judge(await rest.send('POST', '/v2/query', { body: json, headers }), [400]);
          judge(await rest.send('GET', `/v2/query?${encodeURI(text).replaceAll('#', '%23')}`), [400]);
        },
      ),
      { numRuns: 100 },
    );
  });

  it('size: what is large, long or deep is refused at once', async () => {
    const deep = (n: number): unknown =>
      Array.from({ length: n }).reduce((inner: unknown) => ({ not: inner }), { field: 'id', op: 'eq', value: 1 });
    const leafOf = (i: number): object => ({ field: 'id', op: 'eq', value: i });
    const list = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
    const cases: [object, number][] = [
      [{ where: deep(15) }, 200],
      [{ where: deep(17) }, 400],
      [{ where: deep(40) }, 400],
      [{ where: { or: list(250).map(leafOf) } }, 200],
      [{ where: { or: list(260).map(leafOf) } }, 400],
      [{ where: { field: 'id', op: 'in', value: list(1_000) } }, 200],
      [{ where: { field: 'id', op: 'in', value: list(1_001) } }, 400],
      [{ where: { field: 'name', op: 'like', value: '%'.repeat(60_000) } }, 400],
      [{ where: '('.repeat(30_000) }, 400],
      [{ where: 'NOT '.repeat(10_000) + 'id = 1' }, 400],
      [{ where: `id IN (${list(1_001).join(',')})` }, 400],
      [{ select: list(2_000).map(() => 'id') }, 400],
      [{ groupBy: list(17).map(() => 'id') }, 400],
      [{ aggregate: Object.fromEntries(list(33).map((i) => [`a${i}`, { fn: 'count' }])) }, 400],
      [{ orderBy: list(100).map(() => ({ field: 'id', dir: 'asc' })) }, 400],
    ];
    for (const [more, status] of cases) judge(await rest.post({ from: 'thing', ...more }), [status]);
  });

  it('a table of a million rows: nothing that is asked of it takes longer than the time-out', async () => {
    await rest.sql(
      `CREATE TABLE public.heap (id int PRIMARY KEY, name text, n int); INSERT INTO public.heap SELECT i, md5(i::text), i % 977 FROM generate_series(1, 1000000) i; ANALYZE public.heap`,
    );
    const asks = [
      { where: { field: 'name', op: 'ilike', value: '%abc%def%' }, select: ['id'] },
      { orderBy: [{ field: 'name', dir: 'desc' }], limit: 1000 },
      { groupBy: ['name'], aggregate: { n: { fn: 'count' } }, orderBy: [{ field: 'n', dir: 'desc' }] },
      { groupBy: ['n'], aggregate: { a: { fn: 'count_distinct', field: 'name' }, b: { fn: 'percentile', field: 'id', p: 0.99 } } },
      {
        aggregate: {
          a: { fn: 'count_distinct', field: 'name' },
          b: { fn: 'percentile', field: 'n', p: 0.5 },
          c: { fn: 'avg', field: 'id' },
        },
      },
      {
        where: {
          not: {
            or: [
              { field: 'n', op: 'in', value: Array.from({ length: 1_000 }, (_, i) => i) },
              { field: 'name', op: 'like', value: '%f_f%' },
            ],
          },
        },
      },
    ];
    for (const ask of asks) judge(await rest.post({ from: 'heap', ...ask }), [200, 400]);
    // Also several at once, and then the next one is served.
    const answers = await Promise.all(asks.map((ask) => rest.post({ from: 'heap', ...ask, limit: 7 })));
    for (const { status, ms } of answers) expect([status, ms < 8_000]).to.deep.equal([status === 200 ? 200 : 400, true]);
    expect((await rest.post({ from: 'heap', where: 'id = 5', select: ['n'] })).body.items).to.deep.equal([{ n: 5 }]);
  });
});
