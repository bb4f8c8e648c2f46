import { expect } from 'chai';
import type { TableEntry } from '../../../schemas/catalog.ts';
import { unnamedEntry } from '../../../schemas/catalog.ts';
import { formatLsn, parseId } from '../../../pipeline/source/position.ts';
import { SourceBench, type BenchOptions, type ReadEvent } from './support/source-bench.ts';

/** What matters of events, in short: operation or type, table, and whichever of the members are there. */
function shown(events: readonly ReadEvent[]): readonly object[] {
  return events.map(({ event }) => {
    const { v: _v, id: _id, at: _at, tx: _tx, type, op, ...rest } = event as Readonly<Record<string, unknown>>;
    return { is: op ?? type, ...rest };
  });
}

/** The same without schema events. */
function changes(events: readonly ReadEvent[]): readonly object[] {
  return shown(events.filter(({ event }) => event.type !== 'schema'));
}

const indexes = (events: readonly ReadEvent[]): readonly number[] => events.map(({ event }) => parseId(event.id).index);
const idx = ({ event }: ReadEvent): number => (event['tx'] as { idx: number }).idx;
const opened: SourceBench[] = [];

async function open(options: BenchOptions = {}): Promise<SourceBench> {
  const bench = await SourceBench.open(options);
  opened.push(bench);
  return bench;
}

