import { closeRedis, connectRedis, type RedisClient } from '../../pipeline/clients/redis.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { testServers } from './servers.ts';

/** A database of the tests' Redis for a test that needs keys of fixed names: empty, and emptied when it is closed. */
export interface RedisDatabase {
  readonly url: string;
  readonly client: RedisClient;
  close(): Promise<void>;
}

/** @param number which of the 15 databases that no other test works in at the same time */
export async function redisDatabase(number = 1): Promise<RedisDatabase> {
  const url = new URL((await testServers()).redisUrl);
  url.pathname = `/${number}`;
  const client = await connectRedis(url.toString(), silentLogger());
  await client.flushdb();
  const close = async (): Promise<void> => {
    await client.flushdb();
    closeRedis(client);
  };
  return { url: url.toString(), client, close };
}
