import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { closeRedis, connectRedis, type RedisClient } from '../pipeline/clients/redis.ts';
import type { PgClient } from '../pipeline/clients/postgres.ts';
import { silentLogger } from '../pipeline/runtime/logging.ts';
import { definitionsOf } from '../processors/aggregates/definition.ts';
import type { Definition } from '../processors/aggregates/model.ts';
import { aggregateKeys, namespaceOf } from '../processors/aggregates/store/keys.ts';
import { decodeRecord } from '../processors/aggregates/store/record.ts';
import { parseCatalog } from '../schemas/catalog-file.ts';
import { usageTable, type Bench, type BenchContext, type Report } from './lib/bench.ts';
import { orAborted, startHeadwater, startProgram } from './lib/processes.ts';
import { scoped, type Scope } from './lib/scope.ts';
import { freshDatabase, sqlClient } from './lib/servers.ts';
import { grouped, median, range } from './lib/statistics.ts';
import { medianUsage, peakMbOf, UsageWatch, type Usage } from './lib/usage.ts';
import type { IdleRunnerOrder } from './programs/idle-runner.ts';

const stream = 'EVENTS';
const perTransaction = 100;
const pollMs = 20;

interface Work {
  readonly title: string;
  readonly keys: number;
  readonly of: 'rows' | 'changes';
  readonly functions: string;
}

const plain = 'count, sum, avg, open, high, low, close';
const works: readonly Work[] = [
  { title: 'rows', keys: 10_000, of: 'rows', functions: plain },
  { title: 'rows', keys: 100_000, of: 'rows', functions: plain },
  { title: 'rows, percentiles', keys: 10_000, of: 'rows', functions: `${plain}, p50, p99` },
  { title: 'changes', keys: 10_000, of: 'changes', functions: plain },
];

interface Measurement extends Work {
  readonly events: number;
  readonly idleSeconds: number;
  readonly seconds: number;
  readonly usage: readonly Usage[];
}

/** How fast the role folds the log into windows. */
export const aggregatesBench: Bench = {
  name: 'aggregates',
  about: 'events/s into 4 tumbling and 3 sliding windows, 5 % late, 5 % corrections; yardstick: the runner with nothing to do',
  async run(context) {
    const measurements: Measurement[] = [];
    for (let run = 1; run <= context.runs; run++) {
      for (const work of works) {
        const measured = await measure(context, work, context.quick ? 20_000 : 200_000);
        measurements.push(measured);
        const rate = (seconds: number): string => grouped(measured.events / seconds);
        context.say(
          `${work.title}, ${grouped(work.keys)} keys, run ${run} of ${context.runs}: ${rate(measured.seconds)} events/s, idle ${rate(measured.idleSeconds)}`,
        );
      }
    }
    return report(measurements);
  },
};

/** The events are in the log before the role starts, so that it is as fast as it can be. */
async function measure(context: BenchContext, work: Work, events: number): Promise<Measurement> {
  const { servers, signal } = context;
  return scoped(async (scope) => {
    const url = await freshDatabase(servers, scope, signal);
    const client = await sqlClient(url, scope);
    const redis = await connectRedis(servers.redisUrl, silentLogger());
    scope.defer(() => closeRedis(redis));
    await redis.flushall();
    await createTrades(client, work.keys);
    const end = await fillLog(context, url, client, events);
    const order: IdleRunnerOrder = { natsUrl: servers.nats.operator, redisUrl: servers.redisUrl, subjects: ['ev.public.trades.>'], end };
    const idle = await scoped((inner) => startProgram('idle-runner', order, inner).next<{ seconds: number }>(signal));
    const yaml = `aggregates:\n  trades: { table: public.trades, by: [token], value: price, time: traded_at, of: ${work.of}, windows: [1m, 5m, 1h, 1d], sliding: [5m, 1h, 24h], functions: [${work.functions}] }\n`;
    const file = join(servers.data, 'aggregates.yaml');
    writeFileSync(file, yaml);
    const definition = definitionsOf(parseCatalog(yaml, file)).get('trades')!;
    const folded = await scoped((inner) => fold(context, { url, file, redis, definition, end }, inner));
    await verify(client, redis, definition, events);
    return { ...work, events, idleSeconds: idle.seconds, ...folded };
  });
}

async function createTrades(client: PgClient, keys: number): Promise<void> {
  await client.query(`
    CREATE TABLE public.trades (id bigint PRIMARY KEY, token text NOT NULL, price numeric(20, 8) NOT NULL, traded_at timestamptz NOT NULL);
    CREATE PROCEDURE public.trade(total bigint) LANGUAGE plpgsql AS $$
    BEGIN
      FOR batch IN 0 .. total / ${perTransaction} - 1 LOOP
        -- A minute in 30 transactions; five of a hundred belong to the hour before.
        INSERT INTO public.trades
        SELECT batch * ${perTransaction} + i, 'TOKEN' || (batch * 7919 + i * 104729) % ${keys} || '-USD', (batch * 7919 + i * 104729) % 100000 / 101.0,
          now() - interval '4 hours' + batch * interval '2 seconds' + i * interval '20 milliseconds' - CASE WHEN i % 20 = 7 THEN (i * 37 % 60) * interval '1 minute' ELSE interval '0' END
        FROM generate_series(0, ${perTransaction * 0.95 - 1}) i;
        -- And five correct what was before.
        UPDATE public.trades SET price = price + 1
        WHERE id IN (SELECT (greatest(0, batch - 1 - (i * 31 + batch) % 50)) * ${perTransaction} + i FROM generate_series(1, 5) i) AND batch > 0;
        COMMIT;
      END LOOP;
    END $$`);
}

