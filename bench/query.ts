import { setTimeout as sleep } from 'node:timers/promises';
import { migrate } from '../deploy/migrate.ts';
import { createPool, type PgClient } from '../pipeline/clients/postgres.ts';
import { createKey } from '../pipeline/keys/postgres-keys.ts';
import { silentLogger } from '../pipeline/runtime/logging.ts';
import { usageTable, type Bench, type BenchContext, type Report } from './lib/bench.ts';
import { startHeadwater, startProgram, within, type Headwater } from './lib/processes.ts';
import { StaleCheck } from './lib/stale-check.ts';
import { scoped, type Scope } from './lib/scope.ts';
import { freshDatabase, sqlClient } from './lib/servers.ts';
import { grouped, median, medianSpread, spreadOf, type Spread } from './lib/statistics.ts';
import { medianUsage, UsageWatch, type Usage } from './lib/usage.ts';
import type { QueryFigures, QueryLoad } from './programs/query-load.ts';
import type { SqlFigures, SqlLoad } from './programs/sql-load.ts';

/** How many clients, and how long each rests between an answer and its next query. */
interface Load {
  readonly clients: number;
  readonly restMs: number;
}

/** Those without rest ask for more than there is: then the time is how long the queue is. */
const loads: readonly Load[] = [
  { clients: 1_000, restMs: 500 },
  { clients: 100, restMs: 0 },
  { clients: 1_000, restMs: 0 },
];
const tokens = 1_000;
const rowsPerToken = 1_000;
const asked = 100;
const writesPerSecond = 100;
const connections = 8;

interface Side {
  readonly latency: Spread;
  readonly perSecond: number;
}

interface Measurement extends Load {
  readonly ours: Side;
  readonly yardstick: Side;
  /** Part of the answers that came from the cache. */
  readonly hits: number;
  /** Answers that lacked a change which the log held before they were asked for, and how many were looked at. */
  readonly stale: number;
  readonly checked: number;
  readonly usage: readonly Usage[];
}

interface Stage {
  readonly url: string;
  readonly client: PgClient;
  readonly headwater: Headwater;
  readonly port: number;
  readonly key: string;
}

/** How fast queries are answered that many ask again and again, while the table changes. */
export const queryBench: Bench = {
  name: 'query',
  about: 'answers of POST /v2/query in ms, by clients; 200 queries on 1,000,000 rows, 100 writes/s; yardstick: the same SQL by pg',
  async run(context) {
    const measurements: Measurement[] = [];
    await scoped(async (scope) => {
      const stage = await setUp(context, scope);
      for (let run = 1; run <= context.runs; run++) {
        for (const load of loads) {
          const measured = await measure(context, stage, load);
          measurements.push(measured);
          const { ours, hits } = measured;
          context.say(
            `${nameOf(load)}, run ${run} of ${context.runs}: p95 ${ours.latency.p95.toFixed(1)} ms, ${(100 * hits).toFixed(1)} % hits`,
          );
        }
      }
    });
    return report(measurements);
  },
};

