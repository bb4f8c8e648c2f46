import { RedisScript, unexpectedAnswer, type RedisClient } from '../clients/redis.ts';
import { pause } from '../runtime/backoff.ts';
import { HeadwaterError } from '../runtime/errors.ts';
import {
  difference,
  mostListed,
  overtaken,
  type Beside,
  type BesideState,
  type BesideStatus,
  type Comparison,
  type Difference,
  type FlipOutcome,
  type Steering,
} from './rebuild.ts';
import { RedisKeys } from './redis-keys.ts';
import { RedisStateStore, scanKeys, type RedisEffects } from './redis-state-store.ts';
import type { Offset } from './state-store.ts';

/** Lua of a flip, in front of what it does: KEYS are the live offset, the one beside, the record; ARGV[1] is the state beside. Sets `live` and `beside`. */
export const flipGuard = `
if redis.call('HGET', KEYS[3], 'state') ~= ARGV[1] then return 'overtaken' end
local live = redis.call('HMGET', KEYS[1], 'seq', 'epoch')
local beside = redis.call('HMGET', KEYS[2], 'seq', 'epoch')
if not beside[1] then return 'behind' end
if live[1] and live[2] == beside[2] and tonumber(live[1]) > tonumber(beside[1]) then return 'behind' end`;

/** Lua that exchanges two keys, either of which may be missing. */
export const swapLua = `
local function swap(a, b, by)
  local isA, isB = redis.call('EXISTS', a) == 1, redis.call('EXISTS', b) == 1
  if isA then redis.call('RENAME', a, by) end
  if isB then redis.call('RENAME', b, a) end
  if isA then redis.call('RENAME', by, b) end
end`;

/** Lua at the end of a flip: ARGV[2] is the time of day. */
export const flipped = `
redis.call('HSET', KEYS[3], 'state', 'kept', 'since', ARGV[2])
return 'flipped'`;

/** What is noted of a state beside: hash `state`, `since`, and what the processor adds. */
export class RedisRecord {
  readonly client: RedisClient;
  readonly name: string;
  readonly key: string;

  constructor(client: RedisClient, keys: RedisKeys, name: string) {
    this.client = client;
    this.name = name;
    this.key = `${keys.prefix}:rebuild:${name}`;
  }

  get(field: string): Promise<string | null> {
    return this.client.hget(this.key, field);
  }

  /** @param offsets keys of the offset beside and of the live one */
  async status(offsets: { readonly beside: string; readonly live: string }): Promise<BesideStatus | undefined> {
    const [state, since] = await this.client.hmget(this.key, 'state', 'since');
    if (state == null || since == null) return undefined;
    const [offset, live] = [await offsetAt(this.client, offsets.beside), await offsetAt(this.client, offsets.live)];
    return { name: this.name, state: state as BesideState, since, offset, live };
  }

  async set(state: BesideState, fields: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.client.hset(this.key, { state, since: new Date().toISOString(), ...fields });
  }

  async forget(): Promise<void> {
    await this.client.del(this.key);
  }
}

/** Runs a script of a flip. */
export async function runFlip(
  { client, name }: RedisRecord,
  script: RedisScript,
  keys: readonly string[],
  args: readonly (string | number)[],
): Promise<FlipOutcome> {
  const answer = await script.run(client, keys, args);
  const outcome = Buffer.isBuffer(answer) ? answer.toString() : '';
  if (outcome === 'overtaken') throw overtaken(name);
  if (outcome !== 'flipped' && outcome !== 'behind' && outcome !== 'compare') throw unexpectedAnswer('a flip', answer);
  return outcome;
}

async function offsetAt(client: RedisClient, key: string): Promise<Offset | undefined> {
  const [seq, epoch, namespace] = await client.hmget(key, 'seq', 'epoch', 'namespace');
  if (seq == null || epoch == null) return undefined;
  return { seq: Number(seq), epoch, ...(namespace != null && { namespace }) };
}

