import { Counter, Gauge, type Registry } from '../../pipeline/runtime/metrics.ts';

/** What an engine can say of itself. */
export interface AggregateFigures {
  /** Observations that were left out since the start, by reason. */
  readonly leftOut: Readonly<Record<string, number>>;
}

export interface AggregateMetrics {
  /** Shows a definition's figures from now on, until the returned function is called. */
  watch(name: string, figures: AggregateFigures): () => void;
  /** So many definitions are in the catalogue, and so many of them are still being built. */
  definitions(count: number, building: number): void;
}

/** The metrics of the aggregates besides those of every processor. Figures are asked for when somebody reads the metrics. */
export function aggregateMetrics(registry: Registry): AggregateMetrics {
  const watched = new Set<{ readonly name: string; readonly figures: AggregateFigures; readonly counted: Map<string, number> }>();
  const count = (leftOut: Counter<'aggregate' | 'reason'>): void => {
    for (const { name, figures, counted } of watched) {
      for (const [reason, total] of Object.entries(figures.leftOut)) {
        leftOut.inc({ aggregate: name, reason }, total - (counted.get(reason) ?? 0));
        counted.set(reason, total);
      }
    }
  };
  const leftOut = new Counter({
    name: 'headwater_aggregates_left_out_total',
    help: 'Observations that are in no window, by reason',
    labelNames: ['aggregate', 'reason'],
    registers: [registry],
    collect() {
      count(this);
    },
  });
  const state = new Gauge({
    name: 'headwater_aggregates_definitions',
    help: 'Definitions in the catalogue, by whether they are served or still being built',
    labelNames: ['state'],
    registers: [registry],
  });
  return {
    watch(name, figures) {
      const entry = { name, figures, counted: new Map<string, number>() };
      watched.add(entry);
      return () => {
        count(leftOut);
        watched.delete(entry);
      };
    },
    definitions(all, building) {
      state.set({ state: 'served' }, all - building);
      state.set({ state: 'building' }, building);
    },
  };
}
