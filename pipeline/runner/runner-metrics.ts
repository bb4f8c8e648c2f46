import type { RedriveOutcome } from './dead-letters.ts';
import { Counter, Gauge, Histogram, latencyBuckets, type Registry } from '../runtime/metrics.ts';

/** What is counted of every processor, by its name. */
export interface RunnerMetrics {
  events(count: number): void;
  committed(seconds: number): void;
  deadLetter(): void;
  /** How many of them there are now. */
  waitingLetters(count: number): void;
  redriven(outcome: RedriveOutcome): void;
  /** Events of the log not yet folded in, and how long ago the newest folded one was committed while there are any. */
  lag(events: number, seconds: number): void;
  /** 1 while this instance does the work, 0 while it stands by. */
  working(yes: boolean): void;
}

/** The metrics of one processor; processors in one program share the registry. */
export function runnerMetrics(registry: Registry, processor: string): RunnerMetrics {
  const labelNames = ['processor'] as const;
  const shared = { registers: [registry], labelNames };
  const events = once(
    registry,
    'headwater_processor_events_total',
    (name) => new Counter({ name, help: 'Events folded by a processor', ...shared }),
  );
  const letters = once(
    registry,
    'headwater_processor_dead_letters_total',
    (name) => new Counter({ name, help: 'Events a processor could not apply', ...shared }),
  );
  const waiting = once(
    registry,
    'headwater_dead_letters',
    (name) => new Gauge({ name, help: 'Dead letters of a processor that are to be looked at', ...shared }),
  );
  const redriven = once(
    registry,
    'headwater_processor_redriven_total',
    (name) =>
      new Counter({
        name,
        help: 'Dead letters redriven, by what became of them',
        registers: [registry],
        labelNames: ['processor', 'outcome'],
      }),
  );
  const commits = once(
    registry,
    'headwater_processor_commit_seconds',
    (name) =>
      new Histogram({
        name,
        help: 'Time until effects and offset are committed, behind the commit in front',
        buckets: latencyBuckets,
        ...shared,
      }),
  );
  const lagEvents = once(
    registry,
    'headwater_processor_lag_events',
    (name) => new Gauge({ name, help: 'Events in the log that a processor has not folded yet', ...shared }),
  );
  const lagSeconds = once(
    registry,
    'headwater_processor_lag_seconds',
    (name) => new Gauge({ name, help: 'Age of the newest folded event while there are newer ones', ...shared }),
  );
  const working = once(
    registry,
    'headwater_processor_working',
    (name) => new Gauge({ name, help: '1 while this instance works, 0 while it stands by', ...shared }),
  );
  return {
    events: (count) => events.inc({ processor }, count),
    committed: (seconds) => commits.observe({ processor }, seconds),
    deadLetter: () => letters.inc({ processor }),
    waitingLetters: (count) => waiting.set({ processor }, count),
    redriven: (outcome) => redriven.inc({ processor, outcome }),
    lag(count, seconds) {
      lagEvents.set({ processor }, count);
      lagSeconds.set({ processor }, seconds);
    },
    working: (yes) => working.set({ processor }, yes ? 1 : 0),
  };
}

function once<T>(registry: Registry, name: string, create: (name: string) => T): T {
  return (registry.getSingleMetric(name) as T | undefined) ?? create(name);
}
