import { expect } from 'chai';
import { HeadwaterError } from '../../../pipeline/runtime/errors.ts';
import { keyTextsOf } from '../../../pipeline/source/key-text.ts';
import { describeTable, hasKey, selectRows } from '../../../pipeline/source/table-reader.ts';
import { TypeRegistry } from '../../../pipeline/source/types.ts';
import { defaultCatalog } from '../../../schemas/catalog.ts';
import { SourceBench } from './support/source-bench.ts';

/** Types of keys, and values that order in a way of their own. */
const keys: readonly (readonly [name: string, type: string, values: readonly string[]])[] = [
  ['integers', 'int', ['-5', '-1', '0', '3', '10', '200']],
  ['big integers', 'int8', ['-9223372036854775808', '0', '9007199254740992', '9007199254740993', '9223372036854775807']],
  ['decimals', 'numeric', [`'-Infinity'`, '-1.5', '0', '1e-20', '1.10', `'NaN'`]],
  ['text', 'text', [`''`, `'A'`, `'B'`, `'a'`, `'é'`, `E'tab\\t\\\\ \\''`, `'ä'`, `'z'`, `'_'`]],
  ['text of another collation', 'text COLLATE "C"', [`'B'`, `'a'`, `'b'`, `'C'`]],
  ['times', 'timestamptz', [`'-infinity'`, `'0044-03-15 BC'`, `'2016-11-04 11:51:30.123456Z'`, `'10000-01-01Z'`, `'infinity'`]],
  [
    'UUIDs',
    'uuid',
    [`'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'`, `'00000000-0000-0000-0000-000000000000'`, `'ffffffff-0000-0000-0000-000000000000'`],
  ],
  ['an enum', 'mood', [`'sad'`, `'ok'`, `'happy'`]],
  ['bytes', 'bytea', [`'\\x'`, `'\\x00'`, `'\\x5c27'`, `'\\xff'`]],
  ['text without case', 'citext', [`'a'`, `'B'`, `'c'`, `'D'`, `'e'`, `'F'`]],
  ['a domain over text without case', 'email', [`'a@x'`, `'B@x'`, `'c@x'`, `'D@x'`]],
  ['a domain over an enum', 'feeling', [`'sad'`, `'ok'`, `'happy'`]],
  ['paths of an extension', 'ltree', [`'a'`, `'a.b'`, `'B'`, `'c'`]],
  ['composite values', 'pair', [`ROW(1,'b')`, `ROW(1,'a')`, `ROW(2,NULL)`]],
];

/** Types whose values are spelled otherwise in JSON than in SQL. */
const spelled: typeof keys = [
  ['a domain over bytes', 'address', [`'\\x'`, `'\\x5c27'`]],
  ['arrays of bytes', 'bytea[]', [`ARRAY['\\x5c27'::bytea, NULL]`, `'{}'`, `'[0:0]={"\\\\x00"}'`]],
  ['arrays of a domain over bytes', 'address[]', [`ARRAY['\\x5c27'::address, '\\x']`]],
  ['arrays of text', 'text[]', [`ARRAY['a"b', 'c\\d', 'NULL', NULL, '{x,y}']`, `'{{a,b},{c,d}}'`]],
  ['arrays of a domain over arrays', 'words[]', [String.raw`'{"{a,\"b c\"}","{}"}'`]],
  ['a domain over a domain over arrays', 'phrase', [`'{}'`, `'{a,NULL}'`, `'{a,b}'`]],
  ['jsonb', 'jsonb', [`'"text"'`, `'[1, "a", null]'`, `'{"a": [true]}'`, `'null'`, `'12'`]],
  ['booleans', 'boolean', ['true', 'false']],
  ['floats', 'float8', [`'NaN'`, '-0.1', '1e300', `'-Infinity'`]],
];

