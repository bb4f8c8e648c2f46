import { expect } from 'chai';
import { parseCatalog } from '../../../schemas/catalog-file.ts';
import { captureFixture, type CaptureFixture } from './support/fixture.ts';
import { expectWellFormed, fold, type StoredEvent } from './support/stored-events.ts';

function of(events: readonly StoredEvent[], table: string): StoredEvent[] {
  return events.filter((event) => event.table === table);
}

describe('capture: which tables, and what that means for the application', function () {
  let fixture: CaptureFixture;
  beforeEach(async () => {
    fixture = await captureFixture();
  });
  afterEach(() => fixture.close());

  /** The application's own statements, which must work whatever capture does. */
  const change = async (table: string): Promise<void> => {
    await fixture.query(`INSERT INTO ${table} VALUES (100, 'inserted')`);
    await fixture.query(`UPDATE ${table} SET v = 'updated' WHERE id = 100`);
    await fixture.query(`DELETE FROM ${table} WHERE id = 1`);
  };

  const unusable: Readonly<Record<string, string>> = {
    'no key at all': 'CREATE TABLE t (id int, v text)',
    'a deferrable primary key': 'CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, v text)',
    'REPLICA IDENTITY NOTHING': 'CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY NOTHING',
    'a generated column in its primary key':
      'CREATE TABLE t (id int, v text, g int GENERATED ALWAYS AS (abs(id)) STORED, PRIMARY KEY (id, g))',
    'an identity index that is gone': `CREATE TABLE t (id int NOT NULL, v text); CREATE UNIQUE INDEX u ON t (id); ALTER TABLE t REPLICA IDENTITY USING INDEX u; DROP INDEX u`,
  };

  for (const [what, create] of Object.entries(unusable)) {
    it(`leaves a table out that has ${what}, names it once with the ways to include it, and its UPDATE and DELETE work`, async () => {
      await fixture.query(create);
      await fixture.query(`INSERT INTO t VALUES (1, 'one')`);
      const capture = await fixture.streaming();
      await change('t');
      const events = await fixture.settled();
      expect(of(events, 'public.t')).to.deep.equal([]);
      const named = capture.lines.filter(({ msg }) => msg.startsWith('public.t is left out'));
      expect(named.length).to.equal(1);
      expect(named[0]!.msg).to.include('REPLICA IDENTITY FULL').and.to.include('appendOnly: true');
    });

    it(`captures the inserts of a table that has ${what} when the catalogue says appendOnly, and its UPDATE and DELETE work`, async () => {
      await fixture.query(create);
      await fixture.query(`INSERT INTO t VALUES (1, 'one')`);
      const catalog = parseCatalog('tables:\n  public.t: { appendOnly: true }\nothers: true\n', 'test');
      await fixture.streaming({ catalog });
      await change('t');
      await fixture.query('TRUNCATE t');
      const events = of(await fixture.settled(), 'public.t');
      expect(events.map(({ op, after }) => [op, after?.['v']])).to.deep.equal([
        ['read', 'one'],
        ['insert', 'inserted'],
        ['truncate', undefined],
      ]);
      if (what.includes('generated'))
        expect(
          events.filter(({ key }) => key),
          'events with a part of the key',
        ).to.deep.equal([]);
    });
  }

  const usable: Readonly<Record<string, string>> = {
    'a primary key': 'CREATE TABLE t (id int PRIMARY KEY, v text)',
    'the whole row as identity': 'CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY FULL',
    'the primary key’s index as identity': 'CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY USING INDEX t_pkey',
    partitions:
      'CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (50); CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (50) TO (500)',
  };

  for (const [what, create] of Object.entries(usable)) {
    it(`folds to the table when it has ${what}`, async () => {
      await fixture.query(create);
      await fixture.query(`INSERT INTO t SELECT i, 'v' FROM generate_series(1, 20) i`);
      await fixture.streaming();
      await change('t');
      await fixture.query('UPDATE t SET id = id + 200 WHERE id < 5');
      const events = await fixture.settled();
      expectWellFormed(events);
      const folded = fold(events, 'public.t');
      const rows = await fixture.query('SELECT * FROM t');
      expect(folded.size).to.equal(rows.length);
      for (const row of rows) expect(folded.get(JSON.stringify([row['id']]))).to.deep.equal(row);
    });
  }

  it('keeps the rows of inherited tables apart, in the copy as in the stream', async () => {
    await fixture.query('CREATE TABLE parent (id int PRIMARY KEY, v text)');
    await fixture.query('CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent)');
    await fixture.query(`INSERT INTO parent VALUES (1, 'parent')`);
    await fixture.query(`INSERT INTO child VALUES (2, 'child')`);
    await fixture.streaming();
    await fixture.query(`INSERT INTO child VALUES (3, 'child')`);
    const events = await fixture.settled();
    expect(of(events, 'public.parent').map((event) => event.key)).to.deep.equal([{ id: 1 }]);
    expect(of(events, 'public.child').map((event) => event.key)).to.deep.equal([{ id: 2 }, { id: 3 }]);
  });

  it('takes a table in that is new at a start, with its rows', async () => {
    await fixture.query('CREATE TABLE old (id int PRIMARY KEY)');
    const first = await fixture.streaming();
    await fixture.query('CREATE TABLE fresh (id int PRIMARY KEY, v text)');
    await fixture.query(`INSERT INTO fresh SELECT i, 'v' FROM generate_series(1, 2500) i`);
    await fixture.settled();
    await first.stop();
    const capture = await fixture.streaming({ env: { HEADWATER_BACKFILL_CHUNK: '1000' } });
    await fixture.copied('public.fresh');
    await fixture.query(`UPDATE fresh SET v = 'new' WHERE id = 1`);
    const events = await fixture.settled();
    expectWellFormed(events);
    expect(capture.said('these tables are copied by backfill')).to.equal(true);
    expect(fold(events, 'public.fresh').size).to.equal(2_500);
    expect(events.filter((event) => event.mark === 'backfill').map((event) => event.data!['phase'])).to.deep.equal(['begin', 'end']);
    expect(events.some((event) => event.relation === 'public.fresh')).to.equal(true);
  });

  it('copies a table that was dropped and made anew', async () => {
    await fixture.query('CREATE TABLE t (id int PRIMARY KEY, v text)');
    await fixture.query(`INSERT INTO t VALUES (1, 'old')`);
    const first = await fixture.streaming();
    await first.stop();
    await fixture.query('DROP TABLE t');
    await fixture.query('CREATE TABLE t (id int PRIMARY KEY, v text)');
    await fixture.query(`INSERT INTO t VALUES (2, 'new')`);
    await fixture.streaming();
    await fixture.until(
      async () => (await fixture.record.copy('public.t'))?.rows === 1 && (await fixture.record.copy('public.t'))?.state === 'done',
      'the copy',
    );
    expect([...fold(await fixture.settled(), 'public.t').keys()]).to.include('[2]');
  });

  it('says with a mark that earlier rows of a table without primary key cannot be copied when it joins later', async () => {
    await fixture.query('CREATE TABLE old (id int PRIMARY KEY)');
    const first = await fixture.streaming();
    await first.stop();
    await fixture.query('CREATE TABLE t (id int, v text)');
    await fixture.query('ALTER TABLE t REPLICA IDENTITY FULL');
    await fixture.query(`INSERT INTO t VALUES (1, 'before')`);
    await fixture.streaming();
    await fixture.until(async () => (await fixture.record.copy('public.t'))?.state === 'none', 'the note');
    await fixture.query(`INSERT INTO t VALUES (2, 'after')`);
    const events = await fixture.settled();
    expect(of(events, 'public.t').map((event) => event.after!['v'])).to.deep.equal(['after']);
    expect(events.find((event) => event.mark === 'backfill')!.data).to.include({ phase: 'skipped', table: 'public.t' });
  });

  it('puts a transaction of 50,000 rows into the log whole: together, in order, with one last event', async () => {
    await fixture.query('CREATE TABLE t (id int PRIMARY KEY, v text)');
    await fixture.streaming();
    await fixture.query(`INSERT INTO t SELECT i, 'value ' || i FROM generate_series(1, 50000) i`);
    const events = await fixture.settled();
    expectWellFormed(events);
    const inserts = of(events, 'public.t');
    expect(inserts.length).to.equal(50_000);
    expect(inserts.every(({ tx }, i) => tx!.idx === i && tx!.xid === inserts[0]!.tx!.xid)).to.equal(true);
    expect(inserts.filter(({ tx }) => tx!.last).length).to.equal(1);
    expect(inserts.at(-1)!.seq - inserts[0]!.seq).to.equal(49_999);
  });
});
