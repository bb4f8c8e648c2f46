import type { PgPool } from '../pipeline/clients/postgres.ts';
import type { RedisClient } from '../pipeline/clients/redis.ts';
import type { BesideStatus } from '../pipeline/runner/rebuild/model.ts';
import { postgresBesides } from '../pipeline/runner/rebuild/postgres.ts';
import { RedisRecord } from '../pipeline/runner/rebuild/redis-record.ts';
import { RedisKeys } from '../pipeline/runner/redis-keys.ts';
import { namespaceOf } from '../processors/aggregates/store/keys.ts';
import { processorName } from '../processors/aggregates/store/registry.ts';
import { tableExists } from './alerts-status.ts';
import type { StoredOffset } from './status.ts';

/** A state beside a live one: what `headwater status` says of it. */
export interface RebuildStatus {
  /** The processor, or the part of it: `aggregates.price`. */
  readonly name: string;
  readonly state: BesideStatus['state'];
  /** Since when, ISO 8601. */
  readonly since: string;
  /** A command is at work on it now, or was some seconds ago. */
  readonly atWork: boolean;
  /** How far it is, and how far the live one is; undefined before the first event. */
  readonly seq: number | undefined;
  readonly liveSeq: number | undefined;
}

/** What stands in Redis beside the live states that these are the offsets of, the cache's and those of aggregates too. */
export async function redisRebuilds(redis: RedisClient, offsets: readonly StoredOffset[]): Promise<readonly RebuildStatus[]> {
  const live = new Map([['cache', undefined], ...offsets.map(({ name, seq, building }) => [name, building ? undefined : seq] as const)]);
  const found = await Promise.all(
    [...live].map(([name, seq]) => (name.startsWith(`${processorName}.`) ? ofAggregate(redis, name, seq) : ofState(redis, name))),
  );
  return found.filter((status) => status !== undefined);
}

async function ofState(redis: RedisClient, name: string): Promise<RebuildStatus | undefined> {
  const keys = new RedisKeys();
  const record = new RedisRecord(redis, keys, name);
  const beside = new RedisKeys(record.key);
  const status = await record.status({ beside: beside.offset(name), live: keys.offset(name) });
  return status && statusOf(status, await isLeased(redis, beside.lease(name)));
}

/** The registry says where the live state is, so that its offset is known already. */
async function ofAggregate(redis: RedisClient, name: string, liveSeq: number | undefined): Promise<RebuildStatus | undefined> {
  const record = new RedisRecord(redis, new RedisKeys(), name);
  const hash = await record.get('hash');
  if (hash === null) return undefined;
  const beside = namespaceOf(name.slice(processorName.length + 1), hash);
  const status = await record.status({ beside: beside.offset(processorName) });
  return status && statusOf(status, await isLeased(redis, beside.lease(processorName)), liveSeq);
}

/** What stands in PostgreSQL beside live states. */
export async function databaseRebuilds(pool: PgPool): Promise<readonly RebuildStatus[]> {
  if (!(await tableExists(pool, 'processor_rebuilds'))) return [];
  return (await postgresBesides(pool)).map(({ status, leased }) => statusOf(status, leased));
}

function statusOf({ name, state, since, offset, live }: BesideStatus, atWork: boolean, liveSeq = live?.seq): RebuildStatus {
  return { name, state, since, atWork, seq: offset?.seq, liveSeq };
}

async function isLeased(redis: RedisClient, key: string): Promise<boolean> {
  return (await redis.exists(key)) === 1;
}
