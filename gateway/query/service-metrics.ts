import { Counter, type Registry } from '../../pipeline/runtime/metrics.ts';

/** What the answering of queries counts. */
export interface QueryMetrics {
  readonly answers: Counter<'cache' | 'reason'>;
}

/** Registers them. */
export function queryMetrics(registry: Registry): QueryMetrics {
  return {
    answers: new Counter({
      name: 'headwater_query_answers_total',
      help: 'Answers to queries, by where they came from: hit (kept, or shared with a reading under way) or miss (not kept, changed since, unsure, never kept).',
      labelNames: ['cache', 'reason'],
      registers: [registry],
    }),
  };
}
