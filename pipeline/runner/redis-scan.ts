import type { RedisClient } from '../clients/redis.ts';

/** The keys `<prefix>:<pattern>` in pages, none of them empty; a key may be given twice. */
export async function* scanKeys(client: RedisClient, prefix: string, pattern: string): AsyncGenerator<string[], void, undefined> {
  let cursor = '0';
  do {
    const [next, keys] = await client.scan(cursor, 'MATCH', globOf(`${prefix}:`) + pattern, 'COUNT', 1_000);
    cursor = next;
    if (keys.length > 0) yield keys;
  } while (cursor !== '0');
}

/** Text as a glob-style pattern that matches it alone. */
function globOf(text: string): string {
  return text.replace(/[\\*?[\]]/g, '\\$&');
}
