import { expect } from 'chai';
import fc from 'fast-check';
import { prepareQuery, type PrepareOptions } from '../../../../gateway/query/prepare.ts';
import type { PreparedQuery, QueryTable } from '../../../../gateway/query/model.ts';
import { connectPostgres, escapeIdentifier, stableText, type PgClient } from '../../../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import { JsonWriter } from '../../../../pipeline/source/json-writer.ts';
import { TypeRegistry, typeNameSql } from '../../../../pipeline/source/types.ts';
import { columnType } from '../../../../schemas/condition/column-type.ts';
import { freshDatabase, type FreshDatabase } from '../../../support/servers.ts';
import { compareValues, evaluateQuery, type AskedQuery, type Evaluated, type Row } from './evaluate-query.ts';
import { columns, groupQueries, rowQueries } from './random-queries.ts';

/** A key of two columns, of which neither tells rows apart. */
const key = ['k1', 'k2'];
const asText = { getTypeParser: () => (text: unknown) => text } as never;

describe('queries beside an evaluator in JavaScript', () => {
  let database: FreshDatabase;
  let client: PgClient;
  let table: QueryTable;
  let options: PrepareOptions;
  let rows: readonly Row[];
  const types = new TypeRegistry();
  const out = new JsonWriter();
  const seed = Date.now() % 2 ** 31;

  before(async () => {
    database = await freshDatabase();
    client = await connectPostgres(database.url, 'test', silentLogger());
    await client.query(`CREATE TYPE public."od""d mood" AS ENUM ('sad', 'OK', 'ha"p''py')`);
    const list = Object.entries(columns).map(([name, { type }]) => `${escapeIdentifier(name)} ${type}`);
    await client.query(`CREATE TABLE public.t (k1 text, k2 bigint, ${list.join(', ')}, PRIMARY KEY (k1, k2))`);
    await fill();
    for (const setting of stableText) await client.query(setting);
    table = await describeTable();
    options = {
      tables: { find: (name) => (name === 'public.t' ? table : undefined), names: () => ['public.t'] },
      owner: 'o',
      cursorSecret: 's',
    };
    const all = prepareQuery({ from: 't', limit: 1_000 }, options).query!;
    rows = (await run(all)).items;
    expect(rows).to.have.length(120);
  });

  after(async () => {
    await client.end();
    await database.drop();
  });

  async function fill(): Promise<void> {
    const stored = fc.sample(
      fc.record(
        Object.fromEntries(Object.entries(columns).map(([name, { values }]) => [name, fc.option(fc.constantFrom(...values), { freq: 5 })])),
      ),
      { numRuns: 120, seed },
    );
    for (const [i, row] of stored.entries()) {
      const values = Object.keys(columns).map((name) => row[name]);
      const places = values.map((_, n) => `$${n + 3}`);
      await client.query(`INSERT INTO public.t VALUES ($1, $2, ${places.join(', ')})`, [
        ['b', 'B', 'ä', '😀'][i % 4],
        9_007_199_254_740_990n + BigInt(i),
        ...values,
      ]);
    }
  }

  async function describeTable(): Promise<QueryTable> {
    const { rows: found } = await client.query<{ name: string; type: string; loose: boolean }>(
      `SELECT a.attname AS name, ${typeNameSql('a.atttypid', 'a.atttypmod')} AS type FROM pg_attribute a
        WHERE a.attrelid = 'public.t'::regclass AND a.attnum > 0 ORDER BY a.attnum`,
    );
    return {
      ...{
        name: 'public.t',
        schema: 'public',
        table: 't',
        channel: 't',
        key,
        identity: key,
        cacheable: true,
        version: '1',
        partitioned: false,
      },
      columns: new Map(found.map(({ name, type }) => [name, type])),
      notNull: new Set(key),
      looseText: new Set(),
    };
  }

  /** As the gateway runs it: values as events have them. */
  async function run(query: PreparedQuery): Promise<{ items: readonly Row[]; next: string | undefined }> {
    const result = await client.query<(string | null)[]>({
      text: query.sql.text,
      values: [...query.sql.values],
      rowMode: 'array',
      types: asText,
    });
    const oids = result.fields.map((field) => field.dataTypeID);
    await types.load(client, oids);
    const { output, limit } = query;
    const items = result.rows
      .slice(0, limit)
      .map((row) => Object.fromEntries(output.map((name, i) => [name, row[i] === null ? null : decoded(oids[i]!, row[i]!)])));
    const more = result.rows.length > limit ? result.rows[limit - 1]!.slice(output.length) : undefined;
    return { items, next: more && query.cursorAfter?.(more) };
  }

  function decoded(oid: number, text: string): unknown {
    const bytes = Buffer.from(text);
    const { encode, json } = types.get(oid);
    // To JavaScript it would look like SQL's NULL.
    if (json && text === 'null') return { jsonNull: true };
    encode(out, bytes, 0, bytes.length);
    return JSON.parse(out.take().toString('utf8')) as unknown;
  }

  /** Whether the query is one that the checker refuses rightly: a range with nothing in it, a pattern that ends in its escape. */
  function refused(query: AskedQuery): boolean {
    const { faults = [] } = prepareQuery(query, options);
    for (const { message } of faults)
      expect(message).to.match(/nothing is between those$|ends in a backslash|and must be (a whole number|between)|is NaN|is -?Infinity/u);
    return faults.length > 0;
  }

  async function compare(query: AskedQuery, seen: { pages: number; items: number }): Promise<void> {
    const expected = evaluateQuery(query, rows, table.columns, key);
    const items: Row[] = [];
    let cursor: string | undefined;
    do {
      const { query: prepared, faults } = prepareQuery({ ...query, ...(cursor !== undefined && { cursor }) }, options);
      expect(faults, JSON.stringify(faults)).to.equal(undefined);
      const page = await run(prepared!);
      expect(page.items.length).to.be.at.most(query.limit!);
      items.push(...page.items);
      cursor = page.next;
      seen.pages++;
    } while (cursor !== undefined && items.length <= expected.items.length);
    seen.items += items.length;
    expectSame(items, expected, query);
  }

  function expectSame(items: readonly Row[], { items: expected, types: expectedTypes }: Evaluated, query: AskedQuery): void {
    expect(items.length, 'number of items').to.equal(expected.length);
    for (const [i, item] of items.entries()) {
      const wanted = expected[i]!;
      expect(Object.keys(item).join()).to.equal(Object.keys(wanted).join());
      const differs = Object.keys(item).find((name) => !isSame(name, item[name], wanted[name]));
      if (differs !== undefined)
        throw new Error(`item ${i}: ${differs} differs: ${JSON.stringify(item)} and ${JSON.stringify(wanted)} of ${JSON.stringify(items)}`);
    }

    function isSame(name: string, value: unknown, other: unknown): boolean {
      const type = expectedTypes.get(name)!;
      const fn = query.aggregate?.[name]?.fn;
      // To the last digit; of values that are equal but not the same (1.0 and 1.00) either may stand for a group.
      const exact = fn === 'sum' || fn === 'avg' || columnType(type).family === 'tree';
      return exact ? JSON.stringify(value) === JSON.stringify(other) : compareValues(value, other, type) === 0;
    }
  }

  it('give the same rows, in the same order, over all pages', async () => {
    const seen = { pages: 0, items: 0 };
    await fc.assert(
      fc.asyncProperty(rowQueries(key), async (query) => {
        fc.pre(!refused(query));
        await compare(query, seen);
      }),
      { numRuns: 200, seed },
    );
    expect(seen.pages).to.be.above(1_000);
    expect(seen.items).to.be.above(8_000);
  });

  it('give the same groups, with the same digits, in the same order, over all pages', async () => {
    const seen = { pages: 0, items: 0 };
    await fc.assert(
      fc.asyncProperty(
        groupQueries((query) => evaluateQuery(query, [], table.columns, key).types),
        async (query) => {
          fc.pre(!refused(query));
          await compare(query, seen);
        },
      ),
      { numRuns: 700, seed },
    );
    expect(seen.pages).to.be.above(900);
    expect(seen.items).to.be.above(4_000);
  });
});
