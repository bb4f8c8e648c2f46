import { Tail } from '../../../../gateway/tail.ts';
import { Channels } from '../../../../gateway/channels.ts';
import { RedisQueryCache } from '../../../../gateway/query/cache.ts';
import { readStanding } from '../../../../gateway/query/follower.ts';
import type { Dependency, PreparedQuery, QueryAsker, QueryExecutor, QueryRows } from '../../../../gateway/query/model.ts';
import { QueryService, type QueryServiceParts } from '../../../../gateway/query/service.ts';
import { queryMetrics, type QueryMetrics } from '../../../../gateway/query/service-metrics.ts';
import { createPool, type PgPool } from '../../../../pipeline/clients/postgres.ts';
import { connectNats } from '../../../../pipeline/clients/nats.ts';
import { openRedis } from '../../../../pipeline/clients/redis.ts';
import { JetStreamLog } from '../../../../pipeline/log/jetstream-log.ts';
import type { RedisKeys } from '../../../../pipeline/runner/redis-keys.ts';
import { Health } from '../../../../pipeline/runtime/health.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import { createRegistry } from '../../../../pipeline/runtime/metrics.ts';
import { defaultCatalog } from '../../../../schemas/catalog.ts';
import { until } from '../../../support/role-context.ts';

/** A query as it comes from its preparation: the statement has one column, each item as JSON. */
export function prepared(
  table: string,
  statement: string,
  { values = [], pins, cacheable = true }: { values?: readonly unknown[]; pins?: Dependency['pins']; cacheable?: boolean } = {},
): PreparedQuery {
  return {
    table: {
      name: `public.${table}`,
      schema: 'public',
      table,
      channel: `public.${table}`,
      columns: new Map(),
      key: ['id'],
      partitioned: false,
      notNull: new Set(['id']),
      looseText: new Set(),
      identity: ['id'],
      cacheable,
      version: '1',
    },
    canonical: JSON.stringify([statement, values]),
    dependency: { table: `public.${table}`, ...(pins && { pins }) },
    sql: { text: statement, values },
    output: ['item'],
    limit: 1_000,
    cursorAfter: undefined,
  };
}

/** Runs statements as they are, in a transaction with its snapshot. */
export class PlainExecutor implements QueryExecutor {
  runs = 0;
  readonly #pool: PgPool;
  /** Waits at moments at which a real one could be slow. */
  pause: (signal: AbortSignal) => Promise<void> = () => Promise.resolve();

  constructor(pool: PgPool) {
    this.#pool = pool;
  }

  async run({ sql }: PreparedQuery, _asker: QueryAsker, signal: AbortSignal): Promise<QueryRows> {
    this.runs++;
    await this.pause(signal);
    const client = await this.#pool.connect();
    try {
      await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
      const snapshot = await client.query<{ snapshot: string }>('SELECT pg_current_snapshot()::text AS snapshot');
      await this.pause(signal);
      const { rows } = await client.query<{ item: string }>(sql.text, [...sql.values]);
      await client.query('COMMIT');
      await this.pause(signal);
      return { items: rows.map(({ item }) => item), more: undefined, snapshot: snapshot.rows[0]!.snapshot };
    } finally {
      client.release();
    }
  }

  async snapshot(): Promise<string> {
    const { rows } = await this.#pool.query<{ snapshot: string }>('SELECT pg_current_snapshot()::text AS snapshot');
    return rows[0]!.snapshot;
  }
}

export interface NodeOptions extends Pick<Partial<QueryServiceParts>, 'visibleWithinMs' | 'readWithinMs'> {
  readonly databaseUrl: string;
  readonly natsUrl: string;
  readonly redisUrl: string;
  readonly keys: RedisKeys;
  /** Of answers in the node's own memory. */
  readonly nearBytes?: number;
  readonly windowBytes?: number;
}

/** What a gateway has of queries: a tail, a cache, a service. */
export interface QueryNode {
  readonly service: QueryService;
  readonly executor: PlainExecutor;
  readonly tail: Tail;
  readonly metrics: QueryMetrics;
  /** The log as this node reads it. */
  readonly log: JetStreamLog;
  stop(): Promise<void>;
}

export async function startNode({
  databaseUrl,
  natsUrl,
  redisUrl,
  keys,
  windowBytes = 4 * 1024 ** 2,
  nearBytes,
  ...rest
}: NodeOptions): Promise<QueryNode> {
  const quiet = silentLogger();
  const connection = await connectNats(natsUrl, 'query test', quiet);
  const log = await JetStreamLog.open(connection, { stream: 'EVENTS', subject: 'ev' }, quiet);
  const client = openRedis(redisUrl, quiet);
  const pool = createPool(databaseUrl, 'query test', quiet, 8);
  const executor = new PlainExecutor(pool);
  const metrics = queryMetrics(createRegistry());
  const stopping = new AbortController();
  // The tail tells the service, and the service asks the tail.
  const parts: { service?: QueryService } = {};
  const tail = new Tail({
    eventLog: log,
    channels: new Channels(defaultCatalog()),
    subject: 'ev',
    windowBytes,
    log: quiet,
    health: new Health(),
    onEvents: (_events, raw) => parts.service!.observe(raw),
    onReady: () => undefined,
    onLost: () => parts.service!.lost(),
  });
  const service = new QueryService({
    executor,
    standing: () => readStanding(pool),
    eventLog: log,
    tail,
    isCurrent: () => Promise.resolve(true),
    cache: new RedisQueryCache({ client, log: quiet, keys, ...(nearBytes !== undefined && { nearBytes }) }),
    metrics,
    log: quiet,
    ...rest,
  });
  parts.service = service;
  const reading = tail.run(stopping.signal);
  await until(() => tail.ready && client.status === 'ready', 20_000, 'the node to be ready');
  return {
    service,
    executor,
    tail,
    metrics,
    log,
    stop: async () => {
      stopping.abort();
      service.close();
      await reading;
      log.close();
      client.disconnect();
      await pool.end();
      await connection.close();
    },
  };
}
