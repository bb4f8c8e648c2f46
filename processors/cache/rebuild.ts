import { randomUUID } from 'node:crypto';
import { RedisScript, unexpectedAnswer, type RedisClient } from '../../pipeline/clients/redis.ts';
import {
  difference,
  mostListed,
  type Beside,
  type Comparison,
  type Difference,
  type Refilled,
  type Steering,
} from '../../pipeline/runner/rebuild/model.ts';
import { overtaken } from '../../pipeline/runner/rebuild/refusals.ts';
import { flipGuard, flipped, RedisRecord, runFlip, swapLua } from '../../pipeline/runner/rebuild/redis-record.ts';
import { RedisKeys } from '../../pipeline/runner/redis-keys.ts';
import { RedisStateStore, scanKeys, type RedisEffects } from '../../pipeline/runner/redis-state-store.ts';
import type { CacheEffects } from './fold.ts';
import { encodeTable, redisCache } from './redis-cache.ts';

/*
 * The names of the cache's keys are a promise to readers of Redis, so a flip cannot point them elsewhere: rows have to change places. Nearly all rows are the same
 * in both, so only those change places that the comparison found to differ, or that have changed since it began: all of them, and the offsets, in one Lua call.
 *
 * Beside the live ones, within `{hw}:rebuild:cache`, stand the same keys as there, and while it is compared:
 * - `differs:<table>`, `touched:<table>`: sets of keys of rows that differ, and of rows that may by now
 * - `judged`: set of these tables
 * - `noting`: which comparison it is; a fold that does not know of it makes another one due
 * - `unsettled`: another one is due, also since a whole table has changed
 *
 * The record's `refilled` is of a backfill that brought back what the log no longer held.
 */

/** A fold that notes which rows it changes, while it is being compared. */
function notingEffects(noting: () => string): RedisEffects<CacheEffects> {
  const lua = `
local comparison = redis.call('GET', prefix .. ':noting')
local unsettled = comparison and comparison ~= ARGV[first]
local whole, noted = tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])
first = first + 3
for n = first, first + whole - 1 do
  -- What happens to a table that is not held changes nothing.
  if redis.call('SISMEMBER', prefix .. ':uncached', ARGV[n]) == 0 then unsettled = true end
end
first = first + whole
if unsettled then redis.call('SET', prefix .. ':unsettled', 1) end
for n = first, first + 2 * noted - 1, 2 do
  redis.call('SADD', prefix .. ':judged', ARGV[n])
  redis.call('SADD', prefix .. ':touched:' .. ARGV[n], ARGV[n + 1])
end
first = first + 2 * noted
${redisCache.lua}`;
  return {
    lua,
    encode(effects) {
      const args = redisCache.encode(effects);
      const comparison = noting();
      if (comparison === '') return ['', 0, 0, ...args];
      const { tables, uncached } = effects;
      const truncated = [...tables].flatMap(([table, changes]) => (changes.truncated === undefined ? [] : [table]));
      const whole = [...uncached.keys(), ...truncated].map(encodeTable);
      const noted = [...tables].flatMap(([table, { rows }]) => [...rows.keys()].flatMap((key) => [encodeTable(table), key]));
      return [comparison, whole.length, noted.length / 2, ...whole, ...noted, ...args];
    },
  };
}

/**
 * Begins a comparison, in one call: another's is there as a whole, or not at all. KEYS: the record; ARGV: what stands beside, prefix, which comparison.
 * Answers whether another one was due, since a whole table had changed or another fold had been at work.
 */
const beginScript = new RedisScript(`#!lua
local record = redis.call('HMGET', KEYS[1], 'state', 'making')
if (record[1] or '') .. ':' .. (record[2] or '') ~= ARGV[1] then return 'overtaken' end
local b = ARGV[2]
for _, table in ipairs(redis.call('SMEMBERS', b .. ':judged')) do redis.call('UNLINK', b .. ':differs:' .. table, b .. ':touched:' .. table) end
local due = redis.call('EXISTS', b .. ':unsettled')
redis.call('UNLINK', b .. ':judged', b .. ':unsettled')
redis.call('SET', b .. ':noting', ARGV[3])
return due`);

/**
 * KEYS: live offset, the one beside; ARGV: prefixes of the live cache and of the one beside, then `<table>:<key>` of rows. A row that one of the two cannot have
 * seen yet is `touched`; one that differs at the same offset is in `differs`. Answers how many are touched, and the numbers of those that are new in `differs`.
 */
