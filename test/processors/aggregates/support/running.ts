import { readConfig } from '../../../../pipeline/runtime/config.ts';
import type { EventLog, Seq } from '../../../../pipeline/log/event-log.ts';
import type { DeadLetters } from '../../../../pipeline/runner/dead-letters.ts';
import type { Role, RoleContext } from '../../../../pipeline/runtime/lifecycle.ts';
import { CatalogWatch } from '../../../../processors/aggregates/catalog-watch.ts';
import { aggregateMetrics } from '../../../../processors/aggregates/metrics.ts';
import type { Definition } from '../../../../processors/aggregates/model.ts';
import { Aggregates } from '../../../../processors/aggregates/role.ts';
import { startDefinition } from '../../../../processors/aggregates/runner.ts';
import { namespaceOf } from '../../../../processors/aggregates/store/keys.ts';
import { removeNamespace } from '../../../../processors/aggregates/store/mend.ts';
import type { Catalog } from '../../../../schemas/catalog.ts';
import type { RedisDatabase } from '../../../support/redis-database.ts';
import { roleContext, until } from '../../../support/role-context.ts';

export interface RunningOptions {
  readonly redis: RedisDatabase;
  readonly eventLog: EventLog;
  readonly catalog: Catalog;
  /** The file that the catalogue is of. */
  readonly file?: string;
  readonly deadLetters?: DeadLetters;
  readonly mostRecords?: number;
  readonly leaseMs?: number;
  readonly context?: RoleContext;
}

const noLetters: DeadLetters = {
  publish: ({ reason }) => Promise.reject(new Error(`no event of this test is poison, but: ${reason}`)),
};

/** The aggregates role in this process, more impatient than it is in earnest. */
export function startAggregates(options: RunningOptions): Role {
  const { redis, eventLog, catalog, file, deadLetters = noLetters, mostRecords, leaseMs = 500 } = options;
  const { config: _, ...context } = options.context ?? roleContext();
  const metrics = aggregateMetrics(context.metrics);
  const whole = { ...context, config: readConfig({}) };
  const watch = new CatalogWatch(catalog, file, context.log);
  const parts = { redis: redis.client, eventLog, deadLetters, metrics, leaseMs, ...(mostRecords !== undefined && { mostRecords }) };
  return new Aggregates(whole, {
    ...parts,
    definitions: () => watch.changed(),
    start: (definition, building) => startDefinition(whole, definition, building, parts),
    remove: ({ name, hash }, signal) => removeNamespace(redis.client, namespaceOf(name, hash), signal),
    lookEveryMs: 30,
    graceMs: 200,
  });
}

/** The sequence up to which a definition has folded the log; -1 when it has not begun. */
export async function foldedTo({ client }: RedisDatabase, { name, hash }: Definition): Promise<Seq> {
  return Number((await client.hget(namespaceOf(name, hash).offset('aggregates'), 'seq')) ?? -1);
}

/** Waits until definitions have folded the log up to a sequence. */
export async function untilFolded(redis: RedisDatabase, definitions: Iterable<Definition>, seq: Seq, ms = 30_000): Promise<void> {
  for (const definition of definitions)
    await until(async () => (await foldedTo(redis, definition)) >= seq, ms, `${definition.name} at sequence ${seq}`);
}