/** Capture logs the events. Returns the sequence behind the last one. */
async function fillLog(context: BenchContext, url: string, client: PgClient, events: number): Promise<number> {
  const { servers, signal } = context;
  return scoped(async (scope) => {
    const env = { DATABASE_URL: url, NATS_URL: servers.nats.capture, REDIS_URL: servers.redisUrl };
    const headwater = startHeadwater(['capture'], env, { ...context, profile: undefined }, scope);
    await headwater.logged(/^streaming/, signal);
    await orAborted(client.query(`CALL public.trade(${events})`), signal);
    await client.query(`SELECT pg_logical_emit_message(true, 'end', 'end')`);
    const find = async (): Promise<number> => {
      for (;;) {
        // The next tick: that is what offsets come to.
        const message = await servers.jsm.streams.getMessage(stream, { last_by_subj: 'ev._message.end' }).catch(() => null);
        const tick = message && (await servers.jsm.streams.getMessage(stream, { last_by_subj: 'ev._tick' }).catch(() => null));
        if (message && tick && tick.seq > message.seq) return tick.seq;
        await sleep(pollMs, undefined, { signal });
      }
    };
    return headwater.while(find());
  });
}

interface Fold {
  readonly url: string;
  readonly file: string;
  readonly redis: RedisClient;
  readonly definition: Definition;
  readonly end: number;
}

async function fold(
  context: BenchContext,
  { url, file, redis, definition, end }: Fold,
  scope: Scope,
): Promise<Pick<Measurement, 'seconds' | 'usage'>> {
  const { servers, signal } = context;
  const env = { DATABASE_URL: url, NATS_URL: servers.nats.operator, REDIS_URL: servers.redisUrl, HEADWATER_CATALOG: file };
  const headwater = startHeadwater(['aggregates'], env, context, scope);
  const { at: begun } = await headwater.logged(/^aggregates.trades: going on/, signal);
  const watch = new UsageWatch([{ process: 'headwater (aggregates)', pid: headwater.pid }, servers.redis, ...servers.watched]);
  scope.defer(() => void watch.stop());
  const offset = namespaceOf(definition.name, definition.hash).offset('aggregates');
  const reached = async (): Promise<number> => {
    while (Number(await redis.hget(offset, 'seq')) < end) await sleep(pollMs, undefined, { signal });
    return performance.now();
  };
  const done = await headwater.while(reached());
  const peakMb = peakMbOf(headwater.pid);
  const usage = watch.stop().map((each) => (each.process.startsWith('headwater') ? { ...each, peakMb } : each));
  return { seconds: (done - begun) / 1_000, usage };
}

/** The windows of a day hold what the table does. */
async function verify(client: PgClient, redis: RedisClient, definition: Definition, events: number): Promise<void> {
  const { prefix } = namespaceOf(definition.name, definition.hash);
  let count = 0;
  for (const group of await redis.zrange(aggregateKeys.groups(prefix), '0', '-1'))
    for (const [field, record] of Object.entries(await redis.hgetall(aggregateKeys.windows(prefix, group))))
      if (field.startsWith('1d:')) count += decodeRecord(record).count;
  const { rows } = await client.query<{ count: number }>('SELECT count(*)::float8 AS count FROM public.trades');
  const wanted = definition.of === 'rows' ? rows[0]!.count : undefined;
  if ((wanted !== undefined && count !== wanted) || count > events || count === 0)
    throw new Error(`the windows are wrong: they hold ${count} of ${wanted ?? events}`);
}

function report(measurements: readonly Measurement[]): Report {
  const of = (work: Work): readonly Measurement[] => measurements.filter(({ title, keys }) => title === work.title && keys === work.keys);
  const rows = works.map((work) => {
    const own = of(work);
    const ratios = own.map(({ seconds, idleSeconds }) => idleSeconds / seconds);
    const rate = (seconds: (each: Measurement) => number): string => grouped(median(own.map((each) => each.events / seconds(each))));
    return [
      work.title,
      grouped(work.keys),
      rate(({ seconds }) => seconds),
      rate(({ idleSeconds }) => idleSeconds),
      median(ratios).toFixed(2),
      range(ratios, 2),
    ];
  });
  const groups = works.map((work) => ({
    title: `${work.title}, ${grouped(work.keys)} keys`,
    usage: medianUsage(of(work).map(({ usage }) => usage)),
  }));
  return {
    tables: [
      { title: 'Events into windows', head: ['OF', 'KEYS', 'EVENTS/s', 'IDLE RUNNER', 'RATIO', 'RANGE'], rows },
      usageTable('What it takes', groups),
    ],
    notes: [
      `${grouped(measurements[0]!.events)} events are in the log when the role starts; 5 % of them are an hour late, 5 % correct an earlier one. Timed until the offset is stored`,
      'behind the last of them, with windows of 1m, 5m, 1h and 1d; those of 5m, 1h and 24h that slide are put together when they are read.',
      'Idle runner: reads the same events, applies nothing, and stores its offset in the same Redis.',
    ],
    measurements,
  };
}
