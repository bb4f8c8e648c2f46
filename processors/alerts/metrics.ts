import { Counter, Gauge, type Registry } from '../../pipeline/runtime/metrics.ts';
import type { AlertEffects } from './engine/saved.ts';

/** What an engine can say of itself. */
export interface AlertFigures {
  /** Evaluations of a rule on an entity, since the start. */
  readonly evaluations: number;
  /** Rules in force, and what is going on. */
  counts(): Readonly<Record<(typeof gauges)[number], number>>;
}

const gauges = ['rules', 'pending', 'firing'] as const;
const help = { rules: 'Rules in force', pending: 'Alerts that are pending', firing: 'Alerts that are firing' };

export interface AlertMetrics {
  /** These effects are stored. */
  committed(effects: AlertEffects): void;
}

/**
 * The metrics of the alerts. What the engine holds is asked for when somebody reads the metrics; it holds nothing while this
 * instance stands by.
 */
export function alertMetrics(registry: Registry, engine: AlertFigures): AlertMetrics {
  const registers = [registry];
  const transitions = new Counter({
    name: 'headwater_alerts_transitions_total',
    help: 'Alerts that have fired and been resolved',
    labelNames: ['state'],
    registers,
  });
  let counted = 0;
  registry.registerMetric(
    new Counter({
      name: 'headwater_alerts_evaluations_total',
      help: 'Evaluations of a rule on an entity',
      registers: [],
      collect() {
        this.inc(engine.evaluations - counted);
        counted = engine.evaluations;
      },
    }),
  );
  for (const name of gauges) {
    registry.registerMetric(
      new Gauge({
        name: `headwater_alerts_${name}`,
        help: help[name],
        registers: [],
        collect() {
          this.set(engine.counts()[name]);
        },
      }),
    );
  }
  return {
    committed(effects) {
      for (const { alert } of effects.transitions) transitions.inc({ state: alert.state });
    },
  };
}