const compareScript = new RedisScript(`#!lua
local a, b = ARGV[1], ARGV[2]
local live, beside = redis.call('HMGET', KEYS[1], 'seq', 'epoch'), redis.call('HMGET', KEYS[2], 'seq', 'epoch')
local same = live[2] == beside[2]
local ends = {tonumber(live[1] or 0), tonumber(beside[1] or 0)}
local function look(prefix, table, key)
  local row = redis.call('HMGET', prefix .. ':row:' .. table .. ':' .. key, 'seq', 'event')
  local truncated = redis.call('HGET', prefix .. ':truncated', table)
  local seq = tonumber(row[1] or 0)
  local seen = row[2] and seq > tonumber(truncated or 0) and redis.call('SISMEMBER', prefix .. ':uncached', table) == 0
  return {seq = seq, event = row[2], seen = seen, truncated = truncated, listed = redis.call('SISMEMBER', prefix .. ':keys:' .. table, key) == 1}
end
local answer = {0}
for n = 3, #ARGV do
  local table, key = string.match(ARGV[n], '^([^:]*):(.*)$')
  if not table then table, key = ARGV[n], '' end
  local one, two = look(a, table, key), look(b, table, key)
  local equal = (not one.seen and not two.seen) or (one.seen and two.seen and one.seq == two.seq and one.event == two.event and one.listed == two.listed)
  local kind
  if not equal then
    kind = (same and (one.seq > ends[2] or two.seq > ends[1])) and 'touched' or 'differs'
  elseif one.truncated ~= two.truncated and one.event ~= two.event then
    -- Not to be seen in either, but the one would be by what the other knows of its table.
    kind = 'touched'
  end
  if kind then
    redis.call('SADD', b .. ':judged', table)
    if kind == 'touched' then
      redis.call('SADD', b .. ':touched:' .. table, key)
      answer[1] = answer[1] + 1
    elseif redis.call('SADD', b .. ':differs:' .. table, key) == 1 then
      answer[#answer + 1] = n - 2
    end
  end
end
return answer`);

const flipScript = new RedisScript(`#!lua
${flipGuard}
if redis.call('GET', ARGV[4] .. ':noting') ~= ARGV[5] or redis.call('EXISTS', ARGV[4] .. ':unsettled') == 1 then return 'compare' end
${swapLua}
local a, b = ARGV[3], ARGV[4]
local by = b .. ':swap'
local function exchange(table, key)
  swap(a .. ':row:' .. table .. ':' .. key, b .. ':row:' .. table .. ':' .. key, by)
  local one, two = a .. ':keys:' .. table, b .. ':keys:' .. table
  local isOne, isTwo = redis.call('SISMEMBER', one, key), redis.call('SISMEMBER', two, key)
  if isOne ~= isTwo then
    if isTwo == 1 then one, two = two, one end
    redis.call('SREM', one, key)
    redis.call('SADD', two, key)
  end
end
for _, table in ipairs(redis.call('SMEMBERS', b .. ':judged')) do
  local differs, touched = b .. ':differs:' .. table, b .. ':touched:' .. table
  -- Twice would be not at all, and a scan may give a key twice.
  redis.call('SUNIONSTORE', differs, differs, touched)
  redis.call('UNLINK', touched)
  repeat
    local some = redis.call('SPOP', differs, 1000)
    for _, key in ipairs(some) do exchange(table, key) end
  until #some == 0
end
redis.call('UNLINK', b .. ':judged', b .. ':noting')
local function sameHash(one, two)
  if redis.call('HLEN', one) ~= redis.call('HLEN', two) then return false end
  local items = redis.call('HGETALL', one)
  for n = 1, #items, 2 do if redis.call('HGET', two, items[n]) ~= items[n + 1] then return false end end
  return true
end
local function sameSet(one, two)
  return redis.call('SCARD', one) == redis.call('SCARD', two) and #redis.call('SDIFF', one, two) == 0
end
if not (sameHash(a .. ':truncated', b .. ':truncated') and sameSet(a .. ':uncached', b .. ':uncached')) then
  for _, name in ipairs({'truncated', 'uncached'}) do swap(a .. ':' .. name, b .. ':' .. name, by) end
  -- What is still to be removed goes along with what hides it.
  local names = {}
  for _, prefix in ipairs({a, b}) do
    for _, name in ipairs(redis.call('LRANGE', prefix .. ':dropped', 0, -1)) do names[name] = true end
  end
  for name in pairs(names) do swap(a .. ':dropped:' .. name, b .. ':dropped:' .. name, by) end
  swap(a .. ':dropped', b .. ':dropped', by)
end
local refilled = redis.call('HGET', KEYS[3], 'refilled')
local from = redis.call('HGET', KEYS[2], 'from')
if refilled and refilled ~= '' and from then
  refilled = cjson.decode(refilled)
  if refilled.epoch == beside[2] and tonumber(from) <= refilled.by then redis.call('HSET', KEYS[2], 'from', refilled.from) end
end
redis.call('HDEL', KEYS[3], 'refilled')
swap(KEYS[1], KEYS[2], by)
redis.call('HSET', KEYS[1], 'making', ARGV[6])
${flipped}`);

const pageRows = 200;
/** How long a flip takes for each row that changes places, about, in ms. */
const flipRowMs = 0.025;

