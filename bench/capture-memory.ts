import { usageTable, type Bench, type BenchContext } from './lib/bench.ts';
import { startHeadwater } from './lib/processes.ts';
import { createTrades, loadTrades, tradesLogged, verifyTrades } from './lib/rows.ts';
import { scoped } from './lib/scope.ts';
import { freshDatabase, sqlClient } from './lib/servers.ts';
import { grouped, median } from './lib/statistics.ts';
import { medianUsage, peakMbOf, residentMbOf, UsageWatch, type Usage } from './lib/usage.ts';

interface Measurement {
  readonly rows: number;
  /** Resident memory of capture while it waits for something to do, in MiB. */
  readonly idleMb: number;
  /** The most it ever had. */
  readonly peakMb: number;
  /** From the commit to the last row in the log. */
  readonly seconds: number;
  readonly usage: readonly Usage[];
}

/** How much memory one big transaction takes in capture. */
export const captureMemoryBench: Bench = {
  name: 'capture-memory',
  about: 'peak memory of capture while one transaction of 1,000,000 rows passes through it',
  async run(context) {
    const rows = context.quick ? 100_000 : 1_000_000;
    const sizes = [rows, rows / 10];
    const measurements: Measurement[] = [];
    for (let run = 1; run <= context.runs; run++) {
      for (const size of sizes) {
        const measured = await measure(context, size);
        measurements.push(measured);
        context.say(`${grouped(size)} rows, run ${run} of ${context.runs}: peak ${measured.peakMb.toFixed(0)} MB`);
      }
    }
    const of = (size: number): Measurement[] => measurements.filter((each) => each.rows === size);
    const middle = (size: number, member: 'idleMb' | 'peakMb' | 'seconds'): number => median(of(size).map((each) => each[member]));
    const table = sizes.map((size) => [
      grouped(size),
      middle(size, 'idleMb').toFixed(0),
      middle(size, 'peakMb').toFixed(0),
      Math.max(...of(size).map(({ peakMb }) => peakMb)).toFixed(0),
      middle(size, 'seconds').toFixed(1),
    ]);
    const groups = sizes.map((size) => ({ title: `${grouped(size)} rows`, usage: medianUsage(of(size).map(({ usage }) => usage)) }));
    return {
      tables: [
        { title: 'One transaction', head: ['ROWS', 'IDLE MB', 'PEAK MB', 'LARGEST PEAK MB', 'COMMIT TO LOG s'], rows: table },
        usageTable('What it takes', groups),
      ],
      notes: ['Resident memory of the capture process: before the transaction, and the peak over its whole life (VmHWM).'],
      measurements,
    };
  },
};

async function measure(context: BenchContext, rows: number): Promise<Measurement> {
  const { servers, signal } = context;
  return scoped(async (scope) => {
    const url = await freshDatabase(servers, scope, signal);
    const client = await sqlClient(url, scope);
    await createTrades(client);
    const { nats, redisUrl, watched } = servers;
    const headwater = startHeadwater(['capture'], { DATABASE_URL: url, NATS_URL: nats.capture, REDIS_URL: redisUrl }, context, scope);
    await headwater.logged(/^streaming/, signal);
    const idleMb = residentMbOf(headwater.pid);
    const watch = new UsageWatch([{ process: 'headwater', pid: headwater.pid }, ...watched]);
    scope.defer(() => void watch.stop());
    await loadTrades(client, rows, rows, signal);
    const committed = performance.now();
    const ended = await headwater.while(tradesLogged(servers, rows, signal));
    const peakMb = peakMbOf(headwater.pid);
    const usage = watch.stop().map((each) => (each.process === 'headwater' ? { ...each, peakMb } : each));
    await verifyTrades(servers, rows, signal);
    return { rows, idleMb, peakMb, seconds: (ended - committed) / 1_000, usage };
  });
}
