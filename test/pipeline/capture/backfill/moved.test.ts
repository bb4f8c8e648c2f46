import { expect } from 'chai';
import { readBack } from '../../../../pipeline/capture/backfill/history.ts';
import { ChangeTracker } from '../../../../pipeline/capture/backfill/change-tracker.ts';
import { Visibility } from '../../../../pipeline/capture/visibility.ts';
import { operatorOf, type Operator } from '../support/backfills.ts';
import { captureFixture, type CaptureFixture } from '../support/fixture.ts';
import { fold, type Row } from '../support/stored-events.ts';

/**
 * Rows with large values that move from behind a copy's place to before it: the stream does not send those values again, and
 * only reading the rows once more brings them into the log.
 */
describe('backfill: rows that have moved behind the chunks', function () {
  this.timeout(90_000);
  let fixture: CaptureFixture;
  let operator: Operator;
  beforeEach(async () => {
    fixture = await captureFixture();
    operator = operatorOf(fixture);
  });
  afterEach(() => fixture.close());

  /** A table `items` of small rows, and behind them rows with a large value; `id` and `n` are SQL for the key and a number. */
  const table = async (type: string, small: number, large: number, bytes: number, key = 'i'): Promise<void> => {
    await fixture.query(`CREATE TABLE items (id ${type} PRIMARY KEY, n int, big text)`);
    await fixture.query('ALTER TABLE items ALTER big SET STORAGE EXTERNAL');
    await fixture.query(`INSERT INTO items SELECT ${key}, i, 's' FROM generate_series(3001, ${3_000 + small}) i`);
    await fixture.query(`INSERT INTO items SELECT ${key}, i, repeat('x', ${bytes}) FROM generate_series(5001, ${5_000 + large}) i`);
    await fixture.query('ANALYZE items');
  };
  const copyingUpTo = async (rows: number, env: Readonly<Record<string, string>> = {}): Promise<void> => {
    await fixture.streaming({ env: { HEADWATER_BACKFILL_CHUNK: '100', ...env }, snapshot: false });
    await operator.ask({ names: ['public.items'], rate: 100 });
    await operator.rows('public.items', rows);
  };
  const logged = async (): Promise<readonly Row[]> => {
    await operator.order('resume', 'public.items', 0);
    await fixture.copied('public.items', 60_000);
    return [...fold(await fixture.settled(60_000), 'public.items').values()];
  };
  const without = (rows: readonly Row[]): readonly unknown[] =>
    rows.filter((row) => typeof row['big'] !== 'string').map((row) => row['id']);

  it('has them whole when they are too large to be read at once', async () => {
    await table('int', 600, 40, 700_000);
    await copyingUpTo(100);
    await fixture.query('UPDATE items SET id = id - 5000 WHERE id > 5000');
    const rows = await logged();
    expect(rows.length).to.equal(640);
    expect(without(rows)).to.deep.equal([]);
  });

  it('has them whole when nothing is left to read and the stream is behind', async () => {
    await table('int', 300, 5, 7_000);
    await fixture.query('CREATE TABLE other (id int PRIMARY KEY, v text)');
    await copyingUpTo(300);
    await operator.order('pause', 'public.items');
    await fixture.query(`INSERT INTO other SELECT i, repeat(md5(i::text), 5) FROM generate_series(1, 60000) i`);
    await fixture.query('UPDATE items SET id = id - 5000 WHERE id > 5000');
    const rows = await logged();
    expect(rows.length).to.equal(305);
    expect(without(rows)).to.deep.equal([]);
  });

  for (const [name, type, text] of [
    ['a domain over bytea', 'address', (n: string) => `decode(lpad(to_hex(${n}), 8, '0'), 'hex')`],
    ['an array of bytea', 'bytea[]', (n: string) => `ARRAY[decode(lpad(to_hex(${n}), 8, '0'), 'hex')]`],
    ['jsonb', 'jsonb', (n: string) => `to_jsonb(lpad((${n})::text, 8, '0'))`],
  ] as const)
    it(`has them whole when their key is ${name}`, async () => {
      await fixture.query('CREATE DOMAIN address AS bytea');
      await table(type, 400, 5, 7_000, text('i'));
      await copyingUpTo(100);
      await fixture.query(`UPDATE items SET id = ${text('n - 5000')} WHERE n > 5000`);
      const rows = await logged();
      expect(rows.length).to.equal(405);
      expect(without(rows)).to.deep.equal([]);
    });

  it('begins anew, and comes to its end, when the table has got another key meanwhile', async () => {
    await table('int', 600, 5, 7_000);
    await copyingUpTo(100);
    await fixture.query('UPDATE items SET id = id - 5000 WHERE id > 5000');
    await fixture.query('ALTER TABLE items DROP CONSTRAINT items_pkey, ADD PRIMARY KEY (n)');
    const rows = await logged();
    // Under the new key: what the log has of the old one is another identity of the rows.
    const byNumber = new Map(rows.map((row) => [row['n'], row]));
    expect(byNumber.size).to.equal(605);
    expect(without([...byNumber.values()])).to.deep.equal([]);
  });

  it('keeps nothing that every later chunk sees when it reads back what has happened while it was paused, but the moved rows', async () => {
    await table('int', 10, 5, 7_000);
    const capture = await fixture.streaming({ snapshot: false });
    for (let i = 0; i < 20; i++) await fixture.query(`UPDATE items SET big = 's' || n WHERE n < 5000`);
    await fixture.query('UPDATE items SET id = id - 5000 WHERE id > 5000');
    const events = await fixture.settled();
    await capture.stop();
    const snapshot = new Visibility(String((await fixture.query('SELECT pg_current_snapshot()::text AS s'))[0]!['s']));
    const tracker = new ChangeTracker();
    tracker.track('public.items');
    const parts = { eventLog: await fixture.log(), subject: 'ev', tracker, signal: new AbortController().signal };
    const items = { schema: 'public', table: 'items', name: 'public.items' };
    const range = { from: events[0]!.seq, to: events.at(-1)!.seq };
    expect(await readBack(parts, items, range, snapshot)).to.equal(true);
    expect(tracker.isQuiet('public.items'), 'no change is kept').to.equal(true);
    expect(tracker.moved('public.items').map(({ key }) => key['id'])).to.deep.equal([1, 2, 3, 4, 5]);
    expect(await readBack(parts, { ...items, table: 'none' }, range, snapshot), 'a table without events').to.equal(true);
  });
});
