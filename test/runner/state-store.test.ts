import { RedisStateStore } from '../../pipeline/runner/redis-state-store.ts';
import { MemoryStateStore } from '../support/memory-state-store.ts';
import { redisNamespace } from '../support/redis-namespace.ts';
import { stateStoreConformance } from './state-store.conformance.ts';

stateStoreConformance('in memory', () => {
  const store = new MemoryStateStore<string>();
  return Promise.resolve({ store, state: () => Promise.resolve(store.state), close: () => Promise.resolve() });
});

stateStoreConformance('Redis', async () => {
  const { client, keys, close } = await redisNamespace();
  const list = `${keys.prefix}:list`;
  const lua = `for i = first, #ARGV do redis.call('RPUSH', prefix .. ':list', ARGV[i]) end`;
  const store = new RedisStateStore<string[]>(client, 'test', keys, { lua, encode: (items) => items });
  return { store, state: () => client.lrange(list, 0, -1), close };
});
