import { setMaxListeners } from 'node:events';
import { randomUUID } from 'node:crypto';
import { connectNats, type NatsConnection } from '../../pipeline/clients/nats.ts';
import { createPool } from '../../pipeline/clients/postgres.ts';
import { closeRedis, connectRedis, openRedis } from '../../pipeline/clients/redis.ts';
import { startCapture, type Capture } from '../../pipeline/capture/capture.ts';
import { postgresKeys } from '../../pipeline/keys/postgres-keys.ts';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import { JetStreamDeadLetters } from '../../pipeline/runner/jetstream-dead-letters.ts';
import { untilItWorks } from '../../pipeline/runtime/backoff.ts';
import { withLocal, type Config } from '../../pipeline/runtime/config.ts';
import type { Health } from '../../pipeline/runtime/health.ts';
import type { Role, RoleContext } from '../../pipeline/runtime/lifecycle.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import type { Registry } from '../../pipeline/runtime/metrics.ts';
import { databaseRows } from '../../pipeline/source/database-row-reader.ts';
import { startGateway, type Gateway } from '../../gateway/gateway.ts';
import { RedisPresence } from '../../gateway/redis-presence.ts';
import { AggregateFeed } from '../../processors/aggregates/feed.ts';
import { AggregateReader } from '../../processors/aggregates/read/reader.ts';
import { aggregateRoutes } from '../../processors/aggregates/routes/routes.ts';
import { alertRoutes } from '../../processors/alerts/routes/routes.ts';
import { RedisRows } from '../../processors/cache/redis-rows.ts';
import { rowsRoutes } from '../../processors/cache/rows.ts';
import { processors } from '../../processors/index.ts';
import type { ProcessorFactory } from '../../processors/processor-factory.ts';
import type { Catalog } from '../../schemas/catalog.ts';

/** Every role there is, with these processors. */
export function roleNames(all: readonly ProcessorFactory[]): readonly string[] {
  return ['capture', ...all.map((processor) => processor.name), 'gateway'];
}

/** Capture makes the log that others in its process wait for: no reason to warn of it yet. */
const startingMs = 5_000;

/** A database that has not answered a processor for so long is taken to be away: its network may swallow what is sent. */
const answerMs = 120_000;

/** A query that has not got a connection for so long is told to come back (ms). */
const queryPatienceMs = 3_000;

/** The NATS users of the roles; the same URL for all on a server that is not ours. */
export interface NatsUrls {
  readonly capture: string;
  readonly processor: string;
  readonly gateway: string;
}

export interface RolesOptions {
  readonly config: Config;
  readonly natsUrls: NatsUrls;
  readonly catalog: Catalog;
  /** All there are, of which those that are named run (default: Headwater's own). */
  readonly processors?: readonly ProcessorFactory[];
  readonly log: Logger;
  readonly health: Health;
  readonly metrics: Registry;
  readonly signal: AbortSignal;
  /** False: capture begins without a copy of what is there. */
  readonly snapshot: boolean;
}

interface ReaderOptions extends RolesOptions {
  /** For so long nothing is said of a log that is not there. */
  readonly logQuietMs: number;
}

export interface RunningRoles {
  readonly capture: Capture | undefined;
  readonly gateway: Gateway | undefined;
  /** Rejects with the reason of the first role that ends by a fault. */
  readonly failed: Promise<never>;
  /** Stops readers before the writer, so that they have seen as much as they can. */
  stop(): Promise<void>;
}

