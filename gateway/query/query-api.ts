import type { PgPool } from '../../pipeline/clients/postgres.ts';
import type { RedisClient } from '../../pipeline/clients/redis.ts';
import type { EventLog, LogEvent } from '../../pipeline/log/event-log.ts';
import { RedisKeys } from '../../pipeline/runner/redis-keys.ts';
import type { Routes } from '../../pipeline/runtime/http.ts';
import { Histogram, latencyBuckets } from '../../pipeline/runtime/metrics.ts';
import type { RoleContext } from '../../pipeline/runtime/lifecycle.ts';
import type { Catalog } from '../../schemas/catalog.ts';
import { RedisQueryCache } from './cache.ts';
import { queryExecutor } from './executor.ts';
import { readStanding, type TailPosition } from './follower.ts';
import { RateStore } from './rate-store.ts';
import { queryRoutes } from './routes.ts';
import { queryMetrics } from './service-metrics.ts';
import { QueryService } from './service.ts';
import { TableDirectory } from './tables.ts';
import { Tiers } from './tiers.ts';
import { TableVersions } from './versions.ts';

/** What queries stand on. */
export interface QueryParts {
  /** Only queries of users run on it; `HEADWATER_QUERY_CONNECTIONS` of them at once. */
  readonly pool: PgPool;
  /** For what must not wait behind them: catalogues, snapshots. */
  readonly quickPool: PgPool;
  /** Without it nothing is kept, and each gateway counts requests by itself. */
  readonly redis?: RedisClient;
  readonly keys?: RedisKeys;
}

/** The query API of a gateway, which follows the gateway's own reading of the log. */
export interface QueryApi {
  readonly routes: Routes;
  /** The log's next events, right after the tail's position has moved behind them. */
  observe(events: readonly LogEvent[]): void;
  /** The tail has lost its position. */
  lost(): void;
  close(): void;
}

/** Puts the query API together: routes, tables, service, executor. */
export function createQueryApi(
  { config, log, metrics }: RoleContext,
  { pool, quickPool, redis, keys = new RedisKeys() }: QueryParts,
  { catalog, eventLog, tail }: { readonly catalog: Catalog; readonly eventLog: EventLog; readonly tail: TailPosition },
): QueryApi {
  const tables = new TableDirectory({ pool: quickPool, catalog, publication: config.publication, log });
  const executor = queryExecutor({
    pool,
    quickPool,
    timeoutMs: config.queryTimeout,
    costMax: config.queryCost,
    grant: (table) => tables.grant(table),
    changed: (table) => tables.forget(table),
    log,
  });
  const versions = new TableVersions(quickPool);
  const service = new QueryService({
    executor,
    isCurrent: (table) => versions.isCurrent(table),
    standing: () => readStanding(quickPool),
    eventLog,
    tail,
    cache: redis && new RedisQueryCache({ client: redis, log, keys }),
    metrics: queryMetrics(metrics),
    log,
  });
  return {
    routes: queryRoutes({
      tables,
      service,
      cursorSecret: cursorSecret(quickPool),
      tiers: new Tiers(config.queryTiers),
      latency: new Histogram({
        name: 'headwater_query_seconds',
        help: 'From a query over HTTP to its answer, by outcome: hit, miss, or the code of the error.',
        labelNames: ['outcome'],
        buckets: latencyBuckets,
        registers: [metrics],
      }),
      rates: new RateStore({ redis, prefix: `${keys.prefix}:rate:query:`, log }),
      log,
    }),
    observe: (events) => service.observe(events),
    lost: () => service.lost(),
    close: () => service.close(),
  };
}

/** Asked for once, when it is needed for the first time. */
function cursorSecret(pool: PgPool): () => Promise<string> {
  let known: Promise<string> | undefined;
  return () => {
    known ??= pool
      .query<{ value: string }>(`SELECT value FROM headwater.secrets WHERE name = 'cursors'`)
      .then(({ rows }) => rows[0]!.value);
    known.catch(() => (known = undefined));
    return known;
  };
}