/** A second cache in Redis, and how it takes the place of the live one under its names. */
export function cacheBeside(client: RedisClient, keys: RedisKeys = new RedisKeys()): Beside<CacheEffects> {
  const record = new RedisRecord(client, keys, 'cache');
  const besideKeys = new RedisKeys(record.key);
  const [a, b] = [keys.prefix, besideKeys.prefix];
  const offsets = [keys.offset('cache'), besideKeys.offset('cache')] as const;
  let noting = '';
  /** `from` of the offset beside becomes that of the whole epoch in the flip, if what it folds had been brought back before. */
  const notedRefilled = (refilled: Refilled | undefined): Record<string, string> => ({
    refilled: refilled ? JSON.stringify(refilled) : '',
  });
  const store = new RedisStateStore(
    client,
    'cache',
    besideKeys,
    notingEffects(() => noting),
    { record: record.key, standing: () => record.standing },
  );
  // Its lease is of who works there, and not of what stands there.
  const spared = [offsets[1], besideKeys.lease('cache')];
  return {
    name: 'cache',
    store,
    follows: false,
    status: () => record.status({ beside: offsets[1], live: offsets[0] }),
    begin: (refilled) => record.begin(offsets[1], notedRefilled(refilled)),
    claim: (found) => record.claim(found),
    async clear(refilled) {
      await record.set(notedRefilled(refilled));
      await record.wipe(b, ['*'], { spared });
      await record.restart(offsets[1]);
    },
    holes: () => record.holes(offsets[1]),
    async compare(steering) {
      let due: unknown;
      // From the next commit on everything is noted.
      await steering.still(async () => {
        noting = randomUUID();
        due = await beginScript.run(client, [record.key], [record.standing, b, noting]);
      });
      if (Buffer.isBuffer(due)) throw overtaken('cache');
      const why = due === 1 ? 'again, since a table has been truncated, or was left out, after the comparison before: ' : '';
      return compareRows(client, [a, b], offsets, { ...steering, progress: (text) => steering.progress(`${why}${text}`) });
    },
    flip: () => runFlip(record, flipScript, [...offsets, record.key], [a, b, noting, randomUUID()]),
    async remove(signal) {
      await record.drop();
      await record.wipe(b, ['*'], { signal, spared });
      signal.throwIfAborted();
      await record.forget(offsets[1]);
    },
  };
}

type Prefixes = readonly [live: string, beside: string];

async function compareRows(client: RedisClient, prefixes: Prefixes, offsets: readonly string[], steering: Steering): Promise<Comparison> {
  const { signal, progress } = steering;
  const listed: Difference[] = [];
  let [compared, differences] = [0, 0];
  const judge = async (rows: readonly string[]): Promise<number[]> => {
    const answer = await compareScript.run(client, offsets, [...prefixes, ...rows]);
    if (!Array.isArray(answer)) throw unexpectedAnswer('a comparison', answer);
    return answer as number[];
  };
  const note = async (rows: readonly string[]): Promise<number> => {
    const [touched = 0, ...different] = await judge(rows);
    for (const number of different) {
      differences++;
      if (listed.length < mostListed) listed.push(await describe(client, prefixes, rows[number - 1]!));
    }
    return touched;
  };
  // First all rows that should be there, then those that are.
  for (const [n, prefix] of [prefixes[1], prefixes[0]].entries()) {
    for await (const found of scanKeys(client, prefix, 'row:*')) {
      const rows = found.map((key) => key.slice(prefix.length + ':row:'.length));
      for (let at = 0; at < rows.length; at += pageRows) {
        signal.throwIfAborted();
        await note(rows.slice(at, at + pageRows));
      }
      if (n === 0) compared += rows.length;
      progress(`${compared} rows compared, ${differences} differ`);
    }
  }
  const moving = await recheck(client, prefixes[1], note, steering);
  return { compared, differences, listed, moving, pauseMs: Math.round((differences + moving) * flipRowMs) };
}

/** What had changed while it was looked at is looked at again. Returns how much changes all the time. */
async function recheck(
  client: RedisClient,
  b: string,
  note: (rows: readonly string[]) => Promise<number>,
  { signal }: Steering,
): Promise<number> {
  let moving = 0;
  for (const table of await client.smembers(`${b}:judged`)) {
    let cursor = '0';
    do {
      signal.throwIfAborted();
      const [next, keys] = await client.sscan(`${b}:touched:${table}`, cursor, 'COUNT', pageRows);
      cursor = next;
      if (keys.length > 0) moving += await note(keys.map((key) => `${table}:${key}`));
    } while (cursor !== '0');
  }
  return moving;
}

async function describe(client: RedisClient, [a, b]: Prefixes, row: string): Promise<Difference> {
  const [live, beside] = await Promise.all([a, b].map((prefix) => client.hmget(`${prefix}:row:${row}`, 'seq', 'event')));
  const text = (found: readonly (string | null)[] | undefined): string | undefined =>
    found?.[1] == null ? undefined : `seq ${found[0]} ${found[1]}`;
  const colon = row.indexOf(':');
  return difference(
    `${row.slice(0, colon).replaceAll('%3A', ':').replaceAll('%25', '%')}/${row.slice(colon + 1)}`,
    text(live),
    text(beside),
  );
}
