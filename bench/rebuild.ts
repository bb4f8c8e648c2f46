import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { extname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { migrate } from '../deploy/migrate.ts';
import { closeRedis, connectRedis, type RedisClient } from '../pipeline/clients/redis.ts';
import type { RebuildOutcome } from '../pipeline/runner/rebuild/model.ts';
import { silentLogger } from '../pipeline/runtime/logging.ts';
import { usageTable, type Bench, type BenchContext, type Report } from './lib/bench.ts';
import { orAborted, startHeadwater, startProgram } from './lib/processes.ts';
import { fillPriceLog } from './lib/price-log.ts';
import { scoped, type Scope } from './lib/scope.ts';
import { freshDatabase } from './lib/servers.ts';
import { grouped, median, range } from './lib/statistics.ts';
import { medianUsage, UsageWatch, type Usage } from './lib/usage.ts';
import type { IdleRunnerOrder } from './programs/idle-runner.ts';

const pollMs = 20;

interface Measurement {
  readonly events: number;
  readonly rows: number;
  readonly readSeconds: number;
  readonly fillSeconds: number;
  readonly compareSeconds: number;
  readonly differences: number;
  /** How long Redis was busy with the flip. */
  readonly flipMs: number;
  readonly usage: readonly Usage[];
}

/** How fast a cache is made anew beside the live one, compared and flipped. */
export const rebuildBench: Bench = {
  name: 'rebuild',
  about: 'the log into a fresh cache beside the live one, compared and flipped, a tenth of the rows wrong; yardstick: the read bench',
  async run(context) {
    const measurements: Measurement[] = [];
    for (const events of context.quick ? [10_000, 100_000] : [100_000, 1_000_000]) {
      await scoped(async (scope) => {
        const rows = events / 10;
        // The command wants a database, though a cache needs none.
        const database = await freshDatabase(context.servers, scope, context.signal);
        await migrate(database, { demo: false, log: silentLogger() });
        await fillPriceLog(context, events, rows, scope);
        for (let run = 1; run <= context.runs; run++) {
          const measured = await scoped((inner) => measure(context, { database, events, rows }, inner));
          measurements.push(measured);
          const { readSeconds, fillSeconds, compareSeconds, flipMs } = measured;
          context.say(
            `${grouped(events)} events, run ${run} of ${context.runs}: ${grouped(events / fillSeconds)} events/s, read ${grouped(events / readSeconds)}; ` +
              `compared in ${compareSeconds.toFixed(1)} s, flipped in ${flipMs.toFixed(0)} ms`,
          );
        }
      });
    }
    return report(measurements);
  },
};

interface Work {
  readonly database: string;
  readonly events: number;
  readonly rows: number;
}

async function measure(context: BenchContext, { database, events, rows }: Work, scope: Scope): Promise<Measurement> {
  const { servers, signal } = context;
  const redis = await connectRedis(servers.redisUrl, silentLogger());
  scope.defer(() => closeRedis(redis));
  await redis.flushall();
  const order: IdleRunnerOrder = { natsUrl: servers.nats.operator, redisUrl: servers.redisUrl, end: events };
  const read = await scoped((inner) => startProgram('idle-runner', order, inner).next<{ seconds: number }>(signal));
  const env = { DATABASE_URL: database, NATS_URL: servers.nats.operator, REDIS_URL: servers.redisUrl };
  await scoped(async (inner) => {
    const live = startHeadwater(['cache'], env, { ...context, profile: undefined }, inner);
    await live.while(reached(redis, events, signal));
  });
  await spoil(redis, rows);
  await redis.call('CONFIG', 'SET', 'slowlog-log-slower-than', '0');
  const rebuilt = await rebuild(context, env, scope);
  const { comparison, fillSeconds, seconds } = rebuilt.outcome;
  if (comparison.differences !== rows / 10) throw new Error(`${comparison.differences} differences were found, not ${rows / 10}`);
  return {
    events,
    rows,
    readSeconds: read.seconds,
    fillSeconds,
    compareSeconds: seconds - fillSeconds,
    differences: comparison.differences,
    flipMs: await slowest(redis),
    usage: rebuilt.usage,
  };
}

async function reached(redis: RedisClient, end: number, signal: AbortSignal): Promise<void> {
  while (Number(await redis.hget('{hw}:offset:cache', 'seq')) < end) await sleep(pollMs, undefined, { signal });
}

/** A tenth of the rows get a value that no event has. */
async function spoil(redis: RedisClient, rows: number): Promise<void> {
  for (let n = 0; n < rows; n += 10) await redis.hset(`{hw}:row:public.prices:token%20${n}`, 'event', '{"after":{"price":"-1"}}');
}

/** The longest a single call has kept Redis busy since it was told to note them. */
async function slowest(redis: RedisClient): Promise<number> {
  const entries = (await redis.call('SLOWLOG', 'GET', '100')) as [number, number, number, ...unknown[]][];
  return Math.max(...entries.map(([, , micros]) => micros)) / 1_000;
}

async function rebuild(
  { servers, signal, profile }: BenchContext,
  urls: Readonly<Record<string, string>>,
  scope: Scope,
): Promise<{ outcome: RebuildOutcome; usage: readonly Usage[] }> {
  const main = join(import.meta.dirname, `../cli/main${extname(import.meta.filename)}`);
  const profiling = profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`];
  const args = [...process.execArgv, ...profiling, main, 'rebuild', 'cache', '--json'];
  const env = { PATH: process.env['PATH'], HEADWATER_DATA: servers.data, ...urls };
  const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const watch = new UsageWatch([{ process: 'headwater (rebuild)', pid: child.pid! }, servers.redis, ...servers.watched]);
  scope.defer(() => {
    watch.stop();
    child.kill('SIGKILL');
  });
  const said = Promise.all([text(child.stdout), text(child.stderr), once(child, 'close') as Promise<[number | null]>]);
  const [out, err, [code]] = await orAborted(said, signal);
  if (code !== 0) throw new Error(`headwater rebuild ended with ${String(code)}: ${err}`);
  return { outcome: JSON.parse(out) as RebuildOutcome, usage: watch.stop() };
}

function report(measurements: readonly Measurement[]): Report {
  const sizes = [...new Set(measurements.map(({ events }) => events))];
  const of = (size: number): readonly Measurement[] => measurements.filter(({ events }) => events === size);
  const rows = sizes.map((size) => {
    const own = of(size);
    const ratios = own.map(({ fillSeconds, readSeconds }) => readSeconds / fillSeconds);
    const rate = (seconds: (each: Measurement) => number): string => grouped(median(own.map((each) => size / seconds(each))));
    return [
      grouped(size),
      grouped(own[0]!.rows),
      rate(({ fillSeconds }) => fillSeconds),
      rate(({ readSeconds }) => readSeconds),
      median(ratios).toFixed(2),
      range(ratios, 2),
      median(own.map(({ compareSeconds }) => compareSeconds)).toFixed(1),
      grouped(own[0]!.differences),
      median(own.map(({ flipMs }) => flipMs)).toFixed(0),
    ];
  });
  const groups = sizes.map((size) => ({ title: grouped(size), usage: medianUsage(of(size).map(({ usage }) => usage)) }));
  return {
    tables: [
      {
        title: 'A cache made anew',
        head: ['EVENTS', 'ROWS', 'EVENTS/s', 'READ', 'RATIO', 'RANGE', 'COMPARED s', 'DIFFER', 'FLIP ms'],
        rows,
      },
      usageTable('What it takes', groups),
    ],
    notes: [
      '`headwater rebuild cache` as a process of its own. Events a second: from the start of the fold until it has come to the end of the log.',
      'Read: a processor that does nothing reads the same log, see the bench `read`. Flip: the longest that one call has kept Redis busy.',
    ],
    measurements,
  };
}
