import { createPool } from '../pipeline/clients/postgres.ts';
import { createKey } from '../pipeline/keys/postgres-keys.ts';
import { silentLogger } from '../pipeline/runtime/logging.ts';
import { migrate } from '../deploy/migrate.ts';
import { usageTable, type Bench, type BenchContext, type Report } from './lib/bench.ts';
import { startHeadwater, startProgram, within, type Headwater, type Program } from './lib/processes.ts';
import { scoped, type Scope } from './lib/scope.ts';
import { freshDatabase, sqlClient } from './lib/servers.ts';
import { grouped, median, medianSpread, spreadOf, type Spread } from './lib/statistics.ts';
import { medianUsage, UsageWatch, type Usage } from './lib/usage.ts';
import { updateDistance, type Arrivals, type Commits } from './programs/commits.ts';
import type { ReaderOrder } from './programs/pgoutput-reader.ts';
import type { SocketOrder } from './programs/socket-client.ts';
import type { WebSocketOrder } from './programs/websocket-client.ts';
import type { WriterOrder, Written } from './programs/writer.ts';

/** Commits a second; the last one shows how cost grows. */
const rates = [200, 1_000, 2_000] as const;
/** How long the last events may take after the last commit. */
const arrivalMs = 30_000;

/** Latencies of one measurement in ms. An event can be there before its COMMIT has returned: then it is negative. */
interface Latency extends Spread {
  /** Part of the events that were there first. */
  readonly negative: number;
}

interface Measurement {
  readonly rate: number;
  /** What the writer really did, commits a second. */
  readonly reached: number;
  readonly commits: number;
  readonly ours: Latency;
  readonly yardstick: Latency;
  readonly usage: readonly Usage[];
}

/** Everything that stays for all rates of a run. */
interface Stage {
  readonly url: string;
  readonly headwater: Headwater;
  readonly gateway: string;
  readonly key: string;
  readonly reader: Program;
  readonly port: number;
}

/** How long a commit takes to reach a WebSocket client. */
export const latencyBench: Bench = {
  name: 'latency',
  about: 'COMMIT returned to event in a WebSocket client, in ms; yardstick: bare pgoutput reader to socket, on the same commits',
  async run(context) {
    const measurements: Measurement[] = [];
    for (let run = 1; run <= context.runs; run++) {
      await scoped(async (scope) => {
        const stage = await setUp(context, scope);
        let firstId = updateDistance + 1;
        for (const rate of rates) {
          const measured = await measure(context, stage, rate, firstId);
          firstId += measured.commits / 2;
          measurements.push(measured);
          context.say(`${rate}/s, run ${run} of ${context.runs}: p50 ${ms(measured.ours.p50)} ms, p99 ${ms(measured.ours.p99)} ms`);
        }
      });
    }
    return report(measurements);
  },
};

async function setUp(context: BenchContext, scope: Scope): Promise<Stage> {
  const { servers, signal } = context;
  const url = await freshDatabase(servers, scope, signal);
  const client = await sqlClient(url, scope);
  await migrate(url, { demo: false, log: silentLogger() });
  await client.query(
    `CREATE TABLE public.quotes (id bigint PRIMARY KEY, symbol text NOT NULL, price numeric(20, 8) NOT NULL, note text, quoted_at timestamptz NOT NULL)`,
  );
  await client.query(
    `INSERT INTO public.quotes SELECT i, 'TOKEN' || i || '-USD', 100 + i / 7.0, 'a row that was there', now() FROM generate_series(1, ${updateDistance}) i`,
  );
  const key = await makeKey(url);
  const env = { DATABASE_URL: url, NATS_URL: servers.nats.operator, REDIS_URL: servers.redisUrl, HEADWATER_PORT: '0' };
  const headwater = startHeadwater(['capture', 'cache', 'gateway'], env, context, scope);
  const { match } = await headwater.logged(/^gateway listens on (\S+)/, signal);
  await headwater.logged(/^streaming/, signal);
  await client.query('CREATE PUBLICATION yardstick FOR TABLE public.quotes');
  await client.query(`SELECT pg_create_logical_replication_slot('yardstick', 'pgoutput')`);
  const reader = startProgram('pgoutput-reader', { url, slot: 'yardstick', publication: 'yardstick' } satisfies ReaderOrder, scope);
  const port = await reader.next<number>(signal);
  return { url, headwater, gateway: match[1]!, key, reader, port };
}

