import { expect } from 'chai';
import { RedisStateStore } from '../../../../pipeline/runner/redis-state-store.ts';
import type { StateStore } from '../../../../pipeline/runner/state-store.ts';
import { cacheProcessor, type CacheEffects } from '../../../../processors/cache/fold.ts';
import { redisCache } from '../../../../processors/cache/redis-cache.ts';
import { defaultCatalog } from '../../../../schemas/catalog.ts';
import type { MemoryLog } from '../../../support/memory-log.ts';
import type { RedisNamespace } from '../../../support/redis-namespace.ts';

const catalog = defaultCatalog();

/** Where the live cache of a test is. */
export function liveCache({ client, keys }: RedisNamespace): RedisStateStore<CacheEffects> {
  return new RedisStateStore(client, 'cache', keys, redisCache);
}

/**
 * Folds the log into a cache, up to a sequence, in one commit.
 * @param also what else is to happen in it
 */
export async function foldInto(
  store: StateStore<CacheEffects>,
  log: MemoryLog,
  to = log.head,
  also?: (effects: CacheEffects) => void,
): Promise<void> {
  const processor = cacheProcessor(catalog);
  const expected = await store.offset();
  const effects = processor.begin();
  for (let seq = (expected?.seq ?? 0) + 1; seq <= to; seq++) processor.apply((await log.get(seq))!, effects);
  also?.(effects);
  expect(await store.commit(effects, expected, { seq: to, epoch: log.epoch })).to.equal('committed');
}
