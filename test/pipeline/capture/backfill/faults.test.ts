import { expect } from 'chai';
import { connectPostgres } from '../../../../pipeline/clients/postgres.ts';
import { HeadwaterError } from '../../../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import { testServers } from '../../../support/servers.ts';
import { operatorOf, type Operator } from '../support/backfills.ts';
import { captureFixture, ownServers, type CaptureFixture } from '../support/fixture.ts';
import { fold, sortedRows } from '../support/stored-events.ts';

const env = { HEADWATER_BACKFILL_CHUNK: '100' };

async function failure(work: Promise<unknown>): Promise<HeadwaterError> {
  const error = await work.catch((thrown: unknown) => thrown);
  expect(error).to.be.instanceOf(HeadwaterError);
  return error as HeadwaterError;
}

/** What keeps a backfill from doing its work must neither make the log untrue nor keep the stream or other backfills from theirs. */
describe('backfill: what is in its way', function () {
  this.timeout(60_000);
  let fixture: CaptureFixture;
  let operator: Operator;
  beforeEach(async () => {
    fixture = await captureFixture();
    operator = operatorOf(fixture);
  });
  afterEach(() => fixture.close());

  const table = async (name: string, rows: number, key = 'int'): Promise<void> => {
    await fixture.query(`CREATE TABLE ${name} (id ${key} PRIMARY KEY, v text)`);
    await fixture.query(`INSERT INTO ${name} SELECT i, 'old' FROM generate_series(1, ${rows}) i`);
  };
  const stateOf = async (name: string): Promise<string | undefined> => (await fixture.record.copy(`public.${name}`))?.state;
  const ended = async (name: string): Promise<string> => {
    await fixture.until(async () => ['done', 'failed', 'none'].includes((await stateOf(name)) ?? ''), `the end of ${name}`);
    return (await fixture.record.copy(`public.${name}`))!.error ?? 'done';
  };
  const expectSame = async (name: string): Promise<void> => {
    const logged = fold(await fixture.settled(), `public.${name}`).values();
    expect(sortedRows(logged)).to.deep.equal(sortedRows(await fixture.query(`SELECT * FROM ${name}`)));
  };

  it('a key that becomes a generated one ends the copy, and does not make it go round in circles', async () => {
    await table('items', 400);
    await table('next', 10);
    await fixture.streaming({ env, snapshot: false });
    await operator.ask({ names: ['public.items'], rate: 100 });
    await operator.rows('public.items', 100);
    await fixture.query(
      'ALTER TABLE items DROP CONSTRAINT items_pkey, ADD g int GENERATED ALWAYS AS (abs(id)) STORED, ADD PRIMARY KEY (g)',
    );
    expect(await ended('items')).to.include('no primary key any more');
    expect((await operator.copy('public.next')).state, 'the next one').to.equal('done');
    const asked = await failure(operator.ask({ names: ['public.items'] }));
    expect([asked.code, asked.message]).to.satisfy(
      ([code, text]: string[]) => code === 'not_captured' && text!.includes('generated column'),
    );
    await fixture.query('ALTER TABLE items REPLICA IDENTITY FULL');
    expect((await failure(operator.ask({ names: ['public.items'] }))).code).to.equal('no_primary_key');
  });

  it('a table that another one takes the place of ends the copy, and is copied after a restart', async () => {
    await table('items', 400);
    const capture = await fixture.streaming({ env, snapshot: false });
    await operator.ask({ names: ['public.items'], rate: 100 });
    await operator.rows('public.items', 100);
    await fixture.query('CREATE TABLE new_items (id int PRIMARY KEY, v text, extra int)');
    await fixture.query(`INSERT INTO new_items SELECT i, 'new', 7 FROM generate_series(1, 400) i`);
    await fixture.query('BEGIN; ALTER TABLE items RENAME TO old_items; ALTER TABLE new_items RENAME TO items; COMMIT');
    expect(await ended('items')).to.include('another table');
    const reads = (await fixture.settled()).filter(({ op }) => op === 'read');
    expect(
      reads.filter(({ after }) => after!['v'] !== 'old'),
      'rows of the new one',
    ).to.deep.equal([]);
    await fixture.query(`DELETE FROM items WHERE id > 350`);
    await capture.stop();
    await fixture.streaming({ env });
    await fixture.until(async () => (await stateOf('items')) === 'done', 'the copy of the new one');
    const copied = (await fixture.settled()).filter(({ op, after }) => op === 'read' && after!['extra'] === 7);
    expect(copied.length).to.equal(350);
  });

  it('a table whose changes are not captured yet is refused, however it is asked for, and copied after a restart', async () => {
    await table('known', 10);
    const capture = await fixture.streaming();
    await table('late', 10);
    const { code, reaction, hint } = await failure(operator.ask({ names: ['public.late'] }));
    expect([code, reaction, hint]).to.deep.equal(['not_published', 'refused', 'restart capture: it copies the table then']);
    expect(await operator.ask({ names: undefined }), 'all that are captured').to.deep.equal(['public.known']);
    expect(await ended('known')).to.equal('done');
    const columns = (await fixture.settled()).filter(({ subject }) => subject === 'ev._schema.public.known');
    expect(columns.length, 'the snapshot has logged the columns of the table already').to.equal(1);
    const [row] = await fixture.query(`SELECT 'late'::regclass::oid::int8::float8 AS oid`);
    await fixture.record.putCopy({ table: 'public.late', oid: Number(row!['oid']), state: 'pending', begun: true, rows: 0 });
    expect(await ended('late'), 'asked for otherwise').to.include('not captured yet (restart capture');
    const marks = (await fixture.settled()).filter(({ mark, data }) => mark === 'backfill' && data!['table'] === 'public.late');
    expect(
      marks.map(({ data }) => data!['phase']),
      'what had begun is said to have failed',
    ).to.deep.equal(['failed']);
    await fixture.query(`DELETE FROM late WHERE id = 1`);
    await capture.stop();
    await fixture.streaming();
    await fixture.copied('public.late');
    await expectSame('late');
  });

  it('that it cannot connect leaves the stream alone, and it goes on when it can', async () => {
    await table('one', 10);
    await fixture.streaming();
    await fixture.settled();
    const admin = await connectPostgres((await testServers()).databaseUrl, 'test', silentLogger());
    fixture.onClose(() => admin.end());
    const allow = (allowed: boolean): Promise<unknown> =>
      admin.query(`ALTER DATABASE "${new URL(fixture.databaseUrl).pathname.slice(1)}" WITH ALLOW_CONNECTIONS ${allowed}`);
    await allow(false);
    const state = (await fixture.record.copy('public.one'))!;
    await fixture.record.putCopy({ ...state, state: 'pending', rows: 0 });
    await fixture.until(
      async () => (await fixture.record.copy('public.one'))?.note?.includes('not currently accepting') ?? false,
      'the note',
    );
    await fixture.query(`INSERT INTO one VALUES (11, 'new')`);
    const events = await fixture.settled(5_000);
    expect(events.filter(({ op }) => op === 'insert').length).to.equal(1);
    await allow(true);
    await fixture.copied('public.one');
    await expectSame('one');
  });

  it('one that waits for long makes room for others, and comes to its end itself', async () => {
    await table('locked', 300);
    await table('free', 300);
    const capture = await fixture.streaming({ env: { ...env, HEADWATER_BACKFILL_TIMEOUT: '300ms' }, snapshot: false });
    const application = await fixture.connect();
    await operator.ask({ names: ['public.locked'], rate: 100 });
    await operator.rows('public.locked', 100);
    await application.query('BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE');
    await operator.ask({ names: ['public.free'] });
    expect(await ended('free')).to.equal('done');
    expect(await stateOf('locked')).to.equal('running');
    expect(capture.said('others go first')).to.equal(true);
    await application.query('COMMIT');
    expect(await ended('locked')).to.equal('done');
    expect((await fixture.settled()).filter(({ op, table: of }) => op === 'read' && of === 'public.locked').length).to.equal(300);
  });

  it('a check of the key’s domain that old rows do not meet is not in its way', async () => {
    await fixture.query('CREATE DOMAIN checked AS int');
    await table('items', 300, 'checked');
    await fixture.query('ALTER DOMAIN checked ADD CHECK (VALUE > 150) NOT VALID');
    await fixture.streaming({ env, snapshot: false });
    expect((await operator.copy('public.items')).rows).to.equal(300);
  });

  it('an order to cancel it that nobody has carried out is taken back when it is asked for again', async () => {
    await table('items', 400);
    const capture = await fixture.streaming({ env, snapshot: false });
    await operator.ask({ names: ['public.items'], rate: 100 });
    await operator.rows('public.items', 100);
    await capture.stop();
    expect((await operator.order('cancel', 'public.items')).done, 'while capture is away').to.equal(false);
    await operator.ask({ names: ['public.items'] });
    await fixture.streaming({ env, snapshot: false });
    expect(await ended('items')).to.equal('done');
    const marks = (await fixture.settled()).filter(({ mark }) => mark === 'backfill').map(({ data }) => data!['phase']);
    expect(marks).to.deep.equal(['begin', 'end']);
  });
});

