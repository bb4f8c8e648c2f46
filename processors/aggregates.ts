import { aggregateMetrics } from './aggregates/metrics.ts';
import { CatalogWatch } from './aggregates/catalog-watch.ts';
import { Aggregates } from './aggregates/role.ts';
import { startDefinition } from './aggregates/runner.ts';
import { namespaceOf } from './aggregates/store/keys.ts';
import { removeNamespace } from './aggregates/store/mend.ts';
import { aggregateRebuilds } from './aggregates/rebuild.ts';
import type { ProcessorFactory } from './processor-factory.ts';

/** Rolling windows over the rows and the changes of tables, as the catalogue defines them, in Redis. */
export const aggregates: ProcessorFactory = {
  name: 'aggregates',
  async start(context, { catalog, ...connections }) {
    const { eventLog, deadLetters } = await connections.log();
    const redis = await connections.redis();
    const watch = new CatalogWatch(catalog, context.config.catalog, context.log);
    const metrics = aggregateMetrics(context.metrics);
    return new Aggregates(context, {
      redis,
      eventLog,
      metrics,
      definitions: () => watch.changed(),
      start: (definition, building) => startDefinition(context, definition, building, { redis, eventLog, deadLetters, metrics }),
      remove: ({ name, hash }, signal) => removeNamespace(redis, namespaceOf(name, hash), signal),
    });
  },
  async rebuild(context, connections) {
    const { eventLog, deadLetters } = await connections.log();
    return aggregateRebuilds(context, { redis: await connections.redis(), eventLog, deadLetters });
  },
};
