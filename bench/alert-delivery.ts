import { setTimeout as sleep } from 'node:timers/promises';
import { migrate } from '../deploy/migrate.ts';
import { connectPostgres, type PgClient } from '../pipeline/clients/postgres.ts';
import { silentLogger } from '../pipeline/runtime/logging.ts';
import { usageTable, type Bench, type BenchContext, type Report } from './lib/bench.ts';
import { startHeadwater, startProgram, within, type Headwater, type Program } from './lib/processes.ts';
import { scoped, type Scope } from './lib/scope.ts';
import { freshDatabase, sqlClient } from './lib/servers.ts';
import { grouped, median, medianSpread, spreadOf, type Spread } from './lib/statistics.ts';
import { medianUsage, UsageWatch, type Usage } from './lib/usage.ts';
import type { Deliveries, ReceiverOrder } from './programs/webhook-receiver.ts';

/** Rules, each on a row of its own; the second size shows how cost grows. */
const sizes = [1_000, 10_000] as const;
const rowsPerCommit = 10;
const commitsPerSecond = 100;
/** One commit in so many makes an alert fire, and so one event in a hundred. */
const firesEvery = 10;
const deliveryMs = 60_000;
const threshold = 1_000;

interface Measurement {
  readonly rules: number;
  readonly alerts: number;
  /** What the writer really did. */
  readonly eventsPerSecond: number;
  /** COMMIT returned → request of the webhook received, in ms. */
  readonly latency: Spread;
  /** From the last commit until the alerts role had stored its offset behind it. */
  readonly behindMs: number;
  readonly usage: readonly Usage[];
}

interface Stage {
  readonly client: PgClient;
  readonly writer: PgClient;
  readonly headwater: Headwater;
  readonly receiver: Program;
}

/** How long a commit takes to reach the webhook of the alert that it makes fire, with all roles at work. */
export const alertDeliveryBench: Bench = {
  name: 'alert-delivery',
  about: 'COMMIT returned to webhook received, in ms, all roles at work on 1,000 events/s, 1 % of which make an alert fire',
  async run(context) {
    const measurements: Measurement[] = [];
    for (let run = 1; run <= context.runs; run++) {
      for (const rules of sizes) {
        const measured = await scoped((scope) => measure(context, rules, scope));
        measurements.push(measured);
        const { p50, p99 } = measured.latency;
        context.say(`${grouped(rules)} rules, run ${run} of ${context.runs}: p50 ${p50.toFixed(0)} ms, p99 ${p99.toFixed(0)} ms`);
      }
    }
    return report(measurements);
  },
};

async function measure(context: BenchContext, rules: number, scope: Scope): Promise<Measurement> {
  const [warmUpSeconds, seconds] = context.quick ? [1, 5] : [5, 30];
  const skipped = (warmUpSeconds * commitsPerSecond) / firesEvery;
  const commits = (warmUpSeconds + seconds) * commitsPerSecond;
  const alerts = commits / firesEvery;
  const stage = await setUp(context, rules, alerts, scope);
  const { client, writer, headwater, receiver } = stage;
  const watch = new UsageWatch([{ process: 'headwater (all roles)', pid: headwater.pid }, ...context.servers.watched]);
  scope.defer(() => void watch.stop());
  const begun = performance.now();
  const returnedAt = await headwater.while(write(writer, rules, commits));
  const wroteFor = (performance.now() - begun) / 1_000;
  const behindMs = await headwater.while(caughtUp(context, client));
  const usage = watch.stop();
  const arrived = await headwater.while(within(deliveryMs, 'every webhook', receiver.next<Deliveries>(context.signal)));
  if (arrived.repeated > 0) throw new Error(`${arrived.repeated} notices came twice, although nothing failed`);
  const latencies = returnedAt.slice(skipped).map((returned, i) => (arrived.at.get(rowThatFires(skipped + i))! - returned) / 1e6);
  return { rules, alerts, eventsPerSecond: (commits * rowsPerCommit) / wroteFor, latency: spreadOf(latencies), behindMs, usage };
}

