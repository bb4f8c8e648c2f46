import type { RedisClient } from '../../../../pipeline/clients/redis.ts';
import type { NewEvent, Seq } from '../../../../pipeline/log/event-log.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import { definitionsOf } from '../../../../processors/aggregates/definition.ts';
import { AggregateFeed } from '../../../../processors/aggregates/feed.ts';
import type { Definition } from '../../../../processors/aggregates/model.ts';
import { AggregateReader } from '../../../../processors/aggregates/read/reader.ts';
import { aggregateRoutes } from '../../../../processors/aggregates/routes/routes.ts';
import { parseCatalog } from '../../../../schemas/catalog-file.ts';
import { memoryHarness, type Harness } from '../../../gateway/support/harness.ts';
import type { MemoryLog } from '../../../support/memory-log.ts';
import { redisDatabase, type RedisDatabase } from '../../../support/redis-database.ts';
import { rowEvent, type Row } from '../../../support/row-events.ts';
import { startAggregates, untilFolded } from './running.ts';

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly items: readonly Item[];
  readonly next: string | null;
  readonly seq: number;
  readonly gaps: readonly { readonly start: string; readonly end: string; readonly reason: string }[];
  readonly error: { readonly code: string; readonly message: string; readonly field?: string } | undefined;
}

export type Item = Readonly<Record<string, unknown>>;

/** The aggregates of a catalogue at work on a log in memory, behind a gateway. */
export interface Reading {
  readonly harness: Harness & { readonly log: MemoryLog };
  readonly redis: RedisDatabase;
  readonly reader: AggregateReader;
  readonly definitions: ReadonlyMap<string, Definition>;
  /** Appends events, and waits until they are folded. Returns the last sequence. */
  append(...events: readonly NewEvent[]): Promise<Seq>;
  /** Appends events without waiting. */
  push(...events: readonly NewEvent[]): Promise<Seq>;
  get(path: string, options?: { readonly as?: string; readonly headers?: Readonly<Record<string, string>> }): Promise<Answer>;
  close(): Promise<void>;
}

/** @param readFrom the Redis that the gateway's side reads from, when it is not to be the same connection */
export async function startReading(
  yaml: string,
  { file, readFrom }: { file?: string; readFrom?: (url: string) => Promise<RedisClient> } = {},
): Promise<Reading> {
  const catalog = parseCatalog(yaml, 'test.yaml');
  const redis = await redisDatabase();
  const reader = new AggregateReader((await readFrom?.(redis.url)) ?? redis.client);
  const feed = new AggregateFeed({ reader, catalog, log: silentLogger(), pollMs: 20, everyMs: 200 });
  const parts = { routes: [aggregateRoutes({ reader, catalog, log: silentLogger() })], feeds: [feed], catalog };
  const harness = await memoryHarness({ parts });
  harness.keys.add('narrow', { scopes: ['read:aggregates:trades'] });
  harness.keys.add('table', { scopes: ['read:public.trades'] });
  harness.keys.add('other', { scopes: ['read:tvl', 'alerts'] });
  const role = startAggregates({ redis, eventLog: harness.log, catalog, ...(file !== undefined && { file }) });
  const definitions = definitionsOf(catalog);
  const push = (...events: readonly NewEvent[]): Promise<Seq> => harness.log.append(events, harness.log.head);
  return {
    harness,
    redis,
    reader,
    definitions,
    push,
    async append(...events) {
      const seq = await push(...events);
      await untilFolded(redis, definitions.values(), seq);
      return seq;
    },
    get: (path, { as = 'secret', headers = {} } = {}) =>
      get(`${harness.gateway.url}/v2/aggregates${path}`, { authorization: `Bearer ${as}`, ...headers }),
    async close() {
      await harness.stop();
      await role.stop();
      await redis.close();
    },
  };
}

async function get(url: string, headers: Readonly<Record<string, string>>): Promise<Answer> {
  const response = await fetch(url, { headers });
  const text = await response.text();
  const body = (text.startsWith('{') ? JSON.parse(text) : {}) as Partial<Answer>;
  const { items = [], next = null, seq = 0, gaps = [], error } = body;
  return { status: response.status, headers: response.headers, text, items, next, seq, gaps, error };
}

let events = 0;

/** A change of `public.trades (id, pair, price, traded_at)`; `second`: after 2026-11-22T00:00:00Z, also the commit's. */
export function trade(op: 'insert' | 'update' | 'delete', id: number, row: Row = {}, second?: number): NewEvent {
  const key = { id };
  const n = ++events;
  if (op === 'delete') return rowEvent(n, op, { table: 'trades', key, before: key });
  if (second === undefined) return rowEvent(n, op, { table: 'trades', key, after: { id, pair: 'a', ...row } });
  const at = new Date(Date.UTC(2026, 10, 22) + Math.round(second * 1_000)).toISOString();
  const { subject, data } = rowEvent(n, op, { table: 'trades', key, after: { id, pair: 'a', traded_at: at, ...row } });
  return { subject, data: Buffer.from(JSON.stringify({ ...(JSON.parse(data.toString()) as object), at })) };
}
