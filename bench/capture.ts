import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { PgClient } from '../pipeline/clients/postgres.ts';
import { usageTable, type Bench, type BenchContext, type Report, type UsageOf } from './lib/bench.ts';
import { startHeadwater, type Headwater } from './lib/processes.ts';
import { createTrades, loadTrades, tradesLogged, verifyTrades } from './lib/rows.ts';
import { scoped, type Scope } from './lib/scope.ts';
import { freshDatabase, sqlClient } from './lib/servers.ts';
import { grouped, median, range } from './lib/statistics.ts';
import { endedChildrenCpuSeconds, medianUsage, peakMbOf, UsageWatch, type Usage } from './lib/usage.ts';

/** How the rows were committed. */
interface Shape {
  readonly rows: number;
  readonly perTransaction: number;
}

interface Drained {
  readonly seconds: number;
  readonly usage: readonly Usage[];
}

interface Measurement extends Shape {
  readonly eventBytes: number;
  readonly first: 'yardstick' | 'ours';
  readonly yardstick: Drained;
  readonly ours: Drained;
  /** Our speed as a part of the yardstick's. */
  readonly ratio: number;
}

/** How fast committed rows get from the WAL into the log, durably, beside a program that only drains the same WAL. */
export const captureBench: Bench = {
  name: 'capture',
  about: 'WAL to log, each event fsynced, in rows/s; yardstick: pg_recvlogical drains the same WAL to nothing',
  async run(context) {
    const rows = context.quick ? 50_000 : 500_000;
    const shapes = [10, 10_000].flatMap((perTransaction) => [
      { rows, perTransaction },
      { rows: rows / 10, perTransaction: Math.min(perTransaction, rows / 10) },
    ]);
    const measurements: Measurement[] = [];
    for (let run = 1; run <= context.runs; run++) {
      for (const shape of shapes) {
        const measured = await measure(context, shape, run % 2 === 1 ? 'yardstick' : 'ours');
        measurements.push(measured);
        context.say(`${describe(shape)}, run ${run} of ${context.runs}: ratio ${measured.ratio.toFixed(2)}`);
      }
    }
    return report(shapes, measurements);
  },
};

function describe({ rows, perTransaction }: Shape): string {
  return `${grouped(rows)} rows in transactions of ${grouped(perTransaction)}`;
}

/** Both drain the same WAL, one after the other. */
async function measure(context: BenchContext, shape: Shape, first: 'yardstick' | 'ours'): Promise<Measurement> {
  const { servers, signal } = context;
  return scoped(async (scope) => {
    const url = await freshDatabase(servers, scope, signal);
    const client = await sqlClient(url, scope);
    await createTrades(client);
    await makeSlots(context, url, client);
    await loadTrades(client, shape.rows, shape.perTransaction, signal);
    // Dirty pages go out now rather than while we measure.
    await client.query('CHECKPOINT');
    const end = await walEnd(client);
    const drains = {
      yardstick: () => drainWithYardstick(context, url, end, scope),
      ours: () => drainWithHeadwater(context, url, shape.rows),
    };
    const drained: Partial<Record<'yardstick' | 'ours', Drained>> = {};
    for (const name of first === 'yardstick' ? (['yardstick', 'ours'] as const) : (['ours', 'yardstick'] as const)) {
      drained[name] = await drains[name]();
    }
    const { yardstick, ours } = drained as Record<'yardstick' | 'ours', Drained>;
    const eventBytes = await verifyTrades(servers, shape.rows, signal);
    return { ...shape, eventBytes, first, yardstick, ours, ratio: yardstick.seconds / ours.seconds };
  });
}

/** Headwater makes its slot and its log while the table is empty; the yardstick gets a slot at nearly the same place. */
async function makeSlots(context: BenchContext, url: string, client: PgClient): Promise<void> {
  await scoped(async (scope) => {
    const headwater = startCapture({ ...context, profile: undefined }, url, scope);
    await headwater.logged(/^streaming/, context.signal);
  });
  await client.query('CREATE PUBLICATION yardstick FOR TABLE public.trades');
  await client.query(`SELECT pg_create_logical_replication_slot('yardstick', 'pgoutput')`);
}

