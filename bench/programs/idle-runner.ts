import { connectNats } from '../../pipeline/clients/nats.ts';
import { connectRedis } from '../../pipeline/clients/redis.ts';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import { RedisKeys } from '../../pipeline/runner/redis-keys.ts';
import { RedisStateStore } from '../../pipeline/runner/redis-state-store.ts';
import { startRunner } from '../../pipeline/runner/runner.ts';
import { readConfig } from '../../pipeline/runtime/config.ts';
import { Health } from '../../pipeline/runtime/health.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { createRegistry } from '../../pipeline/runtime/metrics.ts';
import { order, tell } from './commits.ts';

/** The yardstick of processors: the runner with the log, an offset in Redis, and nothing to do. */
export interface IdleRunnerOrder {
  readonly natsUrl: string;
  readonly redisUrl: string;
  /** All of the log when absent. */
  readonly subjects?: readonly string[];
  /** The sequence at which it is done. */
  readonly end: number;
}

const { natsUrl, redisUrl, subjects, end } = await order<IdleRunnerOrder>();
const log = silentLogger();
const config = readConfig({ NATS_URL: natsUrl, REDIS_URL: redisUrl });
const eventLog = await JetStreamLog.open(await connectNats(natsUrl, 'bench', log), config, log);
const redis = await connectRedis(redisUrl, log);
const store = new RedisStateStore<undefined>(redis, 'idle', new RedisKeys(`{bench${process.pid}}`), { lua: '', encode: () => [] });
const commit = store.commit.bind(store);
const begun = performance.now();
store.commit = async (effects, expected, next) => {
  const outcome = await commit(effects, expected, next);
  if (next.seq >= end) tell({ seconds: (performance.now() - begun) / 1_000 });
  return outcome;
};
const context = { config, log, metrics: createRegistry(), health: new Health(), signal: new AbortController().signal };
const processor = { name: 'idle', ...(subjects && { subjects }), begin: () => undefined, apply: () => undefined };
const deadLetters = { publish: () => Promise.reject(new Error('nothing can fail')) };
await startRunner(context, { eventLog, store, processor, deadLetters }).done;