async function makeKey(url: string): Promise<string> {
  const pool = createPool(url, 'headwater bench', silentLogger(), 1);
  try {
    return (await createKey(pool, { name: 'bench', owner: 'bench', scopes: ['read'] })).key;
  } finally {
    await pool.end();
  }
}

/** Ours and the yardstick see the same commits at the same time. */
async function measure(context: BenchContext, stage: Stage, rate: number, firstId: number): Promise<Measurement> {
  const { servers, signal, quick } = context;
  // The first seconds warm everything up, and do not count.
  const [warmUpSeconds, seconds] = quick ? [1, 5] : [3, 20];
  const skip = warmUpSeconds * rate;
  const commits: Commits = { count: skip + seconds * rate, firstId };
  const { url, gateway, key, port, headwater, reader } = stage;
  return scoped(async (scope) => {
    const subscriber = startProgram(
      'websocket-client',
      { gateway, key, channel: 'public.quotes', commits } satisfies WebSocketOrder,
      scope,
    );
    const socket = startProgram('socket-client', { port, commits } satisfies SocketOrder, scope);
    await Promise.all([subscriber.next(signal), socket.next(signal)]);
    const writer = startProgram('writer', { url, commits, rate } satisfies WriterOrder, scope);
    const watch = new UsageWatch([
      { process: 'headwater (capture, cache, gateway)', pid: headwater.pid },
      ...servers.watched,
      { process: 'yardstick: reader', pid: reader.pid },
      { process: 'writer', pid: writer.pid },
      { process: 'WebSocket client', pid: subscriber.pid },
    ]);
    scope.defer(() => void watch.stop());
    const written = await writer.next<Written>(signal);
    const usage = watch.stop();
    const arrivals = (who: string, program: Program): Promise<Arrivals> =>
      headwater.while(within(arrivalMs, `${who}: every event`, program.next<Arrivals>(signal)));
    const [ours, yardstick] = await Promise.all([arrivals('ours', subscriber), arrivals('yardstick', socket)]);
    return {
      rate,
      reached: commits.count / written.seconds,
      commits: commits.count,
      ours: latencyOf(written, ours, skip),
      yardstick: latencyOf(written, yardstick, skip),
      usage,
    };
  });
}

function latencyOf({ returnedAt }: Written, { at, odd }: Arrivals, skip: number): Latency {
  if (odd > 0) throw new Error(`${odd} events came twice or belong to no commit`);
  const latencies = at.subarray(skip).map((arrived, i) => (arrived - returnedAt[skip + i]!) / 1e6);
  return { ...spreadOf(latencies), negative: latencies.filter((each) => each < 0).length / latencies.length };
}

function ms(value: number): string {
  return value.toFixed(2);
}

function report(measurements: readonly Measurement[]): Report {
  const rows: string[][] = [];
  const groups = [];
  for (const rate of rates) {
    const own = measurements.filter((each) => each.rate === rate);
    const [ours, yardstick] = (['ours', 'yardstick'] as const).map((who) => medianSpread(own.map((each) => each[who])));
    const reached = grouped(median(own.map((each) => each.reached)));
    for (const [who, spread] of [
      ['yardstick', yardstick!],
      ['ours', ours!],
    ] as const) {
      const negative = median(own.map((each) => each[who].negative));
      const values = [spread.p50, spread.p90, spread.p99, spread.max].map(ms);
      rows.push([reached, who, ...values, `${(100 * negative).toFixed(0)} %`]);
    }
    rows.push([reached, 'difference', ...(['p50', 'p90', 'p99', 'max'] as const).map((each) => ms(ours![each] - yardstick![each])), '']);
    groups.push({ title: `${rate}/s`, usage: medianUsage(own.map(({ usage }) => usage)) });
  }
  const head = ['COMMITS/s', '', 'p50 ms', 'p90 ms', 'p99 ms', 'MAX ms', 'BEFORE COMMIT RETURNED'];
  return {
    tables: [{ title: 'COMMIT returned to event received', head, rows }, usageTable('What it takes', groups)],
    notes: [
      'Ours: WAL, capture, log (fsynced), gateway, WebSocket client. Yardstick: WAL, bare pgoutput reader, TCP socket, client. Both see the same commits',
      'at the same time. An event that is there before the COMMIT returned to the writer counts as negative time.',
    ],
    measurements,
  };
}
