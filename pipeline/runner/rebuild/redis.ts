import { RedisScript, untilRedisAnswers, type RedisClient } from '../../clients/redis.ts';
import { HeadwaterError } from '../../runtime/errors.ts';
import { RedisKeys } from '../redis-keys.ts';
import { swapLua } from '../redis-lua.ts';
import { RedisStateStore, type RedisEffects } from '../redis-state-store.ts';
import type { Beside } from './model.ts';
import { compareSpaces } from './redis-comparison.ts';
import { flipGuard, flipped, holesAt, RedisRecord, runFlip } from './redis-record.ts';

const flipScript = new RedisScript(`#!lua
${flipGuard}
${swapLua}
-- From now on both say where their state is; the one beside has done so from its beginning.
redis.call('HSETNX', KEYS[1], 'namespace', ARGV[3])
swap(KEYS[1], KEYS[2], KEYS[3] .. ':swap')
${flipped}`);

export interface RedisBesideParts<Effects> {
  readonly client: RedisClient;
  /** The processor's name: that of its offset. */
  readonly processor: string;
  /** The keys that the processor's own store was made with. */
  readonly keys?: RedisKeys;
  readonly effects: RedisEffects<Effects>;
  /** The processor's keys, as glob-style patterns of what follows `<prefix>:` (`portfolio:*`). */
  readonly patterns: readonly string[];
}

/**
 * A second state of a processor whose store is `RedisStateStore`. A flip exchanges the two offsets, each of which says in `namespace` under which prefix its state
 * is: readers take the prefix from there (`livePrefix`), so that they see all of the one state or all of the other.
 */
export function redisBeside<Effects>(parts: RedisBesideParts<Effects>): Beside<Effects> {
  const { client, processor, effects, patterns, keys = new RedisKeys() } = parts;
  const record = new RedisRecord(client, keys, processor);
  const besideKeys = new RedisKeys(record.key);
  const standing = { record: record.key, standing: () => record.standing, namespaced: true };
  const store = new RedisStateStore(client, processor, besideKeys, effects, { beside: standing });
  const [live, beside] = [keys.offset(processor), besideKeys.offset(processor)];
  const livePlace = async (): Promise<string> => (await client.hget(live, 'namespace')) ?? keys.prefix;
  /** Never guessed: what it would be by default may be where the live state is. */
  const place = async (): Promise<string> => {
    const [found, taken] = [await client.hget(beside, 'namespace'), await livePlace()];
    if (found != null && found !== taken) return found;
    throw new HeadwaterError('rebuild_unclear', `what stands beside ${processor} cannot be told from its live state`);
  };
  return {
    name: processor,
    store,
    follows: false,
    status: () => record.status({ beside, live }),
    // The place that is free: the other one is where the live state is.
    begin: async () => record.begin(beside, {}, (await livePlace()) === keys.prefix ? besideKeys.prefix : keys.prefix),
    claim: (found) => record.claim(found),
    async clear(_refilled, progress) {
      // Also where it has just begun: the place is one that a former live state may have been in.
      await record.wipe(await place(), patterns, progress && { progress });
      await record.restart(beside);
    },
    holes: () => holesAt(client, beside),
    async compare(steering) {
      const spaces = await untilRedisAnswers(
        async () => ({ live: { offset: live, prefix: await livePlace() }, beside: { offset: beside, prefix: await place() } }),
        steering,
      );
      return compareSpaces({ client, patterns, ...spaces }, steering);
    },
    flip: () => runFlip(record, flipScript, [live, beside, record.key], [keys.prefix]),
    async remove(signal, progress) {
      await record.drop();
      // Without an offset there is nothing that it could belong to.
      if ((await client.exists(beside)) === 1) await record.wipe(await place(), patterns, { signal, ...(progress && { progress }) });
      signal.throwIfAborted();
      await record.forget(beside);
    },
  };
}

/** The prefix under which the live state of a processor is; it changes when a rebuild is flipped. */
export async function livePrefix(client: RedisClient, processor: string, keys: RedisKeys = new RedisKeys()): Promise<string> {
  return (await client.hget(keys.offset(processor), 'namespace')) ?? keys.prefix;
}
