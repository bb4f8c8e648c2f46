import { expect } from 'chai';
import type { GatewayParts } from '../../../../gateway/gateway.ts';
import { migrate } from '../../../../deploy/migrate.ts';
import { createPool } from '../../../../pipeline/clients/postgres.ts';
import { closeRedis, openRedis } from '../../../../pipeline/clients/redis.ts';
import type { EventLog } from '../../../../pipeline/log/event-log.ts';
import type { RedisKeys } from '../../../../pipeline/runner/redis-keys.ts';
import { silentLogger, type Logger } from '../../../../pipeline/runtime/logging.ts';
import { defiCatalog } from '../../../../schemas/catalog-file.ts';
import type { Catalog } from '../../../../schemas/catalog.ts';
import { createValidators } from '../../../../schemas/validate.ts';
import { MemoryLog } from '../../../support/memory-log.ts';
import { redisNamespace } from '../../../support/redis-namespace.ts';
import { freshDatabase } from '../../../support/servers.ts';
import { startHarness, TestKeys } from '../../support/harness.ts';

const { errorBody } = createValidators();

export interface QueryAnswerBody {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly ms: number;
  readonly body: {
    readonly items: Record<string, unknown>[];
    readonly next: string | null;
    readonly asOf: number | null;
    readonly cache: string;
  };
  /** The error of an answer that is one; the test fails when it is none. */
  readonly error: { readonly code: string; readonly message: string; readonly field?: string; readonly faults?: readonly object[] };
}

/** The query API behind a real gateway, on a database with the demo market's tables. */
export interface QueryRest {
  readonly url: string;
  readonly databaseUrl: string;
  post(query: unknown, as?: string): Promise<QueryAnswerBody>;
  get(parameters: Record<string, string> | string, as?: string): Promise<QueryAnswerBody>;
  /** Sends anything. */
  send(
    method: string,
    path: string,
    init?: { body?: string | Buffer; headers?: Record<string, string>; as?: string },
  ): Promise<QueryAnswerBody>;
  /** Runs SQL as the owner of the tables. */
  sql(text: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]>;
  close(): Promise<void>;
}

export interface QueryRestOptions {
  readonly env?: Record<string, string>;
  readonly catalog?: Catalog;
  /** Run as the owner of the tables before the gateway starts. */
  readonly seed?: string;
  readonly log?: EventLog;
  /** As whom the gateway is at the database; the owner of the tables when left out. */
  readonly gatewayUrl?: (databaseUrl: string) => string;
  /** Where the gateway looks for Redis; null: nowhere. */
  readonly redisUrl?: string | null;
  /** Names in Redis; of its own when left out. */
  readonly keys?: RedisKeys;
  readonly parts?: Partial<GatewayParts>;
  /** What the gateway logs. */
  readonly logger?: Logger;
}

/**
 * Keys: `secret` (ann: read, alerts, admin), `bob` (read, alerts), `reader` (read:prices), `high` (of the tier `high`).
 */
export async function startQueryRest(options: QueryRestOptions = {}): Promise<QueryRest> {
  const { env = {}, catalog = defiCatalog(), seed, log = new MemoryLog(), gatewayUrl, parts, logger = silentLogger() } = options;
  const database = await freshDatabase();
  await migrate(database.url, { demo: true, log: silentLogger() });
  const owner = createPool(database.url, 'test', silentLogger(), 4);
  if (seed !== undefined) await owner.query(seed);
  const space = await redisNamespace();
  const url = gatewayUrl?.(database.url) ?? database.url;
  const pool = createPool(url, 'test queries', silentLogger(), 8, { connectionTimeoutMillis: 3_000 });
  const quickPool = createPool(url, 'test catalog', silentLogger(), 3);
  const redis = options.redisUrl === null ? undefined : openRedis(options.redisUrl ?? space.url, silentLogger());
  if (redis) await new Promise((resolve) => redis.once('ready', resolve));
  const keys = new TestKeys();
  keys.add('secret');
  keys.add('bob', { owner: 'bob', scopes: ['read', 'alerts'] });
  keys.add('reader', { owner: 'ron', scopes: ['read:prices'] });
  keys.add('high', { owner: 'hal', limits: { tier: 'high' } });
  const query = { pool, quickPool, keys: options.keys ?? space.keys, ...(redis && { redis }) };
  const tiers = { HEADWATER_QUERY_TIERS: 'standard=1000000/64,high=2000000/64', ...env };
  const harness = await startHarness(log, { env: tiers, logger, parts: { catalog, keys, query, ...parts } });
  const base = harness.gateway.url;
  return {
    url: base,
    databaseUrl: database.url,
    post: (body, as) =>
      call(base, 'POST', '/v2/query', {
        body: JSON.stringify(body),
        headers: { 'content-type': 'application/json' },
        ...(as !== undefined && { as }),
      }),
    get: (parameters, as) => call(base, 'GET', `/v2/query?${new URLSearchParams(parameters).toString()}`, as === undefined ? {} : { as }),
    send: (method, path, init) => call(base, method, path, init),
    sql: async (text, values = []) => (await owner.query<Record<string, unknown>>(text, [...values])).rows,
    async close() {
      await harness.stop();
      await Promise.all([pool.end(), quickPool.end(), owner.end()]);
      if (redis) closeRedis(redis);
      await space.close();
      await database.drop();
    },
  };
}

async function call(
  base: string,
  method: string,
  path: string,
  { body, headers = {}, as = 'secret' }: { body?: string | Buffer; headers?: Record<string, string>; as?: string } = {},
): Promise<QueryAnswerBody> {
  const begun = performance.now();
  const response = await fetch(`${base}${path}`, {
    method,
    headers: { authorization: `Bearer ${as}`, ...headers },
    ...(body !== undefined && { body }),
  });
  const text = await response.text();
  const ms = performance.now() - begun;
  const parsed = (text === '' ? undefined : JSON.parse(text)) as QueryAnswerBody['body'] & { readonly error: QueryAnswerBody['error'] };
  return {
    status: response.status,
    headers: response.headers,
    text,
    ms,
    body: parsed,
    get error() {
      expect(errorBody(parsed), text).to.equal(undefined);
      return parsed.error;
    },
  };
}
