import { expect } from 'chai';
import type { BackfillStatus } from '../../cli/backfills-status.ts';
import { connectionsStatus, problemsOf, type Status } from '../../cli/status.ts';
import { migrate } from '../../deploy/migrate.ts';
import { createPool, type PgPool } from '../../pipeline/clients/postgres.ts';
import { jetstreamManager } from '../../pipeline/clients/nats.ts';
import { postgresBeside } from '../../pipeline/runner/rebuild/postgres.ts';
import { RedisRecord } from '../../pipeline/runner/rebuild/redis-record.ts';
import { RedisKeys } from '../../pipeline/runner/redis-keys.ts';
import { RedisStateStore, type RedisEffects } from '../../pipeline/runner/redis-state-store.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { namespaceOf, namespacesKey, registryKey } from '../../processors/aggregates/store/keys.ts';
import { cacheProcessor } from '../../processors/cache/fold.ts';
import { cacheBeside } from '../../processors/cache/rebuild.ts';
import { defaultCatalog } from '../../schemas/catalog.ts';
import { captureFixture, type CaptureFixture } from '../pipeline/capture/support/fixture.ts';
import { operatorOf, type Operator } from '../pipeline/capture/support/backfills.ts';
import { redisDatabase, type RedisDatabase } from '../support/redis-database.ts';
import { callCli } from './support/call-cli.ts';

type Parts = Omit<Status, 'healthy' | 'problems' | 'connections' | 'rebuilds'>;

function healthy(): Parts {
  return {
    log: { first: 101, last: 200, epoch: 'e', epochStart: 1, bytes: 1, messages: 100, lastAt: new Date().toISOString() },
    slot: { name: 'headwater', active: true, retainedBytes: 1_000, confirmedFlushLsn: '0/1', walStatus: 'reserved' },
    processors: [{ name: 'cache', seq: 198, epoch: 'e', lagEvents: 2, lagSeconds: 0.1 }],
    deadLetters: 0,
    alerts: { rules: 3, pending: 1, firing: 1, outbox: 1, outboxSeconds: 0.2, undelivered: 900, undeliveredSeconds: 3_600 },
    backfills: [],
  };
}

function problems(change: (parts: Parts) => Parts): string {
  return problemsOf(change(healthy()), 1_000).join('\n');
}

function cacheAt(change: Partial<NonNullable<Parts['processors']>[number]>): (parts: Parts) => Parts {
  return (parts) => ({ ...parts, processors: [{ name: 'cache', seq: 198, epoch: 'e', lagEvents: 2, lagSeconds: 0.1, ...change }] });
}