describe('backfill: a log that stalls', function () {
  this.timeout(60_000);
  const cleanups: (() => Promise<unknown> | void)[] = [];
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
  });

  it('has the columns of a table in front of its rows, also when a change of it is read from the stream before they are logged', async () => {
    const { services } = await ownServers({ nats: true }, (cleanup) => void cleanups.push(cleanup));
    const fixture = await captureFixture({ natsUrls: services.nats! });
    cleanups.push(() => fixture.close());
    const tables = ['a', 'b', 'c'];
    for (const name of tables) {
      await fixture.query(`CREATE TABLE ${name} (id int PRIMARY KEY)`);
      await fixture.query(`INSERT INTO ${name} SELECT generate_series(1, 50)`);
    }
    await fixture.streaming({ snapshot: false });
    const application = await fixture.connect();
    const { nats } = services.pids;
    const marks = fixture.nats.subscribe('ev._mark.backfill', {
      callback: (_, message) => {
        const { data } = message.json<{ data: { phase: string; table: string } }>();
        if (data.phase !== 'begin') return;
        process.kill(nats!, 'SIGSTOP');
        setTimeout(() => void application.query(`INSERT INTO ${data.table} VALUES (1000)`), 60);
        setTimeout(() => process.kill(nats!, 'SIGCONT'), 250);
      },
    });
    for (const name of tables) await operatorOf(fixture).copy(`public.${name}`);
    marks.unsubscribe();
    const events = await fixture.settled();
    for (const name of tables) {
      const first = events.find((event) => event.table === `public.${name}`)!;
      const columns = events.find(({ subject }) => subject === `ev._schema.public.${name}`)!;
      expect(first.seq, `${first.op} of ${name}, and its columns`).to.be.greaterThan(columns.seq);
    }
  });

  it('repeats no row when a transaction of more rows than are remembered comes between two portions of a chunk', async () => {
    const { services } = await ownServers({ nats: true }, (cleanup) => void cleanups.push(cleanup));
    const fixture = await captureFixture({ natsUrls: services.nats! });
    cleanups.push(() => fixture.close());
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, n int)');
    await fixture.query('INSERT INTO items SELECT i, 0 FROM generate_series(1, 3000) i');
    await fixture.streaming({ snapshot: false });
    const application = await fixture.connect();
    const { nats } = services.pids;
    const ids: number[] = [];
    let updated: Promise<void> | undefined;
    const update = async (): Promise<void> => {
      await application.query('DO $$ BEGIN FOR i IN 1..18 LOOP UPDATE items SET n = i; END LOOP; END $$');
      await new Promise((resolve) => setTimeout(resolve, 300));
      process.kill(nats!, 'SIGCONT');
    };
    const reads = fixture.nats.subscribe('ev.public.items.read', {
      callback: (_, message) => {
        const { id } = message.json<{ key: { id: number } }>().key;
        ids.push(id);
        // The first chunk has 100 rows, and the second one more than a portion.
        if (id <= 100 || updated) return;
        process.kill(nats!, 'SIGSTOP');
        updated = update();
      },
    });
    const { rows } = await operatorOf(fixture).copy('public.items');
    await updated;
    await fixture.until(() => ids.length >= rows, 'all reads');
    reads.unsubscribe();
    expect(new Set(ids).size, 'rows that were read').to.equal(3_000);
    expect(ids.length, 'reads of them').to.equal(3_000);
  });
});