/** Starts roles in this process. Each waits for what it needs; none waits for another. */
export async function startRoles(names: readonly string[], options: RolesOptions): Promise<RunningRoles> {
  const closers: (() => Promise<void>)[] = [];
  const roles: Role[] = [];
  const stop = async (): Promise<void> => {
    for (const role of roles.toReversed()) await role.stop();
    for (const close of closers.splice(0).toReversed()) await close();
  };
  try {
    const capture = names.includes('capture') ? startCapture(contextOf('capture', options, options.natsUrls.capture), options) : undefined;
    if (capture) roles.push(capture);
    // Before the log is there its readers wait for capture to make it; a refusal of capture must not leave them waiting.
    const others = startReaders(names, { ...options, logQuietMs: capture ? startingMs : 0 }, roles, closers);
    const gateway = await (capture ? Promise.race([others, failureOf([capture])]) : others);
    return { capture, gateway, failed: failureOf(roles), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function startReaders(
  names: readonly string[],
  options: ReaderOptions,
  roles: Role[],
  closers: (() => Promise<void>)[],
): Promise<Gateway | undefined> {
  const wanted = (options.processors ?? processors).filter((processor) => names.includes(processor.name));
  for (const processor of wanted) roles.push(processorRole(processor, options, closers));
  if (!names.includes('gateway')) return undefined;
  const gateway = await startGatewayRole(options, closers);
  roles.push(gateway);
  return gateway;
}

function failureOf(roles: readonly Role[]): Promise<never> {
  const failed = new Promise<never>((_, reject) => {
    for (const role of roles) role.done.catch(reject);
  });
  failed.catch(() => undefined);
  return failed;
}

function contextOf(role: string, { config, log, health, metrics, signal }: RolesOptions, natsUrl: string): RoleContext {
  return {
    config: natsUrl === config.natsUrl ? config : withLocal(config, { natsUrl }),
    log: log.child({ role }),
    health,
    metrics,
    signal,
  };
}

/** A processor as a role at once, also while it waits for the log or for Redis: the others do not wait with it. */
function processorRole(factory: ProcessorFactory, options: ReaderOptions, closers: (() => Promise<void>)[]): Role {
  const stopping = new AbortController();
  const signal = AbortSignal.any([options.signal, stopping.signal]);
  // Each runner of the role listens, and there is one for each aggregate: no leak to warn of.
  setMaxListeners(0, signal);
  const context = { ...contextOf(factory.name, options, options.natsUrls.processor), signal };
  context.health.report(factory.name, false, 'starting');
  const starting = startProcessor(factory, context, options, closers);
  const done = starting.then(
    (role) => role.done,
    (error: unknown) => {
      if (!context.signal.aborted) throw error;
    },
  );
  done.catch(() => undefined);
  return {
    name: factory.name,
    done,
    stop: async () => {
      stopping.abort();
      await starting.then((role) => role.stop()).catch(() => undefined);
    },
  };
}

async function startProcessor(
  factory: ProcessorFactory,
  context: RoleContext,
  { catalog, logQuietMs }: ReaderOptions,
  closers: (() => Promise<void>)[],
): Promise<Role> {
  const { config, log, signal } = context;
  return factory.start(context, {
    catalog,
    async log() {
      const { eventLog, connection } = await openLog(context, logQuietMs, closers);
      const replicas = Number(config.replicas);
      const deadLetters = await untilItWorks('dead letters', () => JetStreamDeadLetters.open(connection, { replicas, log }), context);
      return { eventLog, deadLetters };
    },
    async redis() {
      const redis = await connectRedis(config.redisUrl!, log, { signal });
      closers.push(async () => closeRedis(redis));
      return redis;
    },
    postgres(max = 4) {
      const pool = createPool(config.databaseUrl!, `headwater ${factory.name}`, log, max, { query_timeout: answerMs });
      closers.push(() => pool.end());
      return pool;
    },
  });
}

async function startGatewayRole(options: ReaderOptions, closers: (() => Promise<void>)[]): Promise<Gateway> {
  const context = contextOf('gateway', options, options.natsUrls.gateway);
  const { config, log, metrics } = context;
  const { catalog } = options;
  const { eventLog } = await openLog(context, options.logQuietMs, closers);
  // Rows that wait for a lock must not keep anybody from being let in.
  const keyPool = createPool(config.databaseUrl!, 'headwater gateway keys', log, 2);
  const rowPool = createPool(config.databaseUrl!, 'headwater gateway rows', log, 5);
  const alertPool = createPool(config.databaseUrl!, 'headwater gateway alerts', log, 5);
  const queryPool = createPool(config.databaseUrl!, 'headwater gateway queries', log, config.queryConnections, {
    connectionTimeoutMillis: queryPatienceMs,
  });
  const catalogPool = createPool(config.databaseUrl!, 'headwater gateway catalog', log, 3, { query_timeout: queryPatienceMs });
  const pools = [keyPool, rowPool, alertPool, queryPool, catalogPool];
  closers.push(async () => void (await Promise.all(pools.map((pool) => pool.end()))));
  // The gateway works without Redis and says what is missing, so it does not wait for it.
  const redis = openRedis(config.redisUrl!, log);
  closers.push(async () => closeRedis(redis));
  const presence = new RedisPresence({ client: redis, node: randomUUID(), log });
  closers.push(() => presence.close());
  const rows = new RedisRows(redis, catalog);
  const aggregates = { reader: new AggregateReader(redis), catalog, log };
  const routes = [
    rowsRoutes({ catalog, cache: rows, database: databaseRows(rowPool, catalog, config.subject), metrics, log }),
    alertRoutes({ pool: alertPool, eventLog, catalog, config, log }),
    aggregateRoutes(aggregates),
  ];
  const query = { pool: queryPool, quickPool: catalogPool, redis };
  return startGateway(context, {
    eventLog,
    catalog,
    keys: postgresKeys(keyPool),
    rows,
    presence,
    query,
    routes,
    feeds: [new AggregateFeed(aggregates)],
  });
}

async function openLog(
  context: RoleContext,
  quietMs: number,
  closers: (() => Promise<void>)[],
): Promise<{ eventLog: JetStreamLog; connection: NatsConnection }> {
  const { config, log } = context;
  const connection = await untilItWorks('NATS', () => connectNats(config.natsUrl!, log.bindings()['role'] as string, log), context);
  closers.push(() => connection.close());
  const eventLog = await untilItWorks('the log', () => JetStreamLog.open(connection, config, log), { ...context, quietMs });
  closers.push(async () => eventLog.close());
  return { eventLog, connection };
}