describe('headwater status', () => {
  it('finds nothing wrong with a healthy system, nor with a part that was not asked', () => {
    expect(problems((parts) => parts)).to.equal('');
    expect(
      problemsOf(
        { ...{ log: undefined, slot: undefined, processors: undefined, deadLetters: undefined, alerts: undefined }, backfills: undefined },
        1_000,
      ),
    ).to.deep.equal([]);
  });

  it('names a slot that is not used, is losing WAL, or holds too much of it', () => {
    const slot = (change: Partial<NonNullable<Parts['slot']>>) => problems((parts) => ({ ...parts, slot: { ...parts.slot!, ...change } }));
    expect(slot({ active: false })).to.match(/not in use/);
    expect(slot({ walStatus: 'lost' })).to.match(/resnapshot/);
    expect(slot({ walStatus: 'unreserved' })).to.match(/about to be removed/);
    expect(slot({ retainedBytes: 5 * 1024 ** 3 })).to.match(/5120 MB/);
  });

  it('names a processor that is behind, before the oldest event, beyond the end, or of another history', () => {
    expect(problems(cacheAt({ lagSeconds: 61 }))).to.match(/cache is 2 events and 61 s behind/);
    expect(problems(cacheAt({ seq: 99 }))).to.match(/before the oldest event/);
    expect(problems(cacheAt({ seq: 100 }))).to.equal('');
    expect(problems(cacheAt({ seq: 201 }))).to.match(/beyond the end/);
    expect(problems(cacheAt({ epoch: 'other' }))).to.match(/epoch other/);
  });

  it('adds connections up by key, the busiest first', () => {
    const record = (keyId: string, subscriptions: number) => ({ connection: `${keyId}${subscriptions}`, keyId, since: 1, subscriptions });
    expect(connectionsStatus([record('a', 1), record('b', 2), record('b', 0), record('c', 5)])).to.deep.equal({
      connections: 4,
      subscriptions: 8,
      keys: [
        { keyId: 'b', connections: 2, subscriptions: 2 },
        { keyId: 'a', connections: 1, subscriptions: 1 },
        { keyId: 'c', connections: 1, subscriptions: 5 },
      ],
    });
  });

  it('names alerts that nobody plans notifications for, but not a receiver that is away', () => {
    const waiting = (outboxSeconds: number): string =>
      problems((parts) => ({ ...parts, alerts: { ...parts.alerts!, outbox: 7, outboxSeconds } }));
    expect(waiting(29)).to.equal('');
    expect(waiting(31)).to.match(/7 alerts wait .* 31 s: is notify running/);
  });

  it('names silence and dead letters, and allows for slow ticks', () => {
    const silent = (seconds: number, tickMs: number) => {
      const parts = healthy();
      return problemsOf({ ...parts, log: { ...parts.log!, lastAt: new Date(Date.now() - seconds * 1_000).toISOString() } }, tickMs).join();
    };
    expect(silent(40, 1_000)).to.match(/nothing has been logged for 40 s/);
    expect(silent(40, 10_000)).to.equal('');
    expect(problems((parts) => ({ ...parts, deadLetters: 2 }))).to.match(/2 dead letters/);
  });

  it('names a backfill that has failed, and a queue that does not move while capture runs', () => {
    const at = (seconds: number): string => new Date(Date.now() - seconds * 1_000).toISOString();
    const copy = (table: string, rest: Partial<BackfillStatus>): BackfillStatus => ({
      ...{ table, state: 'running', since: at(9_000), changedAt: at(1), rows: 10, read: 10, total: 100 },
      ...rest,
    });
    const said = (active: boolean, ...backfills: BackfillStatus[]): string =>
      problems((parts) => ({ ...parts, backfills, slot: { ...parts.slot!, active } }));
    const long = { state: 'pending', changedAt: at(8_000) } as const;
    expect(said(true, copy('public.a', {}), copy('public.b', long), copy('public.c', { state: 'paused', changedAt: at(8_000) }))).to.equal(
      '',
    );
    expect(
      said(true, copy('public.a', { changedAt: at(301), note: 'waits for whoever has locked the table' }), copy('public.b', long)),
    ).to.equal('the backfill of public.a has not moved for 301 s: it waits for whoever has locked the table');
    expect(said(true, copy('public.b', long))).to.match(/public\.b has not moved for 8000 s: the log of capture says why/);
    // That capture does not run is what is wrong then.
    expect(said(false, copy('public.b', long))).to.match(/^slot headwater is not in use.*$/);
    expect(said(true, copy('public.a', { state: 'failed', error: 'division by zero' }))).to.equal(
      'the backfill of public.a has failed: division by zero. Mend the cause and ask again, or `headwater backfill cancel public.a` gives it up',
    );
  });
});

