import { expect } from 'chai';
import { defiCatalog } from '../../../schemas/catalog-file.ts';
import { unnamedEntry, type Catalog } from '../../../schemas/catalog.ts';
import { columnText } from '../../pipeline/source/support/source-bench.ts';
import { allValueCases, createValueTable, insertValues, valueSetUp } from '../../pipeline/source/support/value-cases.ts';
import { startQueryRest, type QueryRest } from './support/query-rest.ts';

const functions = ['count', 'count_distinct', 'sum', 'avg', 'min', 'max', 'percentile'];

describe('queries, values of every type', function () {
  this.timeout(120_000);
  let rest: QueryRest;
  before(async () => {
    rest = await startQueryRest();
    for (const statement of valueSetUp) await rest.sql(statement);
    await rest.sql(createValueTable('public.all_values'));
    await rest.sql(insertValues('public.all_values', 1));
  });
  after(() => rest?.close());

  it('are spelled as in events, byte for byte', async () => {
    const { status, text } = await rest.post({ from: 'all_values' });
    expect(status, text).to.equal(200);
    const item = text.slice(text.indexOf('[') + 1, text.lastIndexOf('],"next"'));
    for (const [i, [type, literal, json]] of allValueCases.entries())
      expect(columnText(`{"after":${item}}`, `c${i}`), `${type} ${literal}`).to.equal(json);
  });

  it('can be asked for in every way, or are refused before the database is asked', async () => {
    const accepted = new Set<string>();
    const types = allValueCases.map(([type]) => type);
    for (const [i, type] of types.entries()) {
      if (types.indexOf(type) < i) continue;
      const field = `c${i}`;
      const asks: Record<string, object> = {
        null: { where: { field, op: 'is_null', value: false } },
        eq: { where: { field, op: 'eq', value: '1' } },
        gt: { where: { field, op: 'gt', value: '1' } },
        in: { where: { field, op: 'in', value: ['1', '2'] } },
        between: { where: { field, op: 'between', value: ['1', '2'] } },
        like: { where: { field, op: 'like', value: '%1%' } },
        order: { orderBy: [{ field, dir: 'desc' }], limit: 1 },
        group: { groupBy: [field] },
        bucket: { groupBy: [{ field, bucket: '1h', as: 'hour' }] },
        ...Object.fromEntries(functions.map((fn) => [fn, { aggregate: { x: { fn, field, ...(fn === 'percentile' && { p: 0.5 }) } } }])),
        ...Object.fromEntries(
          functions.map((fn) => [
            `${fn} sorted`,
            {
              groupBy: ['id'],
              aggregate: { x: { fn, field, ...(fn === 'percentile' && { p: 0.5 }) } },
              having: { field: 'x', op: 'is_null', value: false },
              orderBy: [{ field: 'x', dir: 'asc' }],
            },
          ]),
        ),
      };
      for (const [way, ask] of Object.entries(asks)) {
        const { status, text } = await rest.post({ from: 'all_values', ...(ask as Record<string, unknown>) });
        expect(status, `${type} ${way}: ${text}`).to.be.oneOf([200, 400]);
        // A sum can be beyond its type; all else the check has to know.
        if (status === 400 && !/out of range|cannot be NaN/.test(text))
          expect(text, `${type} ${way}`).not.to.include('the database cannot do this');
        if (status === 200) accepted.add(way);
      }
    }
    expect([...accepted]).to.include.members(['null', 'eq', 'gt', 'in', 'between', 'like', 'order', 'group', 'bucket', ...functions]);
  });
});

const catalog: Catalog = {
  ...defiCatalog(),
  tables: new Map([...defiCatalog().tables, ['public.logbook', { ...unnamedEntry, channel: 'logbook', appendOnly: true }]]),
};

