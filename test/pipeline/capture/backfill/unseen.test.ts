import { expect } from 'chai';
import { connectPostgres, type PgClient } from '../../../../pipeline/clients/postgres.ts';
import { jetstreamManager } from '../../../../pipeline/clients/nats.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import { operatorOf, type Operator } from '../support/backfills.ts';
import { captureFixture, ownServers, type CaptureFixture } from '../support/fixture.ts';
import { fold } from '../support/stored-events.ts';

/** Commits that are in the log and visible to nobody, since a standby that is to have them is away. */
describe('backfill: changes that are logged, not visible, and not to be known by their rows', function () {
  this.timeout(60_000);
  const cleanups: (() => Promise<unknown> | void)[] = [];
  let fixture: CaptureFixture;
  let operator: Operator;
  let application: PgClient;
  beforeEach(async () => {
    const { services } = await ownServers({ postgres: true }, (cleanup) => void cleanups.push(cleanup));
    const server = await connectPostgres(services.databaseUrl!, 'test', silentLogger());
    await server.query('CREATE DATABASE test');
    await server.end();
    const url = new URL(services.databaseUrl!);
    url.pathname = '/test';
    fixture = await captureFixture({ databaseUrl: url.toString() });
    operator = operatorOf(fixture);
    application = await fixture.connect();
  });
  afterEach(async () => {
    await standby('').catch(() => undefined);
    await fixture.close();
    for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
  });

  const standby = async (name: string): Promise<void> => {
    await fixture.query(`ALTER SYSTEM SET synchronous_standby_names = '${name}'`);
    await fixture.query('SELECT pg_reload_conf()');
    const shown = async (): Promise<unknown> => (await fixture.query('SHOW synchronous_standby_names'))[0]!['synchronous_standby_names'];
    await fixture.until(async () => (await shown()) === name, 'the setting');
  };
  /** Carries out a statement that commits and hangs, and waits until all of it is in the log. */
  const hang = async (statement: string): Promise<{ released: Promise<unknown> }> => {
    await standby('absent');
    const released = application.query(statement);
    const log = await fixture.log();
    const logged = async (): Promise<boolean> => {
      const event = await log.last('ev.public.items.update');
      return event !== undefined && Buffer.from(event.data).includes('"last":true');
    };
    await fixture.until(logged, 'the changes to be logged');
    return { released };
  };
  const notVisible = (): Promise<void> =>
    fixture.until(async () => (await fixture.record.copy('public.items'))?.note?.includes('not visible yet') ?? false, 'it to wait');
  const values = async (): Promise<unknown[]> => {
    const rows = fold(await fixture.settled(), 'public.items').values();
    return [...new Set([...rows].map((row) => `${String(row['n'])} ${typeof row['big']}`))];
  };

  it('are waited for when they are too many, and others go first: no row is logged as it was before them', async () => {
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, n int, big text, fat text)');
    await fixture.query('ALTER TABLE items ALTER big SET STORAGE EXTERNAL, ALTER fat SET STORAGE EXTERNAL');
    await fixture.query(`INSERT INTO items SELECT i, 0, repeat('x', 7000), '' FROM generate_series(1, 300) i`);
    await fixture.query('CREATE TABLE other (id int PRIMARY KEY)');
    await fixture.query('INSERT INTO other SELECT generate_series(1, 300)');
    await fixture.streaming({ env: { HEADWATER_BACKFILL_CHUNK: '100', HEADWATER_BACKFILL_TIMEOUT: '300ms' }, snapshot: false });
    await operator.ask({ names: ['public.items'], rate: 50 });
    await operator.rows('public.items', 50);
    // Events of 20 MB, which do not have the other large value.
    const { released } = await hang(`UPDATE items SET n = 1, fat = repeat('y', 100000) WHERE id > 100`);
    await operator.order('resume', 'public.items', 0);
    await notVisible();
    expect((await operator.copy('public.other')).rows).to.equal(300);
    expect((await fixture.record.copy('public.items'))!.state).to.equal('running');
    await standby('');
    await released;
    await fixture.copied('public.items');
    expect(await values()).to.have.members(['0 string', '1 string']);
    const reads = (await fixture.events()).filter(
      (event) => event.subject === 'ev.public.items.read' && (event.key!['id'] as number) > 100,
    );
    expect(reads.map(({ after }) => after!['n'])).to.deep.equal(Array<number>(200).fill(1));
  });

  it('are waited for when they have moved rows to where the copy has gone by, and others go first, of which nothing is repeated', async () => {
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, n int, big text)');
    await fixture.query('ALTER TABLE items ALTER big SET STORAGE EXTERNAL');
    await fixture.query(`INSERT INTO items SELECT i, 0, repeat('x', 7000) FROM generate_series(1, 300) i`);
    await fixture.query('CREATE TABLE other (id int PRIMARY KEY)');
    await fixture.query('INSERT INTO other SELECT generate_series(1, 300)');
    const capture = await fixture.streaming({
      env: { HEADWATER_BACKFILL_CHUNK: '100', HEADWATER_BACKFILL_TIMEOUT: '100ms' },
      snapshot: false,
    });
    await operator.ask({ names: ['public.items'], rate: 50 });
    await operator.rows('public.items', 50);
    const { released } = await hang('UPDATE items SET id = id - 1000 WHERE id > 290');
    await operator.order('resume', 'public.items', 0);
    // All of the table is read by then.
    await notVisible();
    await operator.ask({ names: ['public.other'] });
    await fixture.copied('public.other', 5_000);
    expect(capture.said('others go first')).to.equal(true);
    const { state, after, read } = (await fixture.record.copy('public.items'))!;
    expect([state, after, read]).to.deep.equal(['running', ['300'], 300]);
    await standby('');
    await released;
    await fixture.copied('public.items');
    expect(await values()).to.deep.equal(['0 string']);
    const reads = (await fixture.events())
      .filter((event) => event.subject === 'ev.public.items.read')
      .map(({ key }) => key!['id'] as number);
    expect(
      reads.filter((id, i) => id > 0 && reads.indexOf(id) < i),
      'rows that were read twice',
    ).to.deep.equal([]);
    expect(reads.filter((id) => id < 0).length, 'rows that have moved').to.be.within(10, 20);
  });

  it('that keep back the first chunk do not hide that the copy has begun, and was given up', async () => {
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, n int, big text, fat text)');
    await fixture.query('ALTER TABLE items ALTER big SET STORAGE EXTERNAL, ALTER fat SET STORAGE EXTERNAL');
    await fixture.query(`INSERT INTO items SELECT i, 0, repeat('x', 7000), '' FROM generate_series(1, 200) i`);
    await fixture.streaming({ snapshot: false });
    const { released } = await hang(`UPDATE items SET n = 1, fat = repeat('y', 100000)`);
    await operator.ask({ names: ['public.items'] });
    const log = await fixture.log();
    await fixture.until(async () => (await log.last('ev._mark.backfill')) !== undefined, 'it to begin');
    expect((await operator.order('cancel', 'public.items')).state.state).to.equal('cancelled');
    await standby('');
    await released;
    const marks = (await fixture.settled()).filter(({ mark }) => mark === 'backfill');
    expect(marks.map(({ data }) => data!['phase'])).to.deep.equal(['begin', 'cancelled']);
  });

  it('are waited for when the log has been trimmed and does not have them any more', async () => {
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, n int, big text)');
    await fixture.query(`INSERT INTO items SELECT i, 0, '' FROM generate_series(1, 1000) i`);
    const capture = await fixture.streaming({ env: { HEADWATER_BACKFILL_CHUNK: '100' }, snapshot: false });
    await operator.ask({ names: ['public.items'], rate: 100 });
    await operator.rows('public.items', 100);
    await operator.order('pause', 'public.items');
    const { released } = await hang('UPDATE items SET n = 1');
    const { streams } = await jetstreamManager(fixture.nats);
    await streams.update('EVENTS', { max_msgs: 1 });
    await streams.update('EVENTS', { max_msgs: -1 });
    await operator.order('resume', 'public.items', 0);
    await notVisible();
    expect(capture.said('begins anew')).to.equal(true);
    await standby('');
    await released;
    await fixture.copied('public.items');
    expect(await values()).to.deep.equal(['1 string']);
  });
});
