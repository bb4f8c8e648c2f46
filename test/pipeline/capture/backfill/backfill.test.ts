import { once } from 'node:events';
import { expect } from 'chai';
import { connectPostgres, type PgClient } from '../../../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import { startCli } from '../../../cli/support/run-cli.ts';
import { captureFixture, ownServers, type CaptureFixture } from '../support/fixture.ts';
import { Random } from '../support/random.ts';
import { expectWellFormed, fold, type Row, type StoredEvent } from '../support/stored-events.ts';

const seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

/** Asks for the copy of a table, as the command line does. */
async function askForCopy(fixture: CaptureFixture, table: string): Promise<void> {
  const [row] = await fixture.query('SELECT $1::regclass::oid::int8::float8 AS oid', [table]);
  await fixture.record.putCopy({ table, oid: Number(row!['oid']), state: 'pending', rows: 0 });
}

/** The log tells the table exactly as it is. */
async function expectSame(fixture: CaptureFixture, events: readonly StoredEvent[], table: string): Promise<void> {
  const rows = await fixture.query(`SELECT * FROM ${table}`);
  const folded = fold(events, table);
  const different = rows.filter((row) => JSON.stringify(folded.get(JSON.stringify([row['id']]))) !== JSON.stringify(row));
  const ids = new Set(rows.map((row) => JSON.stringify([row['id']])));
  const ghosts = [...folded.keys()].filter((key) => !ids.has(key));
  const shown = (row: Row): string => `table ${JSON.stringify(row)}, log ${JSON.stringify(folded.get(JSON.stringify([row['id']])))}`;
  expect(different.slice(0, 3).map(shown), `of ${rows.length} rows ${different.length} differ (seed ${seed})`).to.deep.equal([]);
  expect(ghosts.slice(0, 3), `rows of the log that are not in the table (seed ${seed})`).to.deep.equal([]);
}

