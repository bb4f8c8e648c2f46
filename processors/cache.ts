import type { EventLog } from '../pipeline/log/event-log.ts';
import { unfitOffset } from '../pipeline/runner/mending.ts';
import { rebuildable } from '../pipeline/runner/rebuild/rebuild.ts';
import { RedisKeys } from '../pipeline/runner/redis-keys.ts';
import { RedisStateStore } from '../pipeline/runner/redis-state-store.ts';
import { startRunner } from '../pipeline/runner/runner.ts';
import type { HeadwaterError } from '../pipeline/runtime/errors.ts';
import type { Logger } from '../pipeline/runtime/logging.ts';
import { cacheProcessor, type CacheEffects } from './cache/fold.ts';
import { cachePatterns, redisCache } from './cache/redis-cache.ts';
import { cacheBeside } from './cache/rebuild.ts';
import type { ProcessorFactory } from './processor-factory.ts';

interface Filled {
  readonly store: RedisStateStore<CacheEffects>;
  readonly eventLog: EventLog;
  readonly log: Logger;
}

/**
 * A cache is worth nothing without the events that it has missed: it is emptied, and filled from the oldest event there is. A new
 * epoch begins with a copy of all rows; of a trimmed log, rows that have not changed since are asked of the database.
 */
async function filledAnew(reason: HeadwaterError, { store, eventLog, log }: Filled): Promise<boolean> {
  const expected = await unfitOffset('cache', store, eventLog);
  if (!expected) return true;
  log.warn(
    `cache: filling it anew, since ${reason.message}${reason.code === 'offset_expired' ? '; `headwater backfill --all` brings back rows that do not change' : ''}`,
  );
  // Another one there by now: it is loaded again.
  await store.wipe(cachePatterns, expected);
  return true;
}

/** The current row of every captured table with a primary key, in Redis. */
export const cache: ProcessorFactory = {
  name: 'cache',
  async start(context, { catalog, ...connections }) {
    const { eventLog, deadLetters } = await connections.log();
    const store = new RedisStateStore(await connections.redis(), 'cache', new RedisKeys(), redisCache);
    return startRunner(context, {
      eventLog,
      deadLetters,
      store,
      processor: cacheProcessor(catalog),
      mend: (reason) => filledAnew(reason, { store, eventLog, log: context.log }),
    });
  },
  async rebuild(context, { catalog, ...connections }) {
    const { eventLog, deadLetters } = await connections.log();
    const beside = cacheBeside(await connections.redis());
    return [rebuildable(context, { eventLog, deadLetters, beside, processor: cacheProcessor(catalog) })];
  },
};
