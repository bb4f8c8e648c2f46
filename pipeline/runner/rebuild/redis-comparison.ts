import { RedisScript, type RedisClient } from '../../clients/redis.ts';
import { pause } from '../../runtime/backoff.ts';
import { scanKeys } from '../redis-state-store.ts';
import { difference, mostListed, type Comparison, type Difference, type Steering } from './model.ts';

/**
 * Compares the hashes, sets, sorted sets, lists and strings `<prefix>:<suffix>` of two namespaces, if both stand at the same offset. KEYS: the offsets;
 * ARGV: the prefixes, then suffixes. Answers 'moving', or the number of each suffix that differs.
 */
const compareScript = new RedisScript(`#!lua flags=no-writes
local a, b = redis.call('HMGET', KEYS[1], 'seq', 'epoch'), redis.call('HMGET', KEYS[2], 'seq', 'epoch')
if a[1] ~= b[1] or a[2] ~= b[2] then return 'moving' end
local size = {string = 'STRLEN', hash = 'HLEN', set = 'SCARD', zset = 'ZCARD', list = 'LLEN', stream = 'XLEN'}
local function equal(one, two)
  local kind = redis.call('TYPE', one).ok
  if kind ~= redis.call('TYPE', two).ok then return false end
  if kind == 'none' then return true end
  if not size[kind] then return redis.call('DUMP', one) == redis.call('DUMP', two) end
  if redis.call(size[kind], one) ~= redis.call(size[kind], two) then return false end
  if kind == 'string' then return redis.call('GET', one) == redis.call('GET', two) end
  if kind == 'hash' then
    local items = redis.call('HGETALL', one)
    for n = 1, #items, 2 do if redis.call('HGET', two, items[n]) ~= items[n + 1] then return false end end
    return true
  end
  if kind == 'set' then
    for _, item in ipairs(redis.call('SMEMBERS', one)) do if redis.call('SISMEMBER', two, item) == 0 then return false end end
    return true
  end
  local read = {zset = {'ZRANGE', 0, -1, 'WITHSCORES'}, list = {'LRANGE', 0, -1}, stream = {'XRANGE', '-', '+'}}
  local command = read[kind]
  local function all(key) return redis.call(command[1], key, unpack(command, 2)) end
  return cjson.encode(all(one)) == cjson.encode(all(two))
end
local different = {}
for n = 3, #ARGV do
  if not equal(ARGV[1] .. ':' .. ARGV[n], ARGV[2] .. ':' .. ARGV[n]) then different[#different + 1] = n - 2 end
end
return different`);

const pageKeys = 100;
const attempts = 40;

export interface ComparedSpaces {
  readonly client: RedisClient;
  /** Keys of the offsets, and the prefixes, of the live state and of the one beside. */
  readonly live: { readonly offset: string; readonly prefix: string };
  readonly beside: { readonly offset: string; readonly prefix: string };
  readonly patterns: readonly string[];
}

/** Compares two namespaces key by key, each key at one offset. */
export async function compareSpaces(
  { client, live, beside, patterns }: ComparedSpaces,
  { signal, progress }: Steering,
): Promise<Comparison> {
  const seen = new Set<string>();
  const listed: Difference[] = [];
  let [compared, differences, moving] = [0, 0, 0];
  const judge = async (suffixes: readonly string[]): Promise<void> => {
    const numbers = await compareAtOnce(client, [live.offset, beside.offset], [live.prefix, beside.prefix, ...suffixes], signal);
    compared += suffixes.length;
    if (!numbers) moving += suffixes.length;
    for (const number of numbers ?? []) {
      differences++;
      const what = suffixes[number - 1]!;
      const [l, b] = await Promise.all([live, beside].map(({ prefix }) => contentOf(client, `${prefix}:${what}`)));
      if (listed.length < mostListed) listed.push(difference(what, l, b));
    }
  };
  for (const { prefix } of [beside, live]) {
    for (const pattern of patterns) {
      for await (const keys of scanKeys(client, prefix, pattern)) {
        signal.throwIfAborted();
        const fresh = [...new Set(keys.map((key) => key.slice(prefix.length + 1)))].filter((suffix) => !seen.has(suffix));
        for (const suffix of fresh) seen.add(suffix);
        for (let at = 0; at < fresh.length; at += pageKeys) await judge(fresh.slice(at, at + pageKeys));
        progress(`${compared} keys compared`);
      }
    }
  }
  return { compared, differences, listed, moving };
}

/** Waits for both to stand at the same offset; undefined when they do not. */
async function compareAtOnce(
  client: RedisClient,
  keys: readonly string[],
  args: readonly string[],
  signal: AbortSignal,
): Promise<readonly number[] | undefined> {
  for (let n = 0; n < attempts; n++) {
    const answer = await compareScript.run(client, keys, args);
    if (Array.isArray(answer)) return answer as number[];
    await pause(5 + n * 2, signal);
    signal.throwIfAborted();
  }
  return undefined;
}

/** A key’s content, the beginning of it, as text. */
async function contentOf(client: RedisClient, key: string): Promise<string | undefined> {
  switch (await client.type(key)) {
    case 'none':
      return undefined;
    case 'string':
      return (await client.get(key)) ?? undefined;
    case 'hash':
      return (await client.hlen(key)) > mostFields
        ? 'a large hash'
        : JSON.stringify(
            Object.entries(await client.hgetall(key))
              .map(([field, value]) => `${field}: ${value}`)
              .sort(),
          );
    case 'set':
      return (await client.scard(key)) > mostFields ? 'a large set' : JSON.stringify((await client.smembers(key)).sort());
    case 'zset':
      return JSON.stringify(await client.zrange(key, '0', `${mostFields}`, 'WITHSCORES'));
    case 'list':
      return JSON.stringify(await client.lrange(key, 0, mostFields));
    default:
      return 'something else';
  }
}

const mostFields = 1_000;