describe('capture: backfill beside the stream', function () {
  let fixture: CaptureFixture;
  beforeEach(async () => {
    fixture = await captureFixture();
  });
  afterEach(() => fixture.close());

  /** Changes rows of `items` without end: values, keys, deletes, inserts, now and then all of them at once. */
  const churn = async (client: PgClient, random: Random, truncates: boolean, stop: AbortSignal): Promise<number> => {
    let changes = 0;
    for (; !stop.aborted; changes++) {
      const id = random.int(1, 2_500);
      const statements: readonly (readonly [string, ...unknown[]])[] = [
        ['UPDATE items SET v = $1 WHERE id = $2', `update ${changes}`, id],
        ['UPDATE items SET v = $1 WHERE id BETWEEN $2 AND $2::int + 30', `updates ${changes}`, id],
        [
          'UPDATE items SET id = 1 + (id + 1100) % 2500 WHERE id = $1 AND NOT EXISTS (SELECT FROM items i WHERE i.id = 1 + (items.id + 1100) % 2500)',
          id,
        ],
        ['DELETE FROM items WHERE id = $1', id],
        ['INSERT INTO items VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET v = excluded.v', id, `insert ${changes}`],
      ];
      const [text, ...values] = random.pick(statements);
      if (truncates && random.chance(0.0008)) await client.query('TRUNCATE items');
      else await client.query(text, values).catch(() => undefined);
    }
    return changes;
  };

  for (const truncates of [false, true]) {
    it(`equals the table at the end, with updates, deletes, inserts${truncates ? ', truncates' : ''} and changed keys all the while`, async () => {
      const random = new Random(seed);
      const first = await fixture.streaming();
      await first.stop();
      await fixture.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
      await fixture.query(`INSERT INTO items SELECT i, 'v' || i FROM generate_series(1, 2500) i`);
      const stop = new AbortController();
      const clients = [await fixture.connect(), await fixture.connect(), await fixture.connect()];
      const churning = clients.map((client) => churn(client, random, truncates, stop.signal));
      await fixture.streaming({ env: { HEADWATER_BACKFILL_CHUNK: '100' } });
      await fixture.copied('public.items');
      await askForCopy(fixture, 'public.items');
      await fixture.copied('public.items');
      stop.abort();
      await Promise.all(churning);
      const events = await fixture.settled();
      expectWellFormed(events);
      await expectSame(fixture, events, 'public.items');
    }).timeout(60_000);
  }

  it('copies all rows although the table is rewritten meanwhile', async () => {
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
    await fixture.query(`INSERT INTO items SELECT i, 'v' || i FROM generate_series(1, 4000) i`);
    await fixture.streaming({ env: { HEADWATER_BACKFILL_CHUNK: '100' }, snapshot: false });
    await askForCopy(fixture, 'public.items');
    await fixture.until(async () => ((await fixture.record.copy('public.items'))?.rows ?? 0) > 500, 'some chunks');
    // To a snapshot that is older than the rewriting, the table looks empty.
    const application = await fixture.connect();
    await application.query('BEGIN');
    await application.query('ALTER TABLE items ALTER id TYPE bigint');
    await new Promise((resolve) => setTimeout(resolve, 700));
    await application.query('COMMIT');
    await fixture.copied('public.items');
    const events = await fixture.settled();
    expect(fold(events, 'public.items').size).to.equal(4_000);
  });

  it('goes on with the columns that there are when one is dropped and one is added meanwhile', async () => {
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, v text, old text)');
    await fixture.query(`INSERT INTO items SELECT i, 'v' || i, 'old' FROM generate_series(1, 6000) i`);
    await fixture.streaming({ env: { HEADWATER_BACKFILL_CHUNK: '100' }, snapshot: false });
    await askForCopy(fixture, 'public.items');
    await fixture.until(async () => ((await fixture.record.copy('public.items'))?.rows ?? 0) > 500, 'some chunks');
    await fixture.query(`ALTER TABLE items DROP COLUMN old, ADD COLUMN fresh int DEFAULT 7`);
    await fixture.copied('public.items');
    const events = await fixture.settled();
    const reads = events.filter((event) => event.op === 'read');
    expect(reads.length).to.equal(6_000);
    expect(reads.at(-1)!.after).to.deep.equal({ id: 6_000, v: 'v6000', fresh: 7 });
    const schemas = events.filter((event) => event.relation === 'public.items');
    expect(schemas.length, 'the new columns are announced').to.equal(2);
    expect(reads.filter((event) => 'fresh' in event.after!).every((event) => event.seq > schemas[1]!.seq)).to.equal(true);
  });

  it('puts nothing into a transaction that the log ended in when capture was killed', async () => {
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
    await fixture.query('CREATE TABLE large (id int PRIMARY KEY, v text)');
    await fixture.query(`INSERT INTO items SELECT i, 'v' FROM generate_series(1, 500) i`);
    const env = {
      DATABASE_URL: fixture.databaseUrl,
      NATS_URL: fixture.natsUrls.capture,
      REDIS_URL: 'redis://127.0.0.1:1',
      HEADWATER_SLOT: fixture.slot,
      HEADWATER_ADMIN_PORT: '0',
    };
    const child = startCli(['run', 'capture'], env);
    fixture.onClose(() => void child.kill('SIGKILL'));
    const lastEvent = async (): Promise<StoredEvent | undefined> => {
      const last = await (await fixture.log().catch(() => undefined))?.last();
      return last && (JSON.parse(Buffer.from(last.data).toString('utf8')) as StoredEvent);
    };
    const rows = 40_000;
    await fixture.until(
      async () =>
        (await fixture.query('SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1 AND active', [fixture.slot])).length > 0 &&
        (await fixture.events().catch(() => [])).some((event) => event.type === 'tick'),
      'capture to stream',
    );
    await fixture.query(`INSERT INTO large SELECT i, 'v' FROM generate_series(1, ${rows}) i`);
    await fixture.until(async () => (await lastEvent())?.table === 'public.large', 'the transaction to be on its way');
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect((await lastEvent())!.tx!.last, 'killed within the transaction').to.equal(undefined);
    await askForCopy(fixture, 'public.items');
    await fixture.streaming();
    await fixture.copied('public.items');
    const events = await fixture.settled();
    expectWellFormed(events);
    expect(events.filter((event) => event.op === 'insert').length).to.equal(rows);
  });

  it('completes a snapshot that was interrupted by a kill', async () => {
    await fixture.query('CREATE TABLE a (id int PRIMARY KEY, v text)');
    await fixture.query('CREATE TABLE b (id int PRIMARY KEY, v text)');
    for (const table of ['a', 'b'])
      await fixture.query(`INSERT INTO ${table} SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 15000) i`);
    const env = {
      DATABASE_URL: fixture.databaseUrl,
      NATS_URL: fixture.natsUrls.capture,
      REDIS_URL: 'redis://127.0.0.1:1',
      HEADWATER_SLOT: fixture.slot,
      HEADWATER_ADMIN_PORT: '0',
    };
    const child = startCli(['run', 'capture'], env);
    fixture.onClose(() => void child.kill('SIGKILL'));
    await fixture.until(
      async () => ((await (await fixture.log().catch(() => undefined))?.bounds())?.messages ?? 0) > 5_000,
      'some rows to be copied',
    );
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect((await fixture.record.copy('public.b'))!.state).to.equal('pending');
    await fixture.query(`UPDATE a SET v = 'changed' WHERE id % 2 = 0`);
    await fixture.query(`DELETE FROM b WHERE id % 3 = 0`);
    await fixture.streaming();
    await fixture.copied('public.a');
    await fixture.copied('public.b');
    const events = await fixture.settled();
    expectWellFormed(events);
    for (const table of ['a', 'b']) await expectSame(fixture, events, `public.${table}`);
  });

  it('copies all rows of a table that is rewritten between the snapshot and its copy', async () => {
    await fixture.query('CREATE TABLE a (id int PRIMARY KEY, v text)');
    await fixture.query('CREATE TABLE b (id int PRIMARY KEY, v text)');
    await fixture.query(`INSERT INTO a SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 30000) i`);
    await fixture.query(`INSERT INTO b SELECT i, 'v' FROM generate_series(1, 100) i`);
    fixture.start();
    await fixture.until(
      async () => ((await (await fixture.log().catch(() => undefined))?.bounds())?.messages ?? 0) > 1_000,
      'the copy of a to be on its way',
    );
    expect((await fixture.record.copy('public.b'))!.state).to.equal('pending');
    await fixture.query('ALTER TABLE b ALTER id TYPE bigint');
    await fixture.copied('public.b');
    expect(fold(await fixture.settled(), 'public.b').size).to.equal(100);
  });

  it('stops at once although it waits for an old transaction to make its slot', async () => {
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
    const application = await fixture.connect();
    await application.query('BEGIN');
    await application.query(`INSERT INTO items VALUES (1, 'open')`);
    const capture = fixture.start();
    await fixture.until(
      async () => (await fixture.query('SELECT FROM pg_replication_slots WHERE slot_name = $1', [fixture.slot])).length > 0,
      'the slot to be begun',
    );
    const asked = performance.now();
    await capture.stop();
    expect(performance.now() - asked).to.be.lessThan(5_000);
    await application.query('COMMIT');
    await fixture.streaming();
    const events = await fixture.settled();
    expect(fold(events, 'public.items').size).to.equal(1);
  });
});

