import { usageTable, type Bench, type BenchContext, type Report } from './lib/bench.ts';
import { startProgram } from './lib/processes.ts';
import { fillPriceLog, priceStream } from './lib/price-log.ts';
import { scoped } from './lib/scope.ts';
import { grouped, median, range } from './lib/statistics.ts';
import { medianUsage, UsageWatch, type Usage } from './lib/usage.ts';
import type { IdleRunnerOrder } from './programs/idle-runner.ts';
import type { PushCounterOrder } from './programs/push-counter.ts';

interface Measurement {
  readonly events: number;
  readonly countSeconds: number;
  readonly seconds: number;
  readonly usage: readonly Usage[];
}

/** How fast a processor is given the log. */
export const readBench: Bench = {
  name: 'read',
  about: 'the log from sequence 1 into a processor that does nothing, its offset stored; yardstick: a raw push consumer that counts',
  async run(context) {
    const measurements: Measurement[] = [];
    for (const events of context.quick ? [10_000, 50_000] : [50_000, 500_000]) {
      await scoped(async (scope) => {
        await fillPriceLog(context, events, 1_000, scope);
        for (let run = 1; run <= context.runs; run++) {
          const measured = await measure(context, events);
          measurements.push(measured);
          const rate = (seconds: number): string => grouped(events / seconds);
          context.say(
            `${grouped(events)} events, run ${run} of ${context.runs}: ${rate(measured.seconds)} events/s, counting ${rate(measured.countSeconds)}`,
          );
        }
      });
    }
    return report(measurements);
  },
};

async function measure({ servers, signal }: BenchContext, events: number): Promise<Measurement> {
  const natsUrl = servers.nats.operator;
  const counting: PushCounterOrder = { natsUrl, stream: priceStream, events };
  const counted = await scoped((scope) => startProgram('push-counter', counting, scope).next<{ seconds: number }>(signal));
  const folding: IdleRunnerOrder = { natsUrl, redisUrl: servers.redisUrl, end: events };
  return scoped(async (scope) => {
    const program = startProgram('idle-runner', folding, scope);
    const watch = new UsageWatch([{ process: 'headwater (no-op processor)', pid: program.pid }, servers.redis, ...servers.watched]);
    scope.defer(() => void watch.stop());
    const { seconds } = await program.next<{ seconds: number }>(signal);
    return { events, countSeconds: counted.seconds, seconds, usage: watch.stop() };
  });
}

function report(measurements: readonly Measurement[]): Report {
  const sizes = [...new Set(measurements.map(({ events }) => events))];
  const of = (size: number): readonly Measurement[] => measurements.filter(({ events }) => events === size);
  const rows = sizes.map((size) => {
    const own = of(size);
    const ratios = own.map(({ seconds, countSeconds }) => countSeconds / seconds);
    const rate = (seconds: (each: Measurement) => number): string => grouped(median(own.map((each) => size / seconds(each))));
    return [
      grouped(size),
      rate(({ seconds }) => seconds),
      rate(({ countSeconds }) => countSeconds),
      median(ratios).toFixed(2),
      range(ratios, 2),
    ];
  });
  const groups = sizes.map((size) => ({ title: grouped(size), usage: medianUsage(of(size).map(({ usage }) => usage)) }));
  return {
    tables: [
      { title: 'The log into a processor', head: ['EVENTS', 'EVENTS/s', 'COUNTING', 'RATIO', 'RANGE'], rows },
      usageTable('What it takes', groups),
    ],
    notes: [
      'Timed from the start of the runner until the offset of the last event is stored in Redis, with its lease and its commits; events of some 300 bytes.',
      'Counting: a push consumer with flow control and without acknowledgements, a callback that counts.',
    ],
    measurements,
  };
}