describe('table reader', () => {
  let bench: SourceBench;

  before(async () => {
    bench = await SourceBench.open({
      setUp: [
        'CREATE EXTENSION citext',
        'CREATE EXTENSION ltree',
        `CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')`,
        'CREATE DOMAIN email AS citext',
        'CREATE DOMAIN address AS bytea',
        'CREATE DOMAIN words AS text[]',
        'CREATE DOMAIN phrase AS words',
        'CREATE DOMAIN feeling AS mood',
        'CREATE TYPE pair AS (a int, b text)',
      ],
    });
  });
  after(() => bench?.close());

  /** Reads a table chunk by chunk, as a backfill does: each begins behind the last key of the one before. */
  async function chunked(table: string, limit: number): Promise<readonly string[]> {
    const found: string[] = [];
    let after: readonly string[] | undefined;
    for (let chunk = 0; chunk < 100; chunk++) {
      const rows = await bench.copy('public', table, { after, limit });
      found.push(...rows.map(({ event }) => JSON.stringify(event['key'])));
      if (rows.length < limit) return found;
      after = Object.values(rows.at(-1)!.event['key'] as object).map(String);
    }
    throw new Error('it goes round in circles');
  }

  for (const [name, type, values] of keys) {
    it(`reads each row once in chunks by a key of ${name}`, async () => {
      const table = `by_${name.replaceAll(' ', '_')}`.toLowerCase();
      await bench.client.query(`CREATE TABLE ${table} (k ${type} PRIMARY KEY, n int)`);
      // Last first, since the order of the heap must not matter.
      for (const value of values.toReversed()) await bench.client.query(`INSERT INTO ${table} VALUES (${value}, 1)`);
      const all = (await bench.copy('public', table)).map(({ event }) => JSON.stringify(event['key']));
      expect(all).to.have.length(values.length);
      for (const limit of [1, 2, values.length, 100])
        expect((await chunkedBytes(table, type, limit)).toSorted(), `chunks of ${limit}`).to.deep.equal(all.toSorted());
    });
  }

  for (const [name, type, values] of [...keys, ...spelled])
    it(`finds each row again by the key that its event has: ${name}`, async () => {
      const table = `found_by_${name.replaceAll(' ', '_')}`.toLowerCase();
      await bench.client.query(`CREATE TABLE ${table} (k ${type} PRIMARY KEY, n int)`);
      for (const value of values) await bench.client.query(`INSERT INTO ${table} VALUES (${value}, 1)`);
      const [row] = (await bench.client.query<{ oid: number }>(`SELECT $1::regclass::oid::int8::float8 AS oid`, [table])).rows;
      const which = { oid: row!.oid, schema: 'public', table };
      const described = await describeTable(bench.control, which, new TypeRegistry(), defaultCatalog(), 'ev');
      for (const { event } of await bench.copy('public', table)) {
        const where = hasKey(described, keyTextsOf(described, event['key'] as Record<string, unknown>));
        const again = await bench.copy('public', table, { where });
        expect(again.map((one) => one.event['key'])).to.deep.equal([event['key']]);
      }
    });

  /** Bytes go into SQL otherwise than into JSON. */
  async function chunkedBytes(table: string, type: string, limit: number): Promise<readonly string[]> {
    if (type !== 'bytea') return chunked(table, limit);
    const found: string[] = [];
    let after: readonly string[] | undefined;
    for (;;) {
      const rows = await bench.copy('public', table, { after, limit });
      found.push(...rows.map(({ event }) => JSON.stringify(event['key'])));
      if (rows.length < limit) return found;
      after = [`\\x${Buffer.from((rows.at(-1)!.event['key'] as { k: string }).k, 'base64').toString('hex')}`];
    }
  }

  it('reads each row once in chunks by a composite key of several types, in another order than the columns', async () => {
    await bench.client.query('CREATE TABLE by_several (c int, a citext, n int, b text, PRIMARY KEY (a, b, c))');
    await bench.client.query(
      `INSERT INTO by_several SELECT c, a, 0, b FROM generate_series(1, 3) c, unnest('{x,Y,z,_}'::text[]) a, unnest('{B,a,C}'::text[]) b`,
    );
    const all = (await bench.copy('public', 'by_several')).map(({ event }) => JSON.stringify(event['key']));
    expect(all).to.have.length(36);
    for (const limit of [1, 5, 36]) {
      const found: string[] = [];
      let after: readonly string[] | undefined;
      for (let rows; !rows || rows.length === limit;) {
        rows = await bench.copy('public', 'by_several', { after, limit });
        found.push(...rows.map(({ event }) => JSON.stringify(event['key'])));
        after = rows.length > 0 ? Object.values(rows.at(-1)!.event['key'] as object).map(String) : after;
        if (found.length > 100) break;
      }
      expect(found.toSorted(), `chunks of ${limit}`).to.deep.equal(all.toSorted());
    }
  });

  it('reads on, by the index, behind a key that a check which is not validated would refuse', async () => {
    await bench.client.query('CREATE DOMAIN checked AS int');
    await bench.client.query('CREATE TABLE by_checked (id checked PRIMARY KEY)');
    await bench.client.query('INSERT INTO by_checked SELECT generate_series(1, 9)');
    await bench.client.query('ALTER DOMAIN checked ADD CHECK (VALUE > 5) NOT VALID');
    expect(await chunked('by_checked', 4)).to.have.length(9);
    const [row] = (await bench.client.query<{ oid: number }>(`SELECT 'by_checked'::regclass::oid::int8::float8 AS oid`)).rows;
    const which = { oid: row!.oid, schema: 'public', table: 'by_checked' };
    const described = await describeTable(bench.control, which, new TypeRegistry(), defaultCatalog(), 'ev');
    await bench.client.query('SET enable_seqscan = off');
    const { rows } = await bench.client.query(`EXPLAIN ${selectRows(described, { after: ['4'], limit: 4 })}`);
    await bench.client.query('RESET enable_seqscan');
    expect(JSON.stringify(rows)).to.include('Index Cond');
  });

  it('asks for no rows behind a key that is not whole', async () => {
    await bench.client.query('CREATE TABLE by_two (a int, b int, PRIMARY KEY (a, b))');
    const error = await bench.copy('public', 'by_two', { after: ['1'], limit: 1 }).catch((thrown: unknown) => thrown);
    expect((error as Error).message).to.include('a value of the key is missing');
  });

  it('reads only the rows of a condition', async () => {
    await bench.client.query('CREATE TABLE conditional (id int PRIMARY KEY)');
    await bench.client.query('INSERT INTO conditional SELECT generate_series(1, 20)');
    const found = await bench.copy('public', 'conditional', { where: 'id % 2 = 0 OR id = 5', after: ['4'], limit: 4 });
    expect(found.map(({ event }) => (event['key'] as { id: number }).id)).to.deep.equal([5, 6, 8, 10]);
  });

  it('says that a table is not there', async () => {
    const error = await describeTable(
      bench.control,
      { oid: 1, schema: 'public', table: 'none' },
      new TypeRegistry(),
      defaultCatalog(),
      'ev',
    ).catch((thrown: unknown) => thrown);
    expect(error).to.be.instanceOf(HeadwaterError);
    expect((error as HeadwaterError).code).to.equal('no_such_table');
  });
});
