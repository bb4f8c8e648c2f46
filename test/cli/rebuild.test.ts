import { expect } from 'chai';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { migrate } from '../../deploy/migrate.ts';
import { connectNats, type NatsConnection } from '../../pipeline/clients/nats.ts';
import { closeRedis, connectRedis, type RedisClient } from '../../pipeline/clients/redis.ts';
import type { NewEvent } from '../../pipeline/log/event-log.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { filledLog, inLog } from '../pipeline/replay/support/replay-log.ts';
import type { FreshLog } from '../pipeline/log/support/fresh-log.ts';
import { redisDatabase, type RedisDatabase } from '../support/redis-database.ts';
import { until } from '../support/role-context.ts';
import { rowEvent, tickEvent } from '../support/row-events.ts';
import { freshDatabase, testServers, type FreshDatabase } from '../support/servers.ts';
import { callCli } from './support/call-cli.ts';
import { startCli } from './support/run-cli.ts';

/** Rows that never change after their beginning, and rows that change all the time. */
const still = 1_500;
const busy = 299;
const spoiled = 400;
const begun = 40_000;

const offsetKey = '{hw}:offset:cache';
const record = '{hw}:rebuild:cache';
const row = (id: string): string => `{hw}:row:public.prices:${id}`;

/** The nth event: first each still row, then the busy ones in turn, with a tick now and then. */
function nthEvent(n: number): NewEvent {
  if (n > still && n % 50 === 0) return tickEvent(n);
  const id = n <= still ? `s${n}` : `b${n % busy}`;
  return rowEvent(n, 'update', { key: { id }, after: { id, n } });
}