/** Removes every key under a prefix. */
export async function removeKeys(client: RedisClient, prefix: string, patterns: readonly string[], signal: AbortSignal): Promise<void> {
  for (const pattern of patterns) {
    for await (const keys of scanKeys(client, prefix, pattern)) {
      signal.throwIfAborted();
      await client.unlink(...keys);
    }
  }
}

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

interface ComparedSpaces {
  readonly client: RedisClient;
  /** Keys of the offsets, and the prefixes, of the live state and of the one beside. */
  readonly live: { readonly offset: string; readonly prefix: string };
  readonly beside: { readonly offset: string; readonly prefix: string };
  readonly patterns: readonly string[];
}

/** Compares two namespaces key by key, each key at one offset. */
async function compareSpaces({ client, live, beside, patterns }: ComparedSpaces, { signal, progress }: Steering): Promise<Comparison> {
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

const flipScript = new RedisScript(`#!lua
${flipGuard}
${swapLua}
-- From now on both say where their state is.
redis.call('HSETNX', KEYS[1], 'namespace', ARGV[3])
redis.call('HSETNX', KEYS[2], 'namespace', ARGV[4])
swap(KEYS[1], KEYS[2], KEYS[3] .. ':swap')
${flipped}`);

export interface RedisBesideParts<Effects> {
  readonly client: RedisClient;
  /** The processor's name: that of its offset. */
  readonly processor: string;
  /** The keys that the processor's own store was made with. */
  readonly keys?: RedisKeys;
  readonly effects: RedisEffects<Effects>;
  /** The processor's keys, as glob-style patterns of what follows `<prefix>:` (`portfolio:*`). */
  readonly patterns: readonly string[];
}

/**
 * A second state of a processor whose store is `RedisStateStore`. A flip exchanges the two offsets, each of which says in `namespace` under which prefix its state
 * is: readers take the prefix from there (`livePrefix`), so that they see all of the one state or all of the other.
 */
export function redisBeside<Effects>(parts: RedisBesideParts<Effects>): Beside<Effects> {
  const { client, processor, effects, patterns, keys = new RedisKeys() } = parts;
  const record = new RedisRecord(client, keys, processor);
  const besideKeys = new RedisKeys(record.key);
  const store = new RedisStateStore(client, processor, besideKeys, effects);
  const [live, beside] = [keys.offset(processor), besideKeys.offset(processor)];
  const prefixAt = async (offset: string, fallback: string): Promise<string> => (await client.hget(offset, 'namespace')) ?? fallback;
  return {
    name: processor,
    store,
    follows: false,
    status: () => record.status({ beside, live }),
    async begin() {
      // The place that is free: the other one is where the live state is.
      const taken = await prefixAt(live, keys.prefix);
      await client.hset(beside, 'namespace', taken === keys.prefix ? besideKeys.prefix : keys.prefix);
      await record.set('filling');
    },
    clear: () => store.wipe(patterns),
    async compare(steering) {
      const spaces = {
        live: { offset: live, prefix: await prefixAt(live, keys.prefix) },
        beside: { offset: beside, prefix: await prefixAt(beside, besideKeys.prefix) },
      };
      return compareSpaces({ client, patterns, ...spaces }, steering);
    },
    flip(_steering, state) {
      return runFlip(record, flipScript, [live, beside, record.key], [state, new Date().toISOString(), keys.prefix, besideKeys.prefix]);
    },
    async remove(signal) {
      if ((await prefixAt(beside, besideKeys.prefix)) === (await prefixAt(live, keys.prefix)))
        throw new HeadwaterError('rebuild_unclear', `what stands beside ${processor} cannot be told from its live state`);
      await record.set('dropping');
      await store.wipe(patterns);
      signal.throwIfAborted();
      await client.del(beside);
      await record.forget();
    },
  };
}

/** The prefix under which the live state of a processor is; it changes when a rebuild is flipped. */
export async function livePrefix(client: RedisClient, processor: string, keys: RedisKeys = new RedisKeys()): Promise<string> {
  return (await client.hget(keys.offset(processor), 'namespace')) ?? keys.prefix;
}