function startCapture(context: BenchContext, url: string, scope: Scope): Headwater {
  const { nats, redisUrl } = context.servers;
  return startHeadwater(['capture'], { DATABASE_URL: url, NATS_URL: nats.capture, REDIS_URL: redisUrl }, context, scope);
}

async function walEnd(client: PgClient): Promise<string> {
  const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn');
  return rows[0]!.lsn;
}

/** From the log line that says streaming begins to the last row in the log. */
async function drainWithHeadwater(context: BenchContext, url: string, rows: number): Promise<Drained> {
  const { servers, signal } = context;
  return scoped(async (scope) => {
    const headwater = startCapture(context, url, scope);
    const { at: begun } = await headwater.logged(/^streaming/, signal);
    const polling = { process: 'this bench, polling the log', pid: process.pid };
    const watch = new UsageWatch([{ process: 'headwater', pid: headwater.pid }, ...servers.watched, polling]);
    scope.defer(() => void watch.stop());
    const ended = await headwater.while(tradesLogged(servers, rows, signal));
    const usage = watch.stop();
    const peakMb = peakMbOf(headwater.pid);
    return { seconds: (ended - begun) / 1_000, usage: usage.map((each) => (each.process === 'headwater' ? { ...each, peakMb } : each)) };
  });
}

/** From the start of pg_recvlogical to its end: it connects in a few milliseconds. */
async function drainWithYardstick({ servers, signal }: BenchContext, url: string, end: string, scope: Scope): Promise<Drained> {
  signal.throwIfAborted();
  const cpuBefore = endedChildrenCpuSeconds();
  const begun = performance.now();
  const child = spawn(
    servers.pgRecvlogical,
    ['-d', url, '--slot', 'yardstick', '--start', '--no-loop', '--endpos', end, '-f', '/dev/null'].concat(
      ...['proto_version=1', 'publication_names=yardstick'].map((option) => ['-o', option]),
    ),
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  const exited = once(child, 'close');
  const kill = (): boolean => child.kill();
  signal.addEventListener('abort', kill, { once: true });
  scope.defer(() => signal.removeEventListener('abort', kill));
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
  const watch = new UsageWatch([...(child.pid === undefined ? [] : [{ process: 'pg_recvlogical', pid: child.pid }]), ...servers.watched]);
  scope.defer(() => void watch.stop());
  const [code] = (await exited) as [number | null];
  const seconds = (performance.now() - begun) / 1_000;
  const usage = watch.stop();
  signal.throwIfAborted();
  if (code !== 0) throw new Error(`pg_recvlogical ended with ${code}: ${errors}`);
  const cpuSeconds = endedChildrenCpuSeconds() - cpuBefore;
  return { seconds, usage: usage.map((each) => (each.process === 'pg_recvlogical' ? { ...each, cpuSeconds } : each)) };
}

function report(shapes: readonly Shape[], measurements: readonly Measurement[]): Report {
  const rows: string[][] = [];
  const groups: UsageOf[] = [];
  for (const shape of shapes) {
    const own = measurements.filter((each) => each.rows === shape.rows && each.perTransaction === shape.perTransaction);
    const rate = (drained: (each: Measurement) => Drained): string =>
      grouped(median(own.map((each) => shape.rows / drained(each).seconds)));
    const ratios = own.map(({ ratio }) => ratio);
    rows.push([
      grouped(shape.perTransaction),
      grouped(shape.rows),
      own[0]!.eventBytes.toFixed(0),
      rate((each) => each.yardstick),
      rate((each) => each.ours),
      median(ratios).toFixed(2),
      range(ratios, 2),
    ]);
    groups.push({ title: `${describe(shape)}: yardstick`, usage: medianUsage(own.map((each) => each.yardstick.usage)) });
    groups.push({ title: `${describe(shape)}: ours`, usage: medianUsage(own.map((each) => each.ours.usage)) });
  }
  const head = ['TRANSACTIONS OF', 'ROWS', 'BYTES/EVENT', 'YARDSTICK rows/s', 'OURS rows/s', 'RATIO', 'RANGE'];
  return {
    tables: [{ title: 'WAL to log', head, rows }, usageTable('What it takes', groups)],
    notes: [
      'Yardstick: pg_recvlogical (pgoutput, TCP loopback) drains the same WAL to /dev/null. Ours: until the log holds every row, fsynced.',
      'After each run the log is read back: every row once, in commit order.',
    ],
    measurements,
  };
}
