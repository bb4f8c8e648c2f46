import { expect } from 'chai';
import type { QueryTable } from '../../../../gateway/query/model.ts';
import { prepareQuery } from '../../../../gateway/query/prepare.ts';
import { connectPostgres, stableText, type PgClient } from '../../../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import { freshDatabase, type FreshDatabase } from '../../../support/servers.ts';

const words = ['a', 'A', 'b', 'B', 'ä', 'z', 'Z', '-a', 'a b', 'ab', 'É', 'e'];

describe('queries of text with a collation of its own', () => {
  let database: FreshDatabase;
  let client: PgClient;
  const table: QueryTable = {
    ...{ name: 'public.w', schema: 'public', table: 'w', channel: 'w', cacheable: true, version: '1', partitioned: false },
    columns: new Map([
      ['id', 'integer'],
      ['german', 'text'],
      ['loose', 'text'],
    ]),
    ...{ key: ['id'], identity: ['id'], notNull: new Set(['id']), looseText: new Set(['loose']) },
  };
  const options = { tables: { find: () => table, names: () => [] }, owner: 'o', cursorSecret: 's' };

  before(async function () {
    database = await freshDatabase();
    client = await connectPostgres(database.url, 'test', silentLogger());
    try {
      await client.query(`CREATE COLLATION public.german (provider = icu, locale = 'de');
        CREATE COLLATION public.loose (provider = icu, locale = 'und-u-ks-level1', deterministic = false)`);
    } catch {
      // A PostgreSQL that was built without ICU has no such collations.
      this.skip();
    }
    await client.query(`CREATE TABLE public.w (id int PRIMARY KEY, german text COLLATE public.german, loose text COLLATE public.loose)`);
    for (const [i, word] of words.entries()) await client.query('INSERT INTO public.w VALUES ($1, $2, $2)', [i, word]);
    for (const setting of stableText) await client.query(setting);
  });

  after(async () => {
    await client.end();
    await database.drop();
  });

  /** The values of the first member of all items, over pages of three. */
  async function all(input: object): Promise<readonly unknown[]> {
    const found: unknown[] = [];
    let cursor: string | undefined;
    do {
      const { query, faults } = prepareQuery({ from: 'w', limit: 3, ...input, ...(cursor !== undefined && { cursor }) }, options);
      expect(faults).to.equal(undefined);
      const { rows } = await client.query<string[]>({ text: query!.sql.text, values: [...query!.sql.values], rowMode: 'array' });
      found.push(...rows.slice(0, 3).map(([first]) => first));
      const last = rows.length > 3 ? rows[2]!.slice(query!.output.length).map(String) : undefined;
      cursor = last && query!.cursorAfter!(last);
    } while (cursor !== undefined && found.length <= words.length);
    return found;
  }

  const sorted = async (column: string): Promise<readonly string[]> =>
    (await client.query<{ w: string }>(`SELECT ${column} AS w FROM public.w ORDER BY ${column}, id`)).rows.map(({ w }) => w);

  it('are sorted as the column is, over all pages', async () => {
    expect(await all({ select: ['german'], orderBy: [{ field: 'german' }] })).to.deep.equal(await sorted('german'));
    expect(await all({ select: ['loose'], orderBy: [{ field: 'loose' }] })).to.deep.equal(await sorted('loose'));
    expect(await all({ groupBy: ['german'] })).to.deep.equal(await sorted('german'));
  });

  it('take texts for equal only when they are the same', async () => {
    expect(await all({ select: ['loose'], where: 'loose = "a"' })).to.deep.equal(['a']);
    expect(await all({ select: ['loose'], where: 'loose IN ("a", "E")' })).to.deep.equal(['a']);
    expect(await all({ select: ['loose'], where: 'loose LIKE "_"' })).to.have.members(words.filter((word) => word.length === 1));
    expect(await all({ groupBy: ['loose'] })).to.have.members(words);
    expect(await all({ aggregate: { n: { fn: 'count_distinct', field: 'loose' } } })).to.deep.equal([String(words.length)]);
  });

  it('compare by code points in conditions, as rules do', async () => {
    expect(await all({ select: ['german'], where: 'german > "Z"' })).to.have.members(words.filter((word) => word > 'Z'));
  });

  it('use the indexes of the columns: for equal texts, and for the next page', async () => {
    await client.query(
      'CREATE INDEX ON public.w (german, id); SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off',
    );
    const planOf = async (input: object): Promise<string> => {
      const { sql } = prepareQuery({ from: 'w', select: ['id'], ...input }, options).query!;
      const { rows } = await client.query<string[]>({ text: `EXPLAIN ${sql.text}`, values: [...sql.values], rowMode: 'array' });
      return rows.flat().join('\n');
    };
    const order = { orderBy: [{ field: 'german', dir: 'desc' }] };
    const { query } = prepareQuery({ from: 'w', select: ['id'], ...order }, options);
    expect(await planOf({ where: 'german = "a"' })).to.match(/Index Cond: \(german = 'a'/);
    const page = await planOf({ ...order, cursor: query!.cursorAfter!(['b', '1']) });
    expect(page)
      .to.match(/Index (?:Only )?Scan Backward/)
      .and.to.match(/Index Cond: \(german <= 'b'/);
    expect(page).to.not.contain('Sort');
    await client.query('RESET enable_seqscan; RESET enable_bitmapscan; RESET enable_sort');
  });
});
