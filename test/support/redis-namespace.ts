import { randomBytes } from 'node:crypto';
import { closeRedis, connectRedis, type RedisClient } from '../../pipeline/clients/redis.ts';
import { RedisKeys } from '../../pipeline/runner/redis-keys.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { testServers } from './servers.ts';

/** A connection to the tests' Redis, and a prefix of a test's own there. */
export interface RedisNamespace {
  readonly url: string;
  readonly client: RedisClient;
  readonly keys: RedisKeys;
  /** Removes everything under the prefix, as if Redis had been emptied. */
  empty(): Promise<void>;
  close(): Promise<void>;
}

export async function redisNamespace(): Promise<RedisNamespace> {
  const { redisUrl: url } = await testServers();
  const client = await connectRedis(url, silentLogger());
  const keys = new RedisKeys(`{test${randomBytes(6).toString('hex')}}`);
  const empty = async (): Promise<void> => {
    for await (const found of client.scanStream({ match: `${keys.prefix}:*`, count: 1_000 }) as AsyncIterable<string[]>) {
      if (found.length > 0) await client.unlink(...found);
    }
  };
  const close = async (): Promise<void> => {
    await empty();
    closeRedis(client);
  };
  return { url, client, keys, empty, close };
}