async function setUp(context: BenchContext, scope: Scope): Promise<Stage> {
  const { servers, signal } = context;
  const url = await freshDatabase(servers, scope, signal);
  const client = await sqlClient(url, scope);
  await migrate(url, { demo: false, log: silentLogger() });
  await client.query(`
    CREATE TABLE public.quotes (
      token_id integer, day integer, price numeric(20, 8) NOT NULL, version integer NOT NULL, note text NOT NULL, PRIMARY KEY (token_id, day)
    )`);
  await client.query(
    `INSERT INTO public.quotes SELECT t, d, 100 + (t * 7919 + d * 104729) % 100000 / 101.0, 0, md5(t || '/' || d)
     FROM generate_series(1, ${tokens}) t, generate_series(1, ${rowsPerToken}) d`,
  );
  await client.query('VACUUM ANALYZE public.quotes');
  const pool = createPool(url, 'headwater bench', silentLogger(), 1);
  const { key } = await createKey(pool, { name: 'bench', owner: 'bench', scopes: ['read'] });
  await pool.end();
  const env = {
    ...{ DATABASE_URL: url, NATS_URL: servers.nats.operator, REDIS_URL: servers.redisUrl, HEADWATER_PORT: '0' },
    ...{ HEADWATER_QUERY_TIERS: 'standard=100000000/100000', HEADWATER_QUERY_CONNECTIONS: String(connections) },
  };
  // Capture by itself: its work is not the gateway's.
  const capture = startHeadwater(['capture'], env, { ...context, profile: undefined }, scope);
  await capture.logged(/^streaming/, signal);
  const headwater = startHeadwater(['gateway'], env, context, scope);
  const { match } = await headwater.logged(/^gateway listens on http:\/\/\S+:(\d+)/, signal);
  await sleep(1_000, undefined, { signal });
  return { url, client, headwater, port: Number(match[1]), key };
}

/** The yardstick first: while it runs, nobody asks the gateway. */
async function measure(context: BenchContext, stage: Stage, load: Load): Promise<Measurement> {
  const [warmUpSeconds, seconds] = context.quick ? [1, 4] : [4, 16];
  const span = { ...load, warmUpSeconds, seconds };
  const yardstick = await whileWriting(context, stage, (scope) => bySql(context, stage, span, scope));
  return whileWriting(context, stage, async (scope) => {
    const check = await StaleCheck.start(context.servers, stage, scope, context.signal);
    const order = { ...span, port: stage.port, key: stage.key, bodies: bodies() } satisfies QueryLoad;
    const program = startProgram('query-load', order, scope);
    const watch = new UsageWatch([
      { process: 'headwater (gateway)', pid: stage.headwater.pid },
      ...context.servers.watched,
      { process: 'clients', pid: program.pid },
    ]);
    scope.defer(() => void watch.stop());
    const { latencies, hits, refused } = await stage.headwater.while(
      within((warmUpSeconds + seconds + 30) * 1_000, 'the clients', program.next<QueryFigures>(context.signal)),
    );
    const usage = watch.stop();
    const { stale, checked } = await check.stop();
    if (refused.length > 0) throw new Error(`${refused.length} queries were refused, one of them: ${refused[0]}`);
    if (stale > 0) throw new Error(`${stale} of ${checked} answers were stale`);
    return { ...load, ours: sideOf(latencies, seconds), yardstick, hits: hits / latencies.length, stale, checked, usage };
  });
}

async function bySql(
  context: BenchContext,
  stage: Stage,
  span: Pick<SqlLoad, 'clients' | 'restMs' | 'warmUpSeconds' | 'seconds'>,
  scope: Scope,
): Promise<Side> {
  const load = { ...span, url: stage.url, connections, statements: statements() } satisfies SqlLoad;
  const { latencies } = await startProgram('sql-load', load, scope).next<SqlFigures>(context.signal);
  return sideOf(latencies, span.seconds);
}

function sideOf(latencies: Float64Array, seconds: number): Side {
  return { latency: spreadOf(latencies), perSecond: latencies.length / seconds };
}

/** The newest rows of a token, and figures over all of them, in turn. */
function bodies(): readonly string[] {
  return Array.from({ length: asked }, (_, n) => n + 1).flatMap((token) => [
    newestRows(token),
    JSON.stringify({
      from: 'quotes',
      where: { field: 'token_id', op: 'eq', value: token },
      aggregate: { n: { fn: 'count' }, mean: { fn: 'avg', field: 'price' }, top: { fn: 'max', field: 'price' } },
    }),
  ]);
}

function newestRows(token: number): string {
  return JSON.stringify({
    from: 'quotes',
    where: { field: 'token_id', op: 'eq', value: token },
    orderBy: [{ field: 'day', dir: 'desc' }],
    limit: 20,
  });
}