describe('Postgres source', () => {
  let bench: SourceBench;

  before(async () => {
    bench = await open();
  });
  after(async () => {
    for (const each of opened) await each.close();
  });

  describe('rows', () => {
    it('are inserted, updated and deleted by their key', async () => {
      const events = await bench.captured(
        'CREATE TABLE plain (id int PRIMARY KEY, name text)',
        `INSERT INTO plain VALUES (1, 'a')`,
        `UPDATE plain SET name = 'b'`,
        'DELETE FROM plain',
      );
      const table = 'public.plain';
      const columns = [
        { name: 'id', type: 'integer', key: true },
        { name: 'name', type: 'text', key: false },
      ];
      expect(shown(events)).to.deep.equal([
        { is: 'schema', relation: table, columns },
        { is: 'insert', table, key: { id: 1 }, after: { id: 1, name: 'a' } },
        { is: 'update', table, key: { id: 1 }, after: { id: 1, name: 'b' } },
        { is: 'delete', table, key: { id: 1 }, before: { id: 1 } },
      ]);
      expect(events.map(({ subject }) => subject)).to.deep.equal([
        'ev._schema.public.plain',
        'ev.public.plain.insert',
        'ev.public.plain.update',
        'ev.public.plain.delete',
      ]);
    });

    it('whose key changes carry the old one in `before`', async () => {
      const events = await bench.captured(
        'CREATE TABLE moved (id int PRIMARY KEY, name text)',
        `INSERT INTO moved VALUES (1, 'a')`,
        'UPDATE moved SET id = 2',
      );
      expect(changes(events)[1]).to.deep.equal({
        is: 'update',
        table: 'public.moved',
        key: { id: 2 },
        after: { id: 2, name: 'a' },
        before: { id: 1 },
      });
    });

    it('carry a composite key in the order of the key, not of the columns', async () => {
      const create = 'CREATE TABLE composite (a int, b text, c int, PRIMARY KEY (c, a))';
      const events = await bench.captured(
        create,
        `INSERT INTO composite VALUES (1, 'x', 3)`,
        'UPDATE composite SET a = 2',
        'DELETE FROM composite',
      );
      const keys = events.slice(1).map(({ raw }) => /"key":\{[^}]*\}/.exec(raw)?.[0]);
      expect(keys).to.deep.equal(['"key":{"c":3,"a":1}', '"key":{"c":3,"a":2}', '"key":{"c":3,"a":2}']);
      expect(changes(events)[1]).to.deep.include({ before: { a: 1, c: 3 } });
      await bench.client.query(`INSERT INTO composite VALUES (5, 'y', 6)`);
      expect((await bench.copy('public', 'composite'))[0]!.raw).to.contain('"key":{"c":6,"a":5}');
      await bench.read();
    });

    it('have a key of the columns that make rows unique, not of those that an index carries along', async () => {
      const create = 'CREATE TABLE carried (id int, name text NOT NULL, PRIMARY KEY (id) INCLUDE (name))';
      const events = await bench.captured(
        create,
        `INSERT INTO carried VALUES (1, 'a')`,
        'ALTER TABLE carried REPLICA IDENTITY FULL',
        `INSERT INTO carried VALUES (2, 'b')`,
      );
      const copied = await bench.copy('public', 'carried');
      expect([...changes(events), ...changes(copied)].map((event) => (event as { key: unknown }).key)).to.deep.equal([
        { id: 1 },
        { id: 2 },
        { id: 1 },
        { id: 2 },
      ]);
      expect(events[0]!.event['columns']).to.deep.equal([
        { name: 'id', type: 'integer', key: true },
        { name: 'name', type: 'text', key: false },
      ]);
    });

    it('with REPLICA IDENTITY FULL carry the old row, and still the key of the primary key', async () => {
      const events = await bench.captured(
        'CREATE TABLE whole (id int PRIMARY KEY, name text)',
        'ALTER TABLE whole REPLICA IDENTITY FULL',
        `INSERT INTO whole VALUES (1, 'a')`,
        `UPDATE whole SET name = 'b'`,
        'DELETE FROM whole',
      );
      expect(changes(events).slice(1)).to.deep.equal([
        { is: 'update', table: 'public.whole', key: { id: 1 }, after: { id: 1, name: 'b' }, before: { id: 1, name: 'a' } },
        { is: 'delete', table: 'public.whole', key: { id: 1 }, before: { id: 1, name: 'b' } },
      ]);
    });

    it('without a primary key have no key', async () => {
      const events = await bench.captured(
        'CREATE TABLE keyless (id int, name text)',
        'ALTER TABLE keyless REPLICA IDENTITY FULL',
        `INSERT INTO keyless VALUES (1, NULL)`,
        'DELETE FROM keyless',
      );
      expect(changes(events)).to.deep.equal([
        { is: 'insert', table: 'public.keyless', after: { id: 1, name: null } },
        { is: 'delete', table: 'public.keyless', before: { id: 1, name: null } },
      ]);
    });

    it('identified by another unique index carry that in `before`, and the key where it is known', async () => {
      const events = await bench.captured(
        'CREATE TABLE indexed (id int PRIMARY KEY, code text NOT NULL UNIQUE, name text)',
        'ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_code_key',
        `INSERT INTO indexed VALUES (1, 'x', 'a')`,
        `UPDATE indexed SET code = 'y'`,
        'DELETE FROM indexed',
      );
      expect(changes(events)).to.deep.equal([
        { is: 'insert', table: 'public.indexed', key: { id: 1 }, after: { id: 1, code: 'x', name: 'a' } },
        { is: 'update', table: 'public.indexed', key: { id: 1 }, after: { id: 1, code: 'y', name: 'a' }, before: { code: 'x' } },
        { is: 'delete', table: 'public.indexed', before: { code: 'y' } },
      ]);
    });

    it('name columns whose large value was not resent, and fill them from the old row where there is one', async () => {
      const big = `(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300) i)`;
      const events = await bench.captured(
        'CREATE TABLE toasted (id int PRIMARY KEY, n int, big text, doc jsonb)',
        `INSERT INTO toasted VALUES (1, 0, ${big}, jsonb_build_object('x', ${big}))`,
        'UPDATE toasted SET n = 1',
        'ALTER TABLE toasted REPLICA IDENTITY FULL',
        'UPDATE toasted SET n = 2',
        `UPDATE toasted SET big = 'small'`,
      );
      const [inserted, unchanged, filled, replaced] = changes(events) as readonly { after: { big: string; doc: object }; before: object }[];
      const { big: text, doc } = inserted!.after;
      expect(text).to.have.length(9_600);
      const common = { is: 'update', table: 'public.toasted', key: { id: 1 } };
      expect(unchanged).to.deep.equal({ ...common, after: { id: 1, n: 1 }, unchanged: ['big', 'doc'] });
      expect(filled).to.deep.equal({ ...common, after: { id: 1, n: 2, big: text, doc }, before: { id: 1, n: 1, big: text, doc } });
      expect(replaced).to.deep.equal({ ...common, after: { id: 1, n: 2, big: 'small', doc }, before: { id: 1, n: 2, big: text, doc } });
    });

    it('tell JSON null from SQL NULL, of the row that is', async () => {
      const events = await bench.captured(
        'CREATE TABLE documents (id int PRIMARY KEY, a jsonb, b json, c jsonb)',
        'ALTER TABLE documents REPLICA IDENTITY FULL',
        `INSERT INTO documents VALUES (1, 'null', ' null ', NULL)`,
        `UPDATE documents SET a = '1', c = 'null'`,
        `DELETE FROM documents`,
      );
      expect(changes(events).map((event) => (event as { jsonNull?: unknown }).jsonNull)).to.deep.equal([
        ['a', 'b'],
        ['b', 'c'],
        ['b', 'c'],
      ]);
    });

    it('have no generated columns, in the stream or in a copy', async () => {
      const events = await bench.captured(
        'CREATE TABLE made (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, n text)',
        `INSERT INTO made (id, n) VALUES (1, 'a')`,
      );
      const after = { id: 1, n: 'a' };
      expect(changes(events)).to.deep.equal([{ is: 'insert', table: 'public.made', key: { id: 1 }, after }]);
      expect(changes(await bench.copy('public', 'made'))).to.deep.equal([{ is: 'read', table: 'public.made', key: { id: 1 }, after }]);
      expect(JSON.stringify(events[0]!.event['columns'])).not.to.contain('twice');
    });

    it('of a domain are described by its base type, as their values are', async () => {
      const events = await bench.captured(
        'CREATE DOMAIN wei AS numeric(78,0)',
        'CREATE DOMAIN balance AS wei',
        'CREATE TABLE held (id int PRIMARY KEY, n balance, name varchar(9))',
        `INSERT INTO held VALUES (1, 5, 'a')`,
      );
      expect(events[0]!.event['columns']).to.deep.equal([
        { name: 'id', type: 'integer', key: true },
        { name: 'n', type: 'numeric(78,0)', key: false },
        { name: 'name', type: 'character varying(9)', key: false },
      ]);
    });

    it('of a partitioned table come under the name of its root, whichever partition they are in', async () => {
      const events = await bench.captured(
        'CREATE TABLE parted (id int, region text, n int, PRIMARY KEY (region, id)) PARTITION BY LIST (region)',
        `CREATE TABLE parted_eu PARTITION OF parted FOR VALUES IN ('eu')`,
        // Columns in another order than the root has them.
        'CREATE TABLE parted_us (n int, region text NOT NULL, id int NOT NULL)',
        `ALTER TABLE parted ATTACH PARTITION parted_us FOR VALUES IN ('us')`,
        `INSERT INTO parted VALUES (1, 'eu', 10), (2, 'us', 20)`,
        `UPDATE parted SET n = n + 1`,
        `UPDATE parted SET region = 'us' WHERE id = 1`,
        `INSERT INTO parted_us VALUES (30, 'us', 3)`,
        'TRUNCATE parted',
      );
      const table = 'public.parted';
      expect(changes(events)).to.deep.equal([
        { is: 'insert', table, key: { region: 'eu', id: 1 }, after: { id: 1, region: 'eu', n: 10 } },
        { is: 'insert', table, key: { region: 'us', id: 2 }, after: { id: 2, region: 'us', n: 20 } },
        { is: 'update', table, key: { region: 'eu', id: 1 }, after: { id: 1, region: 'eu', n: 11 } },
        { is: 'update', table, key: { region: 'us', id: 2 }, after: { id: 2, region: 'us', n: 21 } },
        { is: 'delete', table, key: { region: 'eu', id: 1 }, before: { id: 1, region: 'eu' } },
        { is: 'insert', table, key: { region: 'us', id: 1 }, after: { id: 1, region: 'us', n: 11 } },
        { is: 'insert', table, key: { region: 'us', id: 3 }, after: { id: 3, region: 'us', n: 30 } },
        { is: 'truncate', table },
      ]);
      expect(events.filter(({ event }) => event.type === 'schema')).to.have.length(1);
    });
  });

  describe('truncates', () => {
    it('of several tables are one event each, in one transaction', async () => {
      const events = await bench.captured(
        'CREATE TABLE one (id int PRIMARY KEY)',
        'CREATE TABLE two (id int PRIMARY KEY)',
        'TRUNCATE one, two',
      );
      const truncates = events.filter(({ event }) => event['op'] === 'truncate');
      expect(shown(truncates)).to.deep.equal([
        { is: 'truncate', table: 'public.one' },
        { is: 'truncate', table: 'public.two' },
      ]);
      expect(truncates.map(idx)).to.deep.equal([0, 1]);
      expect(indexes(events)).to.deep.equal([0, 1, 2, 3]);
    });
  });

  describe('schema events', () => {
    it('stand in front of the first row of a table, under an even index, and come again only when columns change', async () => {
      const first = await bench.captured(
        'CREATE TABLE first (id int PRIMARY KEY)',
        'CREATE TABLE second (id int PRIMARY KEY)',
        'BEGIN',
        'INSERT INTO first VALUES (1)',
        'INSERT INTO second VALUES (1), (2)',
        'COMMIT',
      );
      expect(first.map(({ event }) => [event.type, event['relation'] ?? event['table']].map(String).join(' '))).to.deep.equal([
        'schema public.first',
        'row public.first',
        'schema public.second',
        'row public.second',
        'row public.second',
      ]);
      expect(indexes(first)).to.deep.equal([0, 1, 2, 3, 5]);
      expect(first.map(idx)).to.deep.equal([0, 0, 1, 1, 2]);
      const next = await bench.captured('INSERT INTO first VALUES (2)', 'INSERT INTO second VALUES (3)');
      expect(next.map(({ event }) => event.type)).to.deep.equal(['row', 'row']);
    });

    it('follow DDL in the middle of a transaction, each row under the columns it was written with', async () => {
      const events = await bench.captured(
        'CREATE TABLE changing (id int PRIMARY KEY, gone text)',
        'BEGIN',
        `INSERT INTO changing VALUES (1, 'a')`,
        'ALTER TABLE changing ADD COLUMN more numeric(10,2) DEFAULT 1.5',
        `INSERT INTO changing VALUES (2, 'b', 2)`,
        'ALTER TABLE changing DROP COLUMN gone',
        'ALTER TABLE changing RENAME COLUMN more TO renamed',
        'ALTER TABLE changing ALTER COLUMN renamed TYPE numeric(10,3)',
        'INSERT INTO changing VALUES (3, 3)',
        'COMMIT',
        'ALTER TABLE changing ALTER COLUMN id TYPE int8',
        'INSERT INTO changing VALUES (4, 4)',
      );
      const id = { name: 'id', type: 'integer', key: true };
      const relation = 'public.changing';
      const table = relation;
      expect(shown(events)).to.deep.equal([
        { is: 'schema', relation, columns: [id, { name: 'gone', type: 'text', key: false }] },
        { is: 'insert', table, key: { id: 1 }, after: { id: 1, gone: 'a' } },
        {
          is: 'schema',
          relation,
          columns: [id, { name: 'gone', type: 'text', key: false }, { name: 'more', type: 'numeric(10,2)', key: false }],
        },
        { is: 'insert', table, key: { id: 2 }, after: { id: 2, gone: 'b', more: '2.00' } },
        { is: 'schema', relation, columns: [id, { name: 'renamed', type: 'numeric(10,3)', key: false }] },
        { is: 'insert', table, key: { id: 3 }, after: { id: 3, renamed: '3.000' } },
        {
          is: 'schema',
          relation,
          columns: [
            { ...id, type: 'bigint' },
            { name: 'renamed', type: 'numeric(10,3)', key: false },
          ],
        },
        { is: 'insert', table, key: { id: '4' }, after: { id: '4', renamed: '4.000' } },
      ]);
      expect(indexes(events)).to.deep.equal([0, 1, 2, 3, 4, 5, 0, 1]);
    });

    it('do not stop the stream when the table, or a type of it, is gone by the time it is read', async () => {
      const events = await bench.captured(
        `CREATE TYPE passing AS ENUM ('a')`,
        'CREATE TABLE dropped (id int PRIMARY KEY, p passing, d date)',
        `INSERT INTO dropped VALUES (1, 'a', '2016-11-04')`,
        'DROP TABLE dropped',
        'DROP TYPE passing',
      );
      expect(changes(events)).to.deep.equal([
        { is: 'insert', table: 'public.dropped', key: { id: 1 }, after: { id: 1, p: 'a', d: '2016-11-04' } },
      ]);
    });
  });

  describe('logical messages', () => {
    it('of a transaction are numbered with its rows', async () => {
      const events = await bench.captured(
        'CREATE TABLE beside (id int PRIMARY KEY)',
        'BEGIN',
        `SELECT pg_logical_emit_message(true, 'my.prefix', 'grüße "1"')`,
        'INSERT INTO beside VALUES (1)',
        `SELECT pg_logical_emit_message(true, '', E'\\\\x00ff80'::bytea)`,
        'COMMIT',
      );
      expect(shown(events.filter(({ event }) => event.type === 'message'))).to.deep.equal([
        { is: 'message', prefix: 'my.prefix', content: 'grüße "1"', encoding: 'utf8' },
        { is: 'message', prefix: '', content: 'AP+A', encoding: 'base64' },
      ]);
      expect(events.map(({ subject }) => subject)).to.deep.equal([
        'ev._message.my%2Eprefix',
        'ev._schema.public.beside',
        'ev.public.beside.insert',
        'ev._message._',
      ]);
      expect(indexes(events)).to.deep.equal([1, 2, 3, 5]);
      expect(events.map(idx)).to.deep.equal([0, 1, 1, 2]);
    });

    it('outside transactions have an id from where they are in the WAL, and no tx', async () => {
      const { rows } = await bench.client.query<{ end: string }>(`SELECT pg_logical_emit_message(false, 'loose', 'x')::text AS end`);
      // Written late: something that commits brings it along.
      const events = await bench.captured('CREATE TABLE after_loose (id int PRIMARY KEY)', 'INSERT INTO after_loose VALUES (1)');
      const [loose] = events;
      expect(loose!.event).to.deep.include({ type: 'message', prefix: 'loose', content: 'x' });
      expect(loose!.event).not.to.have.property('tx');
      const { lsn, index } = parseId(loose!.event.id);
      expect([formatLsn(lsn + 1n), index]).to.deep.equal([rows[0]!.end, 1]);
      expect(events.map(({ event }) => event.type)).to.deep.equal(['message', 'schema', 'row']);
    });

    it('of a rolled-back transaction do not come; those outside it do', async () => {
      const events = await bench.captured(
        'BEGIN',
        `SELECT pg_logical_emit_message(true, 'in', '1')`,
        `SELECT pg_logical_emit_message(false, 'out', '2')`,
        'ROLLBACK',
      );
      expect(events.map(({ event }) => event['prefix'])).to.deep.equal(['out']);
    });

    it('with a prefix of any length do not wedge the log: their subject stays one that NATS takes', async () => {
      const events = await bench.captured(
        `SELECT pg_logical_emit_message(true, repeat('é.', 5000), 'x'), pg_logical_emit_message(true, repeat('é.', 5001), 'y')`,
      );
      expect(events.map(({ event }) => (event['prefix'] as string).length)).to.deep.equal([10_000, 10_002]);
      expect(events.every(({ subject }) => subject.length < 1_000)).to.equal(true);
      expect(new Set(events.map(({ subject }) => subject)).size).to.equal(2);
    });

    it('of the clock are ticks', async () => {
      const events = await bench.captured(`SELECT pg_logical_emit_message(true, 'headwater.tick', '')`);
      expect(shown(events)).to.deep.equal([{ is: 'tick' }]);
      expect(events[0]!.subject).to.equal('ev._tick');
    });
  });

  describe('the catalogue', () => {
    const entry = (more: Partial<TableEntry>): TableEntry => ({ ...unnamedEntry, channel: 'c', ...more });

    it('gives types, leaves out columns and tables; what is left out still counts', async () => {
      const catalogued = await open({
        setUp: [
          'CREATE TABLE prices (id int PRIMARY KEY, secret text, price numeric)',
          'CREATE TABLE hidden (id int PRIMARY KEY)',
          'ALTER TABLE prices REPLICA IDENTITY FULL',
        ],
        catalog: { tables: new Map([['public.prices', entry({ type: 'price_update', exclude: ['secret'] })]]), exclude: ['public.hid*'] },
      });
      const events = await catalogued.captured(
        'BEGIN',
        'INSERT INTO hidden VALUES (1)',
        `INSERT INTO prices VALUES (1, 'hush', 1.10)`,
        'INSERT INTO hidden VALUES (2)',
        `UPDATE prices SET secret = 'hush2'`,
        'INSERT INTO hidden VALUES (3)',
        'COMMIT',
      );
      const table = 'public.prices';
      expect(shown(events)).to.deep.equal([
        {
          is: 'schema',
          relation: table,
          columns: [
            { name: 'id', type: 'integer', key: true },
            { name: 'price', type: 'numeric', key: false },
          ],
        },
        { is: 'insert', table, key: { id: 1 }, after: { id: 1, price: '1.10' } },
        { is: 'update', table, key: { id: 1 }, after: { id: 1, price: '1.10' }, before: { id: 1, price: '1.10' } },
      ]);
      expect(events.map(({ event }) => event.type)).to.deep.equal(['schema', 'price_update', 'price_update']);
      expect(events.map(idx)).to.deep.equal([1, 1, 3]);
      expect(events.map(({ raw }) => raw).join('')).not.to.contain('hush');
      expect((await catalogued.copy('public', 'prices'))[0]!.raw).not.to.contain('hush');
    });
  });

  describe('events that are too large', () => {
    const eventLimit = 20_000;
    let small: SourceBench;
    const sized = (event: ReadEvent): number => event.data.length;

    before(async () => {
      small = await open({ eventLimit });
    });

    it('lose their largest columns, by name, and keep key and rest', async () => {
      const create = 'CREATE TABLE large (id int PRIMARY KEY, a text, b text, c text)';
      const events = await small.captured(
        create,
        `INSERT INTO large VALUES (1, repeat('a', 15000), repeat('b', 18000), 'c')`,
        `INSERT INTO large VALUES (2, repeat('a', 30000), repeat(E'\\n', 9990), 'c')`,
        `INSERT INTO large VALUES (3, 'a', repeat('b', 17000), 'c')`,
      );
      const table = 'public.large';
      expect(changes(events)).to.deep.equal([
        { is: 'insert', table, key: { id: 1 }, after: { id: 1, a: 'a'.repeat(15_000), c: 'c' }, omitted: ['b'] },
        { is: 'insert', table, key: { id: 2 }, after: { id: 2, c: 'c' }, omitted: ['a', 'b'] },
        { is: 'insert', table, key: { id: 3 }, after: { id: 3, a: 'a', b: 'b'.repeat(17_000), c: 'c' } },
      ]);
      expect(Math.max(...events.map(sized))).to.be.at.most(eventLimit);
      expect(changes(await small.copy('public', 'large')).map((event) => (event as { omitted?: unknown }).omitted)).to.deep.equal([
        ['b'],
        ['a', 'b'],
        undefined,
      ]);
    });

    it('fit also when many columns must go, whose names take room themselves', async () => {
      const names = Array.from({ length: 300 }, (_, i) => `a_rather_long_name_of_a_column_as_people_have_them_number_${i}`);
      await small.captured(`CREATE TABLE wide (id int PRIMARY KEY, ${names.map((name) => `${name} text`).join(', ')})`);
      const events: ReadEvent[] = [];
      for (const size of [10, 30, 60, 100, 300])
        events.push(...(await small.captured(`INSERT INTO wide VALUES (${size}, ${names.map(() => `repeat('x', ${size})`).join(', ')})`)));
      for (const event of events.filter((each) => each.event.type === 'row')) {
        const { id } = event.event['key'] as { id: number };
        expect(sized(event), `rows of ${id}`).to.be.at.most(eventLimit);
      }
    });

    it('fit also when the old row is as large as the new one', async () => {
      const events = await small.captured(
        'CREATE TABLE twofold (id int PRIMARY KEY, a text, b text)',
        'ALTER TABLE twofold REPLICA IDENTITY FULL',
        `INSERT INTO twofold VALUES (1, repeat('a', 11000), 'b')`,
        `UPDATE twofold SET b = 'c'`,
        'DELETE FROM twofold',
      );
      const [, update, removal] = changes(events);
      expect(update).to.deep.equal({
        is: 'update',
        table: 'public.twofold',
        key: { id: 1 },
        after: { id: 1, b: 'c' },
        before: { id: 1, b: 'b' },
        omitted: ['a'],
      });
      expect(removal).to.deep.equal({
        is: 'delete',
        table: 'public.twofold',
        key: { id: 1 },
        before: { id: 1, a: 'a'.repeat(11_000), b: 'c' },
      });
      expect(Math.max(...events.map(sized))).to.be.at.most(eventLimit);
    });

    it('are messages without their content', async () => {
      const events = await small.captured(
        `SELECT pg_logical_emit_message(true, 'p', repeat('x', 30000))`,
        `SELECT pg_logical_emit_message(true, 'p', decode(repeat('ff', 15000), 'hex'))`,
        `SELECT pg_logical_emit_message(true, 'p', repeat('x', 15000))`,
      );
      expect(shown(events)).to.deep.equal([
        { is: 'message', prefix: 'p', omitted: ['content'], encoding: 'utf8' },
        { is: 'message', prefix: 'p', omitted: ['content'], encoding: 'base64' },
        { is: 'message', prefix: 'p', content: 'x'.repeat(15_000), encoding: 'utf8' },
      ]);
    });
  });
});