describe('capture: backfill beside commits that wait for a standby', function () {
  let fixture: CaptureFixture;
  let databaseUrl: string;
  let databases = 0;
  const cleanups: (() => Promise<unknown> | void)[] = [];
  before(async () => {
    const { services } = await ownServers({ postgres: true }, (cleanup) => void cleanups.push(cleanup));
    databaseUrl = services.databaseUrl!;
  });
  after(async () => {
    for (const cleanup of cleanups) await cleanup();
  });
  beforeEach(async () => {
    const server = await connectPostgres(databaseUrl, 'test', silentLogger());
    const url = new URL(databaseUrl);
    url.pathname = `/test_${++databases}`;
    await server.query(`CREATE DATABASE test_${databases}`);
    await server.end();
    fixture = await captureFixture({ databaseUrl: url.toString() });
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
    await fixture.query(`INSERT INTO items SELECT i, 'old' FROM generate_series(1, 1000) i`);
  });
  afterEach(async () => {
    await standby('');
    await fixture.close();
  });

  const standby = async (name: string): Promise<void> => {
    await fixture.query(`ALTER SYSTEM SET synchronous_standby_names = '${name}'`);
    await fixture.query('SELECT pg_reload_conf()');
    await fixture.until(
      async () => (await fixture.query('SHOW synchronous_standby_names'))[0]!['synchronous_standby_names'] === name,
      'the setting',
    );
  };

  /** Commits that are durable here, and streamed, but visible to nobody until a standby has them. */
  const hang = async (...statements: readonly string[]): Promise<{ released: Promise<unknown> }> => {
    const clients = await Promise.all(statements.map(() => fixture.connect()));
    const released = Promise.all(clients.map((client, i) => client.query(statements[i]!)));
    await fixture.until(
      async () => (await fixture.query(`SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)).length === statements.length,
      'the commits to wait',
    );
    return { released };
  };

  const hanging = [
    `UPDATE items SET v = 'new' WHERE id = 1`,
    `UPDATE items SET id = 5002 WHERE id = 2`,
    `DELETE FROM items WHERE id = 3`,
    `INSERT INTO items VALUES (5003, 'new')`,
  ];

  const expectNewest = (events: readonly StoredEvent[]): void => {
    const rows = fold(events, 'public.items');
    const values = [1, 2, 3, 5002, 5003].map((id) => rows.get(`[${id}]`)?.['v']);
    expect(values).to.deep.equal(['new', undefined, undefined, 'old', 'new']);
    expect(rows.size).to.equal(1_000);
  };

  it('does not log a row as it was before a commit that is in the log already', async () => {
    await fixture.streaming({ env: { HEADWATER_BACKFILL_CHUNK: '100' } });
    await fixture.settled();
    await standby('absent');
    const { released } = await hang(...hanging);
    await fixture.until(
      async () => (await fixture.events()).filter((event) => event.tx && event.table).length === 4,
      'the changes to be logged',
    );
    expect((await fixture.query('SELECT v FROM items WHERE id = 1'))[0]!['v'], 'not visible yet').to.equal('old');
    await askForCopy(fixture, 'public.items');
    await fixture.copied('public.items');
    expectNewest(await fixture.events());
    await standby('');
    await released;
    await expectSame(fixture, await fixture.settled(), 'public.items');
  });

  it('logs a row whole of which such a commit has brought only a part', async () => {
    await fixture.query('ALTER TABLE items ADD big text');
    await fixture.query('ALTER TABLE items ALTER big SET STORAGE EXTERNAL');
    await fixture.query(`UPDATE items SET big = repeat('large ', 500)`);
    await fixture.streaming({ env: { HEADWATER_BACKFILL_CHUNK: '100' }, snapshot: false });
    await fixture.settled();
    await standby('absent');
    const { released } = await hang(...hanging.slice(0, 2));
    await fixture.until(
      async () => (await fixture.events()).filter((event) => event.tx && event.table).length === 2,
      'the changes to be logged',
    );
    await askForCopy(fixture, 'public.items');
    await fixture.until(async () => ((await fixture.record.copy('public.items'))?.rows ?? 0) >= 900, 'nearly all chunks');
    const rows = fold(await fixture.events(), 'public.items');
    expect([1, 5002].map((id) => [rows.get(`[${id}]`)?.['v'], String(rows.get(`[${id}]`)?.['big']).length])).to.deep.equal([
      ['new', 3_000],
      ['old', 3_000],
    ]);
    await standby('');
    await released;
    await fixture.copied('public.items');
    await expectSame(fixture, await fixture.settled(), 'public.items');
  });

  it('waits for commits that were under way when it was started, since nobody knows if they are in the log', async () => {
    const first = await fixture.streaming({ env: { HEADWATER_BACKFILL_CHUNK: '100' } });
    await fixture.settled();
    await standby('absent');
    const { released } = await hang(...hanging);
    await fixture.until(
      async () => (await fixture.events()).filter((event) => event.tx && event.table).length === 4,
      'the changes to be logged',
    );
    await first.stop();
    await askForCopy(fixture, 'public.items');
    await fixture.streaming({ env: { HEADWATER_BACKFILL_CHUNK: '100' } });
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expectNewest(await fixture.events());
    await standby('');
    await released;
    await fixture.copied('public.items');
    const events = await fixture.settled();
    expectNewest(events);
    await expectSame(fixture, events, 'public.items');
  });
});