describe('queries, tables', function () {
  this.timeout(120_000);
  let rest: QueryRest;
  before(async () => {
    rest = await startQueryRest({
      catalog,
      seed: `CREATE TABLE public.changing (id int PRIMARY KEY, a int, b text);
        INSERT INTO public.changing SELECT i, i, 'b' || i FROM generate_series(1, 5) i;
        CREATE TABLE public.parent (id int PRIMARY KEY, a int);
        CREATE TABLE public.child (PRIMARY KEY (id)) INHERITS (public.parent);
        INSERT INTO public.parent VALUES (1, 1); INSERT INTO public.child VALUES (2, 2);
        CREATE TABLE public.parted (id int, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
        CREATE TABLE public.parted_eu PARTITION OF public.parted FOR VALUES IN ('eu');
        INSERT INTO public.parted VALUES (1, 'eu');
        CREATE TABLE public.logbook (line text); INSERT INTO public.logbook VALUES ('x');
        CREATE TABLE public.keyless (line text);
        CREATE UNLOGGED TABLE public.fleeting (id int PRIMARY KEY);
        CREATE VIEW public.looks AS SELECT * FROM public.parent;
        CREATE SCHEMA "Mixed Case"; CREATE TABLE "Mixed Case"."select ""x""" ("from" int PRIMARY KEY, "a""b; --" text, computed int GENERATED ALWAYS AS ("from" * 2) STORED);
        INSERT INTO "Mixed Case"."select ""x""" VALUES (1, 'one');`,
    });
  });
  after(() => rest?.close());

  async function items(query: object): Promise<unknown> {
    const { status, body, text } = await rest.post(query);
    expect(status, text).to.equal(200);
    return body.items;
  }

  it('names and columns may be anything; a generated column is in no event and in no answer', async () => {
    const from = 'Mixed Case.select "x"';
    expect(await items({ from })).to.deep.equal([{ from: 1, 'a"b; --': 'one' }]);
    expect(
      await items({
        from,
        where: { field: 'a"b; --', op: 'eq', value: 'one' },
        groupBy: ['a"b; --'],
        aggregate: { most: { fn: 'max', field: 'from' } },
      }),
    ).to.deep.equal([{ 'a"b; --': 'one', most: 1 }]);
  });

  it('tables that inherit are tables of their own; partitions are of the partitioned table', async () => {
    expect(await items({ from: 'parent' })).to.deep.equal([{ id: 1, a: 1 }]);
    expect(await items({ from: 'child' })).to.deep.equal([{ id: 2, a: 2 }]);
    expect(await items({ from: 'parted' })).to.deep.equal([{ id: 1, region: 'eu' }]);
    expect((await rest.post({ from: 'parted_eu' })).error.message).to.equal(
      'from is public.parted_eu, which cannot be queried: it is a partition; ask the partitioned table',
    );
  });

  it('what is not captured is refused, with the reason for whoever may read it', async () => {
    expect(await items({ from: 'logbook' })).to.deep.equal([{ line: 'x' }]);
    for (const [from, reason] of [
      ['keyless', /no usable replica identity/],
      ['fleeting', /unlogged/],
      ['looks', /no table that this key may read/],
      ['headwater.users', /no table that this key may read/],
      ['nowhere', /no table that this key may read/],
    ] as const) {
      const { status, error } = await rest.post({ from });
      expect([status, error.code, error.field], from).to.deep.equal([400, 'bad_query', 'from']);
      expect(error.message).to.match(reason);
    }
    expect((await rest.post({ from: 'keyless' }, 'reader')).error.message).to.equal(
      (await rest.post({ from: 'nowhere' }, 'reader')).error.message.replace('nowhere', 'keyless'),
    );
  });

  it('what is left out of the publication of a capture that runs is not in the log', async () => {
    await rest.sql('CREATE PUBLICATION headwater FOR TABLE ONLY public.changing, ONLY public.prices, ONLY public.tvl');
    try {
      await new Promise((resolve) => setTimeout(resolve, 1_100));
      expect((await rest.post({ from: 'changing', limit: 1 })).status).to.equal(200);
      expect((await rest.post({ from: 'tokens' })).error.message).to.match(/has been made since capture started/);
    } finally {
      await rest.sql('DROP PUBLICATION headwater');
    }
  });

  it('changes of a definition are seen at once where they are in the way, else within a second or two', async () => {
    expect(await items({ from: 'changing', where: 'id = 1' })).to.deep.equal([{ id: 1, a: 1, b: 'b1' }]);
    await rest.sql('ALTER TABLE public.changing DROP COLUMN a');
    expect(await items({ from: 'changing', where: 'id = 1', limit: 2 })).to.deep.equal([{ id: 1, b: 'b1' }]);
    await rest.sql('ALTER TABLE public.changing RENAME COLUMN b TO c');
    expect((await rest.post({ from: 'changing', where: 'b = "b1"' })).error.message).to.include('which is no column of the table');
    await rest.sql('ALTER TABLE public.changing ADD COLUMN d numeric(10,2) DEFAULT 1');
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    expect(await items({ from: 'changing', where: 'id = 1' })).to.deep.equal([{ id: 1, c: 'b1', d: '1.00' }]);
    await rest.sql(`ALTER TABLE public.changing ALTER COLUMN d TYPE text USING 'x' || d`);
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    expect(await items({ from: 'changing', where: 'id = 1' })).to.deep.equal([{ id: 1, c: 'b1', d: 'x1.00' }]);
    await rest.sql('DROP TABLE public.changing CASCADE');
    expect((await rest.post({ from: 'changing' })).error.code).to.equal('bad_query');
    await rest.sql('CREATE TABLE public.changing (other int PRIMARY KEY); INSERT INTO public.changing VALUES (7)');
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    expect(await items({ from: 'changing' })).to.deep.equal([{ other: 7 }]);
  });

  it('a table that is rewritten all the time never looks empty', async () => {
    await rest.sql(
      'CREATE TABLE public.rewritten (id int PRIMARY KEY, a numeric); INSERT INTO public.rewritten SELECT i, i FROM generate_series(1, 50) i',
    );
    let done = false;
    let answers = 0;
    const rewriting = (async () => {
      // Some queries give up, as they may: it goes on until some have been answered.
      for (let i = 0; i < 30 || (answers < 5 && i < 1_000); i++)
        await rest.sql(
          `ALTER TABLE public.rewritten ALTER COLUMN a TYPE ${i % 2 === 0 ? 'text' : 'numeric'} USING a::${i % 2 === 0 ? 'text' : 'numeric'}`,
        );
    })().finally(() => (done = true));
    const counts = new Set<unknown>();
    while (!done) {
      const { status, body, text } = await rest.post({ from: 'rewritten', aggregate: { n: { fn: 'count' } } });
      expect(status, text).to.be.oneOf([200, 503]);
      if (status !== 200) continue;
      answers++;
      counts.add(body.items[0]!['n']);
    }
    await rewriting;
    expect([...counts]).to.deep.equal(['50']);
  });
});
