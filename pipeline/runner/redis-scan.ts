import type { RedisClient } from '../clients/redis.ts';

const pageKeys = 1_000;

export interface ScanOptions {
  /** Told before each further look which share of all keys of Redis has been looked at, about. */
  readonly onLook?: (share: number) => void;
  /** How Redis is asked; default: once. A cursor outlives the connection, but not Redis: see `inOneProcess`. */
  readonly ask?: Ask;
}

/** Calls what asks Redis, until it has answered. */
export type Ask = <T>(attempt: () => Promise<T>) => Promise<T>;

/** The keys `<prefix>:<pattern>` in pages, none of them empty; a key may be given twice. A pattern that is a name is that of one key, which is not searched for. */
export async function* scanKeys(
  client: RedisClient,
  prefix: string,
  pattern: string,
  { onLook, ask = (attempt) => attempt() }: ScanOptions = {},
): AsyncGenerator<string[], void, undefined> {
  if (globOf(pattern) === pattern) {
    const key = `${prefix}:${pattern}`;
    if ((await ask(() => client.exists(key))) === 1) yield [key];
    return;
  }
  const all = onLook ? await ask(() => client.dbsize()) : 0;
  let [cursor, looked] = ['0', 0];
  do {
    onLook?.(looked / Math.max(1, all, looked));
    const from = cursor;
    const [next, keys] = await ask(() => client.scan(from, 'MATCH', globOf(`${prefix}:`) + pattern, 'COUNT', pageKeys));
    cursor = next;
    looked += pageKeys;
    if (keys.length > 0) yield keys;
  } while (cursor !== '0');
}

/** Does something with cursors, and does it again when Redis was another process at its end: that one has its keys in another order. */
export async function inOneProcess<T>(client: RedisClient, ask: Ask, work: () => Promise<T>): Promise<T> {
  const process = async (): Promise<string | undefined> => /^run_id:(\w+)/m.exec(await ask(() => client.info('server')))?.[1];
  for (;;) {
    const begun = await process();
    const done = await work();
    if ((await process()) === begun) return done;
  }
}

/** Text as a glob-style pattern that matches it alone. */
function globOf(text: string): string {
  return text.replace(/[\\*?[\]]/g, '\\$&');
}