describe('headwater rebuild', function () {
  this.timeout(240_000);
  let connection: NatsConnection;
  let fresh: FreshLog;
  let redis: RedisDatabase;
  let database: FreshDatabase;
  let env: Record<string, string>;
  let cache: ChildProcess | undefined;

  before(async () => {
    connection = await connectNats((await testServers()).natsUrl, 'test', silentLogger());
    fresh = await filledLog(connection, begun, nthEvent);
    redis = await redisDatabase(6);
    database = await freshDatabase();
    await migrate(database.url, { demo: false, log: silentLogger() });
    env = {
      DATABASE_URL: database.url,
      NATS_URL: (await testServers()).natsUrl,
      REDIS_URL: redis.url,
      HEADWATER_STREAM: fresh.subject,
      HEADWATER_SUBJECT: fresh.subject,
      HEADWATER_ADMIN_PORT: '0',
    };
  });
  after(async () => {
    if (cache) await kill(cache);
    fresh.log.close();
    await fresh.remove();
    await connection.close();
    await redis.close();
    await database.drop();
  });

  const rebuild = (...args: string[]): ReturnType<typeof callCli> => callCli(['rebuild', ...args], env);
  const offset = async (): Promise<number> => Number((await redis.client.hget(offsetKey, 'seq')) ?? 0);
  const state = (): Promise<string | null> => redis.client.hget(record, 'state');

  async function kill(child: ChildProcess): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
    // Leases lapse by themselves, later.
    await redis.client.del('{hw}:lease:cache', `${record}:lease:cache`);
  }

  /** Appends events until it is stopped; returns how many there are then. */
  function writing(): () => Promise<number> {
    let done = false;
    let last = begun;
    const ended = (async () => {
      last = (await fresh.log.bounds()).last;
      while (!done) {
        const events = Array.from({ length: 20 }, (_, i) => inLog(fresh.subject, nthEvent(last + 1 + i)));
        last = await fresh.log.append(events, last);
        await sleep(25);
      }
    })();
    return async () => {
      done = true;
      await ended;
      return last;
    };
  }

  const valueOf = (event: string): number => (JSON.parse(event) as { after: { n: number } }).after.n;

  /** Reads by the names of keys alone, as fast as it can, until it is stopped. */
  async function reading(
    signal: AbortSignal,
    progress: { readings: number; mended: number },
  ): Promise<{ readings: number; mended: number }> {
    const client: RedisClient = await connectRedis(redis.url, silentLogger());
    const newest = new Map<string, number>();
    let position = 0;
    try {
      for (; !signal.aborted; progress.readings++) {
        const { readings } = progress;
        const ids = Array.from({ length: 10 }, (_, i) =>
          i % 2 ? `b${(readings * 7 + i) % busy}` : `s${((readings * 13 + i) % still) + 1}`,
        );
        const answers = (await client.multi([['hget', offsetKey, 'seq'], ...ids.map((id) => ['hmget', row(id), 'seq', 'event'])]).exec())!;
        const now = Number(answers[0]![1]);
        expect(now, 'the position goes back').to.be.at.least(position);
        position = now;
        const seen = new Set<string>();
        for (const [i, id] of ids.entries()) {
          const [seq, event] = answers[i + 1]![1] as [string | null, string | null];
          expect(event, `${id} is empty`).to.be.a('string');
          expect(Number(seq), `${id} goes back`).to.be.at.least(newest.get(id) ?? 0);
          newest.set(id, Number(seq));
          const number = Number(id.slice(1));
          if (!id.startsWith('s') || number > spoiled) expect(valueOf(event!), id).to.equal(Number(seq));
          else seen.add(valueOf(event!) === -1 ? 'wrong' : 'right');
        }
        expect(seen.size, 'some rows are of before the flip and some of after it').to.be.at.most(1);
        if (seen.has('right')) progress.mended ||= readings;
        else expect(seen.has('wrong') && progress.mended > 0, 'wrong again').to.equal(false);
      }
    } finally {
      closeRedis(client);
    }
    return progress;
  }

  it('mends a live cache while it is read and written, killed again and again, and the live one killed around the flip', async () => {
    cache = startCli(['run', 'cache'], env);
    await until(async () => (await offset()) >= begun - 50, 30_000, 'the cache');
    // A bug of a former version: wrong values.
    for (let n = 1; n <= spoiled; n++) {
      const event = (await redis.client.hget(row(`s${n}`), 'event'))!;
      await redis.client.hset(row(`s${n}`), 'event', event.replace(/"n":\d+/, '"n":-1'));
    }
    const stopWriting = writing();
    const stopReading = new AbortController();
    const progress = { readings: 0, mended: 0 };
    const read = reading(stopReading.signal, progress);
    read.catch(() => undefined);
    try {
      for (const wait of [0, 200, 600]) {
        const child = startCli(['rebuild', 'cache', '--no-flip'], env);
        await until(
          async () => (await state()) === 'filling' && (await redis.client.exists(`${record}:offset:cache`)) === 1,
          30_000,
          'a rebuild',
        );
        await sleep(wait);
        await kill(child);
        expect(valueOf((await redis.client.hget(row('s1'), 'event'))!)).to.equal(-1);
      }
      const compared = await rebuild('cache', '--no-flip', '--json');
      expect(compared.code, compared.stderr).to.equal(0);
      const { comparison, flipped } = JSON.parse(compared.stdout) as {
        comparison: { differences: number; listed: unknown[] };
        flipped: boolean;
      };
      expect(flipped).to.equal(false);
      expect(comparison.differences).to.equal(spoiled);
      expect(comparison.listed).to.have.length(20);

      const flipping = startCli(['rebuild', 'cache', '--flip'], env);
      await until(async () => (await state()) === 'kept', 60_000, 'the flip');
      // The live one dies right then, and the rebuild does not come to say that it is done.
      await Promise.all([kill(cache), kill(flipping)]);
      cache = startCli(['run', 'cache'], env);
      await until(async () => (await offset()) > begun, 30_000);
    } finally {
      const last = await stopWriting();
      await until(async () => (await offset()) >= last - 50, 30_000, 'the cache at the end').catch(() => undefined);
      await until(() => Promise.resolve(progress.mended > 0), 10_000, 'a reader that sees the mended rows').catch(() => undefined);
      stopReading.abort();
    }
    const { readings, mended } = await read;
    expect(readings).to.be.greaterThan(500);
    expect(mended).to.be.greaterThan(0);

    const status = await rebuild('--status', '--json');
    expect(
      (JSON.parse(status.stdout) as { rebuilds: { name: string; state: string }[] }).rebuilds.map(({ name, state: it }) => [name, it]),
    ).to.deep.equal([['cache', 'kept']]);
    const again = await rebuild('cache');
    expect(again.code).to.equal(3);
    expect(again.stderr).to.contain('--drop');
    expect((await rebuild('cache', '--abort')).code).to.equal(3);
    const dropped = await rebuild('cache', '--drop');
    expect(dropped.code, dropped.stderr).to.equal(0);
    expect(await redis.client.keys(`${record}*`)).to.deep.equal([]);
    const check = await rebuild('cache', '--no-flip');
    expect(check.stderr).to.contain('no differences');
    expect(check.stdout).to.contain('--flip flips');
    expect((await rebuild('cache', '--abort')).stdout).to.contain('removed');
    expect((await rebuild('--status')).stdout).to.contain('Nothing stands beside');
  });

  it('refuses what makes no sense, and says what to do', async () => {
    const cases: [string[], number, string][] = [
      [[], 2, 'name a processor'],
      [['cahce'], 2, 'did you mean'],
      [['cache', '--drop', '--abort'], 2, 'one of --abort, --drop'],
      [['notify'], 2, 'cannot be rebuilt'],
      [['cache', '--flip'], 3, 'nothing stands beside'],
    ];
    for (const [args, code, text] of cases) {
      const ran = await rebuild(...args);
      expect([ran.code, ran.stderr.toLowerCase()], args.join(' ')).to.satisfy(
        ([got, said]: [number, string]) => got === code && said.includes(text),
      );
    }
    const away = await callCli(['rebuild', 'alerts', '--status'], { ...env, DATABASE_URL: 'postgres://localhost:1/none' });
    expect([away.code, away.stderr]).to.satisfy(
      ([code, said]: [number, string]) => code === 1 && said.includes('PostgreSQL at postgres://localhost:1/none does not answer'),
    );
    // What is being removed is nothing to flip, and no reason to begin a new one.
    await redis.client.hset(record, { state: 'dropping', since: new Date().toISOString() });
    const dropping = await rebuild('cache', '--flip');
    expect([dropping.code, dropping.stderr]).to.satisfy(
      ([code, said]: [number, string]) => code === 3 && said.includes('nothing stands beside'),
    );
    expect((await rebuild('cache', '--abort')).stdout).to.contain('removed');
    expect((await rebuild('--status')).stdout).to.contain('Nothing stands beside');
    expect((await rebuild('--help')).stdout).to.contain('rebuild cache --no-flip');
  });
});
