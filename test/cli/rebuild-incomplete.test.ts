import { expect } from 'chai';
import { once } from 'node:events';
import { jetstreamManager } from '../../pipeline/clients/nats.ts';
import type { CopyState } from '../../pipeline/capture/log-record.ts';
import { captureFixture, type CaptureFixture } from '../pipeline/capture/support/fixture.ts';
import { operatorOf } from '../pipeline/capture/support/backfills.ts';
import { trimLog } from '../pipeline/log/support/fresh-log.ts';
import { Instances } from '../support/instances.ts';
import { redisDatabase, type RedisDatabase } from '../support/redis-database.ts';
import { runCli, startCli } from './support/run-cli.ts';

const rows = 5_000;

describe('headwater rebuild, when the log does not hold a backfill whole', function () {
  this.timeout(240_000);
  let fixture: CaptureFixture;
  let redis: RedisDatabase;
  let env: Record<string, string>;
  let capture: Instances;
  let cache: Instances;

  before(async () => {
    fixture = await captureFixture();
    redis = await redisDatabase(7);
    await fixture.query('CREATE TABLE prices (id int PRIMARY KEY, price numeric)');
    await fixture.query(`INSERT INTO prices SELECT i, i % 101 FROM generate_series(1, ${rows}) i`);
    env = {
      DATABASE_URL: fixture.databaseUrl,
      NATS_URL: fixture.natsUrls.operator,
      REDIS_URL: redis.url,
      HEADWATER_SLOT: fixture.slot,
      HEADWATER_TICK: '200ms',
      HEADWATER_BACKFILL_CHUNK: '50',
    };
    capture = new Instances('capture', { ...env, NATS_URL: fixture.natsUrls.capture });
    cache = new Instances('cache', env);
    capture.start();
    await fixture.copied('public.prices', 60_000);
    cache.start();
    await caughtUp();
    await trim();
  });
  after(async () => {
    await capture?.killAll();
    await cache?.killAll();
    await redis?.close();
    await fixture?.close();
  });

  async function caughtUp(): Promise<void> {
    const { last } = await (await fixture.log()).bounds();
    await fixture.until(async () => Number((await redis.client.hget('{hw}:offset:cache', 'seq')) ?? 0) >= last, 'the cache', 60_000);
  }
  /** Only the last events are left. */
  async function trim(): Promise<void> {
    const log = await fixture.log();
    await trimLog(await jetstreamManager(fixture.nats), log, 'EVENTS', (await log.bounds()).last - 3);
  }
  const copy = (): Promise<CopyState | undefined> => fixture.record.copy('public.prices');
  const copying = (): Promise<void> =>
    fixture.until(async () => (await copy())?.state === 'running' && (await copy())!.rows > rows / 5, 'a copy on its way', 60_000);
  const held = (): Promise<number> => redis.client.scard('{hw}:keys:public.prices');

  it('refuses to go on when a copy is given up, and leaves everything as it was', async () => {
    const rebuilding = startCli(['rebuild', 'cache'], env);
    let said = '';
    rebuilding.stderr!.setEncoding('utf8').on('data', (text: string) => (said += text));
    const closed = once(rebuilding, 'close');
    await copying();
    // It must not be done before the command that gives it up has started.
    await operatorOf(fixture).order('pause', 'public.prices');
    expect((await runCli(['backfill', 'cancel', 'prices'], env)).code).to.equal(0);
    expect((await closed)[0], said).to.equal(3);
    expect(said).to.contain('the backfill of public.prices has not come to its end').and.contain('rebuild cache --no-backfill');
    expect((await runCli(['rebuild', 'cache', '--status'], env)).stdout).to.contain('Nothing stands beside');
    expect(await held()).to.equal(rows);
  });

  it('has a table copied from its first row on, though a copy of it was under way whose beginning the log no longer holds', async () => {
    expect((await runCli(['backfill', 'prices', '--no-wait'], env)).code).to.equal(0);
    await copying();
    await trim();
    const { code, stdout, stderr } = await runCli(['rebuild', 'cache'], env);
    expect(code, stderr).to.equal(0);
    expect(stdout).to.contain('It is live now');
    expect(await held()).to.equal(rows);
  });
});
