import { RedisKeys } from '../pipeline/runner/redis-keys.ts';
import { RedisStateStore } from '../pipeline/runner/redis-state-store.ts';
import { startRunner } from '../pipeline/runner/runner.ts';
import { cacheProcessor } from './cache/fold.ts';
import { redisCache } from './cache/redis-cache.ts';
import type { ProcessorFactory } from './processor-factory.ts';

/** The current row of every captured table with a primary key, in Redis. */
export const cache: ProcessorFactory = {
  name: 'cache',
  start(context, { eventLog, deadLetters, catalog, redis }) {
    const store = new RedisStateStore(redis, 'cache', new RedisKeys(), redisCache);
    return startRunner(context, { eventLog, deadLetters, store, processor: cacheProcessor(catalog) });
  },
};
