import type { RedisClient } from '../clients/redis.ts';

const pageKeys = 1_000;

/**
 * The keys `<prefix>:<pattern>` in pages, none of them empty; a key may be given twice. A pattern that is a name is that of one key, which is not searched for.
 * @param onLook told before each further look which share of all keys of Redis has been looked at, about
 */
export async function* scanKeys(
  client: RedisClient,
  prefix: string,
  pattern: string,
  onLook?: (share: number) => void,
): AsyncGenerator<string[], void, undefined> {
  if (globOf(pattern) === pattern) {
    const key = `${prefix}:${pattern}`;
    if ((await client.exists(key)) === 1) yield [key];
    return;
  }
  const all = onLook ? await client.dbsize() : 0;
  let [cursor, looked] = ['0', 0];
  do {
    onLook?.(looked / Math.max(1, all, looked));
    const [next, keys] = await client.scan(cursor, 'MATCH', globOf(`${prefix}:`) + pattern, 'COUNT', pageKeys);
    cursor = next;
    looked += pageKeys;
    if (keys.length > 0) yield keys;
  } while (cursor !== '0');
}

/** Text as a glob-style pattern that matches it alone. */
function globOf(text: string): string {
  return text.replace(/[\\*?[\]]/g, '\\$&');
}
