import { RedisKeys } from '../pipeline/runner/redis-keys.ts';
import { RedisStateStore } from '../pipeline/runner/redis-state-store.ts';
import { startRunner } from '../pipeline/runner/runner.ts';
import type { Logger } from '../pipeline/runtime/logging.ts';
import { cacheProcessor, type CacheEffects } from './cache/fold.ts';
import { cachePatterns, redisCache } from './cache/redis-cache.ts';
import type { ProcessorFactory } from './processor-factory.ts';

async function wiped(store: RedisStateStore<CacheEffects>, log: Logger): Promise<boolean> {
  log.warn('cache: the log has begun a new epoch, filling the cache anew');
  await store.wipe(cachePatterns);
  return true;
}

/** The current row of every captured table with a primary key, in Redis. */
export const cache: ProcessorFactory = {
  name: 'cache',
  start(context, { eventLog, deadLetters, catalog, redis }) {
    const store = new RedisStateStore(redis, 'cache', new RedisKeys(), redisCache);
    return startRunner(context, {
      eventLog,
      deadLetters,
      store,
      processor: cacheProcessor(catalog),
      // Rows of another history are worth nothing, and the new one begins with a copy of them all.
      mend: async (reason) => reason.code === 'epoch_changed' && (await wiped(store, context.log)),
    });
  },
};
