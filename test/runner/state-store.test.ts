import { migrate } from '../../deploy/migrate.ts';
import { createPool } from '../../pipeline/clients/postgres.ts';
import { PostgresStateStore } from '../../pipeline/runner/postgres-state-store.ts';
import { RedisStateStore } from '../../pipeline/runner/redis-state-store.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { MemoryStateStore } from '../support/memory-state-store.ts';
import { redisNamespace } from '../support/redis-namespace.ts';
import { freshDatabase } from '../support/servers.ts';
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

stateStoreConformance('PostgreSQL', async () => {
  const database = await freshDatabase();
  await migrate(database.url, { demo: false, log: silentLogger() });
  const pool = createPool(database.url, 'test', silentLogger(), 5);
  await pool.query('CREATE TABLE list (n int GENERATED ALWAYS AS IDENTITY, item text)');
  const store = new PostgresStateStore<string[]>(pool, 'test', {
    isEmpty: (items) => items.length === 0,
    write: async (client, items) => void (await client.query('INSERT INTO list (item) SELECT unnest($1::text[])', [items])),
  });
  const state = async (): Promise<string[]> =>
    (await pool.query<{ item: string }>('SELECT item FROM list ORDER BY n')).rows.map(({ item }) => item);
  const close = async (): Promise<void> => {
    await pool.end();
    await database.drop();
  };
  return { store, state, close };
});