async function setUp(context: BenchContext, rules: number, alerts: number, scope: Scope): Promise<Stage> {
  const { servers, signal } = context;
  const url = await freshDatabase(servers, scope, signal);
  const client = await sqlClient(url, scope);
  await migrate(url, { demo: false, log: silentLogger() });
  await client.query('CREATE TABLE public.quotes (id integer PRIMARY KEY, price numeric(20, 8) NOT NULL)');
  await client.query('INSERT INTO public.quotes SELECT i, 100 FROM generate_series(1, $1::int) i', [rules]);
  const receiver = startProgram('webhook-receiver', { alerts } satisfies ReceiverOrder, scope);
  const port = await receiver.next<number>(signal);
  // A user each, so that nobody gets a digest.
  await client.query(
    `INSERT INTO headwater.alert_rules (user_id, name, table_name, match, condition, channels)
     SELECT 'user ' || i, 'rule ' || i, 'public.quotes', jsonb_build_object('id', jsonb_build_array(i)),
       '{"field":"price","op":"gt","value":${threshold}}', $2 FROM generate_series(1, $1::int) i`,
    [rules, JSON.stringify([{ type: 'webhook', url: `http://127.0.0.1:${port}/alerts` }])],
  );
  const env = {
    ...{ DATABASE_URL: url, NATS_URL: servers.nats.operator, REDIS_URL: servers.redisUrl, HEADWATER_PORT: '0' },
    // All webhooks go to one receiver on this machine.
    ...{ HEADWATER_ALLOW_PRIVATE_WEBHOOKS: 'true', HEADWATER_NOTIFY_RATE: '10000' },
  };
  const headwater = startHeadwater(['capture', 'cache', 'alerts', 'notify', 'gateway'], env, context, scope);
  await headwater.logged(/^streaming/, signal);
  await headwater.while(caughtUp(context, client));
  const writer = await connectPostgres(url, 'headwater bench writer', silentLogger());
  scope.defer(() => writer.end());
  return { client, writer, headwater, receiver };
}

/** Ids from 1 on fire one after the other; the others are updated below the threshold. */
function rowThatFires(nth: number): number {
  return nth + 1;
}

/** Writes at the rate, and answers when each commit returned that makes an alert fire, in ns of the monotonic clock. */
async function write(writer: PgClient, rules: number, commits: number): Promise<Float64Array> {
  const firing = commits / firesEvery;
  const returnedAt = new Float64Array(firing);
  const begun = performance.now();
  const update = {
    name: 'update',
    text: `UPDATE public.quotes SET price = CASE WHEN id = $3 THEN ${threshold + 1} ELSE $2::numeric END WHERE id = ANY ($1::int[])`,
  };
  for (let n = 0; n < commits; n++) {
    const early = (n / commitsPerSecond) * 1_000 - (performance.now() - begun);
    if (early > 0) await sleep(early);
    const fires = n % firesEvery === 0 ? rowThatFires(n / firesEvery) : 0;
    // Rows behind those that fire, so that no alert ends.
    const ids = Array.from({ length: rowsPerCommit }, (_, i) => firing + 1 + ((n * rowsPerCommit + i) % (rules - firing)));
    if (fires > 0) ids[0] = fires;
    await writer.query({ ...update, values: [ids, (100 + (n % 10_000) / 101).toFixed(8), fires] });
    if (fires > 0) returnedAt[fires - 1] = Number(process.hrtime.bigint());
  }
  return returnedAt;
}

/** Until the alerts role has stored its offset behind all that has been committed, in ms from now. */
async function caughtUp({ servers, signal }: BenchContext, client: PgClient): Promise<number> {
  const begun = performance.now();
  const name = `end${begun}`.replace('.', '_');
  await client.query('SELECT pg_logical_emit_message(true, $1, $1)', [name]);
  for (let seq: number | undefined; ; await sleep(5, undefined, { signal })) {
    seq ??= (await servers.jsm.streams.getMessage('EVENTS', { last_by_subj: `ev._message.${name}` }).catch(() => null))?.seq;
    if (seq === undefined) continue;
    const { rows } = await client.query<{ seq: string }>(`SELECT seq FROM headwater.processor_offsets WHERE processor = 'alerts'`);
    if (Number(rows[0]?.seq ?? 0) >= seq) return performance.now() - begun;
  }
}

function report(measurements: readonly Measurement[]): Report {
  const of = (rules: number): readonly Measurement[] => measurements.filter((each) => each.rules === rules);
  const rows = sizes.map((rules) => {
    const own = of(rules);
    const { p50, p90, p99, max } = medianSpread(own.map(({ latency }) => latency));
    return [
      grouped(rules),
      grouped(median(own.map(({ eventsPerSecond }) => eventsPerSecond))),
      grouped(median(own.map(({ alerts }) => alerts))),
      ...[p50, p90, p99, max, median(own.map(({ behindMs }) => behindMs))].map((ms) => ms.toFixed(0)),
    ];
  });
  const groups = sizes.map((rules) => ({ title: `${grouped(rules)} rules`, usage: medianUsage(of(rules).map(({ usage }) => usage)) }));
  const head = ['RULES', 'EVENTS/s', 'ALERTS', 'p50 ms', 'p90 ms', 'p99 ms', 'MAX ms', 'BEHIND ms'];
  return {
    tables: [{ title: 'COMMIT returned to webhook received', head, rows }, usageTable('What it takes', groups)],
    notes: [
      `WAL, capture, log (fsynced), alerts, outbox, notify, signed webhook to a receiver on this machine; capture, cache, alerts, notify and gateway in one`,
      `process. ${commitsPerSecond} commits of ${rowsPerCommit} rows a second. Behind: from the last commit until the alerts role had stored its offset behind it.`,
    ],
    measurements,
  };
}