describe('headwater status of backfills and rebuilds', function () {
  this.timeout(120_000);
  let fixture: CaptureFixture;
  let operator: Operator;
  let redis: RedisDatabase;
  let pool: PgPool;
  let env: Record<string, string>;
  const away = { NATS_URL: 'nats://127.0.0.1:1', REDIS_URL: 'redis://127.0.0.1:1', DATABASE_URL: 'postgres://127.0.0.1:1/x' };

  before(async () => {
    fixture = await captureFixture();
    await migrate(fixture.databaseUrl, { demo: false, log: silentLogger() });
    operator = operatorOf(fixture);
    redis = await redisDatabase(13);
    pool = createPool(fixture.databaseUrl, 'test', silentLogger(), 2);
    env = { DATABASE_URL: fixture.databaseUrl, NATS_URL: fixture.natsUrls.operator, REDIS_URL: redis.url, HEADWATER_SLOT: fixture.slot };
    for (const name of ['prices', 'trades']) {
      await fixture.query(`CREATE TABLE ${name} (id int PRIMARY KEY)`);
      await fixture.query(`INSERT INTO ${name} SELECT generate_series(1, 3000)`);
      await fixture.query(`ANALYZE ${name}`);
    }
  });
  after(async () => {
    await pool.end();
    await redis.close();
    await fixture.close();
  });

  async function status(change: Record<string, string> = {}): Promise<Status> {
    return JSON.parse((await callCli(['status', '--json'], { ...env, ...change })).stdout) as Status;
  }
  const shown = async (change: Record<string, string> = {}): Promise<string> => (await callCli(['status'], { ...env, ...change })).stdout;
  const copies = async (): Promise<string[]> => (await status()).backfills!.map(({ table, state }) => `${table} ${state}`);
  const isTime = (time: string | undefined): boolean => Math.abs(Date.parse(time ?? '') - Date.now()) < 60_000;

  it('says nothing of either where there is none, and makes nothing in NATS', async () => {
    const other = { HEADWATER_STREAM: 'NOT_THERE' };
    const { backfills, rebuilds, problems: wrong } = await status(other);
    expect([backfills, rebuilds]).to.deep.equal([[], []]);
    expect(wrong.join('\n')).not.to.match(/KV_|backfill|rebuild/);
    expect(await shown(other)).not.to.match(/BACKFILL|REBUILD/);
    const streams = [];
    for await (const name of (await jetstreamManager(fixture.nats)).streams.names()) streams.push(name);
    expect(streams).not.to.include('KV_HEADWATER_NOT_THERE');
  });

  it('shows how far copies are, those that wait, are paused or have failed, until they are done or given up', async () => {
    const capture = await fixture.streaming({ env: { HEADWATER_BACKFILL_CHUNK: '100' }, snapshot: false });
    expect(await copies()).to.deep.equal([]);
    await operator.ask({ names: ['public.prices'], rate: 200 });
    // A rate is told of three seconds at least.
    await operator.rows('public.prices', 800);
    await operator.ask({ names: ['public.trades'], where: '1 / (id - 500) >= 0' });
    const { backfills, problems: wrong } = await status();
    const [prices, trades] = backfills!;
    expect(wrong.filter((problem) => problem.includes('backfill'))).to.deep.equal([]);
    expect(prices).to.include({ table: 'public.prices', state: 'running', total: 3_000, rate: 200 });
    expect(prices!.rows).to.be.within(800, 2_900);
    expect([isTime(prices!.since), isTime(prices!.changedAt), prices!.since! < prices!.changedAt]).to.deep.equal([true, true, true]);
    expect(trades).to.include({ table: 'public.trades', state: 'pending', where: '1 / (id - 500) >= 0' });
    expect(await shown())
      .to.match(
        /BACKFILL +STATE +ROWS +SINCE\s+public\.prices +running +[\d,]+ \(\d+ % of about 3,000\) +\d{4}-\S+Z +\d+ rows\/s, at most 200 rows\/s/,
      )
      .and.match(/public\.trades +waiting/);

    await operator.order('pause', 'public.prices');
    await fixture.until(async () => (await copies()).includes('public.trades failed'), 'the other one to fail');
    expect(await copies()).to.deep.equal(['public.trades failed', 'public.prices paused']);
    const paused = (await status()).backfills![1]!;
    expect(paused.since! > prices!.since!).to.equal(true);
    expect((await status()).problems.join('\n')).to.match(
      /the backfill of public\.trades has failed: division by zero\..*headwater backfill cancel public\.trades/,
    );
    // It is given up by its name only.
    expect((await callCli(['backfill', 'cancel', '--all'], env)).stdout).to.match(/^public\.prices: cancelled, /);
    expect(await copies()).to.deep.equal(['public.trades failed']);
    expect((await callCli(['backfill', 'cancel', 'trades'], env)).stdout).to.match(/^public\.trades: cancelled, /);
    expect((await status()).problems.filter((problem) => problem.includes('backfill'))).to.deep.equal([]);
    expect(await copies()).to.deep.equal([]);
    const phases = (await fixture.settled()).filter(({ subject }) => subject.endsWith('_mark.backfill')).map(({ data }) => data);
    expect(phases.filter((data) => JSON.stringify(data).includes('public.trades'))).to.have.length(2);
    await capture.stop();
  });

  it('shows rebuilds that are in progress, wait for the flip or have been flipped, of each store', async () => {
    const cache = cacheBeside(redis.client);
    await cache.begin();
    await redis.client.hset('{hw}:offset:cache', 'seq', 12_000, 'epoch', 'e');
    const making = (await cache.status())!;
    await cache.store.commit(cacheProcessor(defaultCatalog()).begin(), undefined, { seq: 11_000, epoch: 'e' });
    await cache.store.lease('a rebuild', 60_000);

    // One that has been flipped, of an aggregate.
    const [served, former] = ['1111.aa', '1111'].map((hash) => namespaceOf('price', hash));
    await redis.client.hset(registryKey, 'price', JSON.stringify({ hash: '1111.aa', definition: { name: 'price', hash: '1111.aa' } }));
    await redis.client.sadd(namespacesKey, 'price:1111.aa');
    await redis.client.hset(served!.offset('aggregates'), 'seq', 500, 'epoch', 'e');
    const record = new RedisRecord(redis.client, new RedisKeys(), 'aggregates.price');
    await record.begin(former!.offset('aggregates'), { hash: '1111' });
    await redis.client.hset(former!.offset('aggregates'), 'seq', 400, 'epoch', 'e');
    await record.set({ state: 'kept' });

    // One in PostgreSQL that was interrupted.
    const alerts = postgresBeside({
      ...{ pool, processor: 'alerts', tables: [] },
      effects: { isEmpty: () => true, write: () => Promise.resolve() },
    });
    await alerts.begin();

    const { rebuilds, problems: wrong } = await status();
    expect(rebuilds!.map(({ name, state, atWork, seq, liveSeq }) => ({ name, state, atWork, seq, liveSeq }))).to.deep.equal([
      { name: 'cache', state: 'filling', atWork: true, seq: 11_000, liveSeq: 12_000 },
      { name: 'aggregates.price', state: 'kept', atWork: false, seq: 400, liveSeq: 500 },
      { name: 'alerts', state: 'filling', atWork: false, seq: undefined, liveSeq: undefined },
    ]);
    expect(rebuilds!.every(({ since }) => isTime(since))).to.equal(true);
    expect(rebuilds![0]!.since).to.equal(making.since);
    // A second state beside is nothing unhealthy.
    expect(wrong.filter((problem) => problem.includes('rebuild') && !problem.includes('stands in epoch'))).to.deep.equal([]);
    expect(await shown())
      .to.match(/REBUILD +AT +LIVE AT +SINCE\s+cache +11,000 +12,000 +\d{4}-\S+Z +in progress\s/)
      .and.match(/aggregates\.price +400 +500 +\S+ +the state of before the flip: headwater rebuild aggregates\.price --drop removes it/)
      .and.match(/alerts +– +– +\S+ +waiting: headwater rebuild alerts goes on and flips it, --abort removes it/);
    await cache.store.release('a rebuild');
    expect((await status()).rebuilds![0]!.atWork).to.equal(false);
  });

  it('knows the processors in Redis by what they commit, and asks for no other keys, however many there are', async () => {
    const effects: RedisEffects<undefined> = { lua: '', encode: () => [] };
    await new RedisStateStore(redis.client, 'ledger', new RedisKeys(), effects).commit(undefined, undefined, { seq: 7, epoch: 'e' });
    await redis.client.config('RESETSTAT');
    const { processors } = await status();
    // The live cache of the test before was not made by commits, and what stands beside is none.
    expect(processors!.map(({ name, seq }) => ({ name, seq }))).to.deep.equal([
      { name: 'aggregates.price', seq: 500 },
      { name: 'ledger', seq: 7 },
    ]);
    expect(await redis.client.info('commandstats')).to.not.contain('cmdstat_scan:');
  });

  it('shows what the others know when a server is away', async () => {
    const names = async (server: keyof typeof away): Promise<unknown> => {
      const { rebuilds, backfills } = await status({ [server]: away[server] });
      return [rebuilds?.map(({ name }) => name), backfills];
    };
    expect(await names('NATS_URL')).to.deep.equal([['cache', 'aggregates.price', 'alerts'], undefined]);
    expect(await names('REDIS_URL')).to.deep.equal([['alerts'], []]);
    expect(await names('DATABASE_URL')).to.deep.equal([['cache', 'aggregates.price'], []]);
  });
});