function statements(): SqlLoad['statements'] {
  const rows = 'SELECT token_id, day, price, version, note FROM public.quotes WHERE token_id = $1 ORDER BY day DESC LIMIT 20';
  const figures = 'SELECT count(*) AS n, avg(price) AS mean, max(price) AS top FROM public.quotes WHERE token_id = $1';
  return Array.from({ length: asked }, (_, n) => n + 1).flatMap((token) => [
    { name: 'rows', text: rows, values: [token] },
    { name: 'figures', text: figures, values: [token] },
  ]);
}

/** Runs `work` while rows anywhere in the table change. */
async function whileWriting<T>({ signal }: BenchContext, { url }: Stage, work: (scope: Scope) => Promise<T>): Promise<T> {
  return scoped(async (scope) => {
    const client = await sqlClient(url, scope);
    const ended = new AbortController();
    const writing = write(client, AbortSignal.any([signal, ended.signal]));
    scope.defer(async () => {
      ended.abort();
      await writing;
    });
    return work(scope);
  });
}

async function write(client: PgClient, signal: AbortSignal): Promise<void> {
  const begun = performance.now();
  const random = (most: number): number => 1 + Math.floor(Math.random() * most);
  for (let n = 0; !signal.aborted; n++) {
    const early = (n / writesPerSecond) * 1_000 - (performance.now() - begun);
    if (early > 0) await sleep(early, undefined, { signal }).catch(() => undefined);
    await client.query({
      name: 'write',
      text: 'UPDATE public.quotes SET price = price + 0.01, version = version + 1 WHERE token_id = $1 AND day = $2',
      values: [random(tokens), random(rowsPerToken)],
    });
  }
}

function nameOf({ clients, restMs }: Load): string {
  return `${grouped(clients)} clients, ${restMs > 0 ? `resting ${restMs} ms` : 'without rest'}`;
}

function report(measurements: readonly Measurement[]): Report {
  const rows: string[][] = [];
  const groups = [];
  for (const load of loads) {
    const own = measurements.filter((each) => each.clients === load.clients && each.restMs === load.restMs);
    for (const who of ['yardstick', 'ours'] as const) {
      const { p50, p95, p99 } = medianSpread(own.map((each) => each[who].latency));
      const perSecond = grouped(median(own.map((each) => each[who].perSecond)));
      const hits = `${(100 * median(own.map((each) => each.hits))).toFixed(1)} %`;
      const stale = `${own.reduce((sum, each) => sum + each.stale, 0)} of ${own.reduce((sum, each) => sum + each.checked, 0)}`;
      rows.push([
        grouped(load.clients),
        load.restMs > 0 ? `${load.restMs} ms` : 'none',
        who,
        perSecond,
        ...[p50, p95, p99].map((ms) => ms.toFixed(1)),
        ...(who === 'ours' ? [hits, stale] : ['', '']),
      ]);
    }
    groups.push({ title: nameOf(load), usage: medianUsage(own.map(({ usage }) => usage)) });
  }
  return {
    tables: [
      { title: 'Answers', head: ['CLIENTS', 'REST', '', 'ANSWERS/s', 'p50 ms', 'p95 ms', 'p99 ms', 'HITS', 'STALE'], rows },
      usageTable('What it takes', groups),
    ],
    notes: [
      `${grouped(tokens * rowsPerToken)} rows of ${grouped(tokens)} tokens; 200 queries, two on each of ${asked} tokens, asked for by Zipf's law; ${writesPerSecond} single-row updates a second all over the`,
      `table. A client asks again after its rest; without one, all ask at once all the time. Yardstick: the same SQL on ${connections} connections of pg, as many as the gateway has. Stale: an answer that`,
      'lacks a change which was in the log before it was asked for; a second reader of the log looks for those all the while.',
    ],
    measurements,
  };
}
