import type { Bench, BenchContext, Report } from './lib/bench.ts';
import { startProgram } from './lib/processes.ts';
import { scoped } from './lib/scope.ts';
import { grouped, median } from './lib/statistics.ts';
import type { EngineFigures, EngineLoad } from './programs/alert-engine.ts';

interface Measurement extends EngineLoad, EngineFigures {}

const sizes = [0, 100, 10_000, 1_000_000];

/** The alert engine alone: what an event costs by the number of rules, and what a rule takes. */
export const alertEngineBench: Bench = {
  name: 'alert-engine',
  about: 'events/s through the alert engine alone, 1 % of which cross a threshold, by number of rules; yardstick: the engine without rules',
  async run(context) {
    const measurements: Measurement[] = [];
    for (let run = 1; run <= context.runs; run++) {
      for (const load of loadsOf(context)) {
        const figures = await measure(context, load);
        measurements.push({ ...load, ...figures });
        context.say(`${grouped(load.rules)} rules, ${load.spread}, run ${run}: ${grouped(figures.eventsPerSecond)} events/s`);
      }
    }
    return report(loadsOf(context), measurements);
  },
};

function loadsOf({ quick }: BenchContext): readonly EngineLoad[] {
  const events = quick ? 20_000 : 200_000;
  const of = (rules: number, spread: EngineLoad['spread']): EngineLoad => ({ rules, spread, events, rows: 1_000, crossEvery: 100 });
  return sizes
    .map((size) => (quick ? size / 10 : size))
    .flatMap((size) => [of(size, 'every row'), ...(size >= 1_000 ? [of(size, 'one row each')] : [])]);
}

/** In a process of its own, so that its memory is the engine's. */
async function measure({ signal }: BenchContext, load: EngineLoad): Promise<EngineFigures> {
  return scoped(async (scope) => startProgram('alert-engine', load, scope).next<EngineFigures>(signal));
}

function report(loads: readonly EngineLoad[], measurements: readonly Measurement[]): Report {
  const rows = loads.map(({ rules, spread }) => {
    const runs = measurements.filter((one) => one.rules === rules && one.spread === spread);
    const of = (member: Exclude<keyof EngineFigures, 'transitions'>): number => median(runs.map((one) => one[member]));
    return [
      grouped(rules),
      rules === 0 ? '' : spread,
      grouped(of('eventsPerSecond')),
      of('p50Micros').toFixed(0),
      of('p99Micros').toFixed(0),
      of('loadSeconds').toFixed(1),
      of('rssMb').toFixed(0),
    ];
  });
  return {
    tables: [{ title: 'Alert engine', head: ['RULES', 'EACH ON', 'EVENTS/s', 'p50 µs', 'p99 µs', 'LOAD s', 'RSS MB'], rows }],
    notes: [
      'The engine alone: events are parsed and evaluated, nothing is read from the log or stored.',
      '1,000 rows change in turn; each time the value is another one, and one event in a hundred crosses a threshold. Loading includes making up the rules.',
    ],
    measurements,
  };
}
