import { RedisScript } from '../../pipeline/clients/redis.ts';
import { flipGuard, flipped } from '../../pipeline/runner/rebuild/redis-record.ts';
import { standsLua, swapLua } from '../../pipeline/runner/redis-lua.ts';

/*
 * The names of the cache's keys are a promise to readers of Redis, so a flip cannot point them elsewhere: rows have to change places. Nearly all rows are the same
 * in both, so only those change places that the comparison found to differ, or that have changed since it began: all of them, and the offsets, in one Lua call.
 *
 * Beside the live ones, within `{hw}:rebuild:cache`, stand the same keys as there, and while it is compared:
 * - `differs:<table>`, `touched:<table>`: sets of keys of rows that differ, and of rows that may by now
 * - `judged`: set of these tables
 * - `comparison`: hash; `id`: which comparison it is, and a fold that does not know of it makes another one due; `making` and `hidden`: which live cache it began with, and what
 *   that one hid; `pages`: how often rows were compared since; `compared`: it has come to its end; `unsettled`: another one is due, also since a whole table has changed
 *
 * The record's `refilled` is of a backfill that brought back what the log no longer held.
 */

/** Lua: which tables a cache hides, in part or as a whole. The texts of two that hide the same are equal. */
const hiddenLua = `
local function hiddenBy(prefix)
  local tables, truncated = {}, redis.call('HGETALL', prefix .. ':truncated')
  for n = 1, #truncated, 2 do tables[#tables + 1] = truncated[n] .. ':' .. truncated[n + 1] .. ':' end
  for _, name in ipairs(redis.call('SMEMBERS', prefix .. ':uncached')) do tables[#tables + 1] = name .. '::' end
  table.sort(tables)
  return redis.sha1hex(table.concat(tables))
end`;

/**
 * Begins a comparison, in one call: another's is there as a whole, or not at all. KEYS: the record, the live offset; ARGV: what stands beside, both prefixes, which comparison.
 * Answers whether another one was due, since a whole table had changed or another fold had been at work.
 */
export const beginScript = new RedisScript(`#!lua
${standsLua}
${hiddenLua}
if not stands(KEYS[1], ARGV[1]) then return 'overtaken' end
local a, b = ARGV[2], ARGV[3]
for _, name in ipairs(redis.call('SMEMBERS', b .. ':judged')) do redis.call('UNLINK', b .. ':differs:' .. name, b .. ':touched:' .. name) end
local due = redis.call('HEXISTS', b .. ':comparison', 'unsettled')
redis.call('UNLINK', b .. ':judged', b .. ':comparison')
redis.call('HSET', b .. ':comparison', 'id', ARGV[4], 'making', redis.call('HGET', KEYS[2], 'making') or '', 'hidden', hiddenBy(a))
return due`);

/**
 * KEYS: live offset, the one beside; ARGV: prefixes of the live cache and of the one beside, '1' to pass over rows that are beside, too, then `<table>:<key>` of rows. A row that
 * one of the two cannot have seen yet is `touched`; one that differs at the same offset is in `differs`. Answers how many are touched since they differ, and the numbers of those
 * that are new in `differs`.
 */
export const compareScript = new RedisScript(`#!lua
local a, b = ARGV[1], ARGV[2]
local live, beside = redis.call('HMGET', KEYS[1], 'seq', 'epoch'), redis.call('HMGET', KEYS[2], 'seq', 'epoch')
local same = live[2] == beside[2]
local ends = {tonumber(live[1] or 0), tonumber(beside[1] or 0)}
local known = {[a] = {}, [b] = {}}
local function hides(prefix, name)
  local found = known[prefix][name]
  if not found then
    found = {truncated = redis.call('HGET', prefix .. ':truncated', name), whole = redis.call('SISMEMBER', prefix .. ':uncached', name) == 1}
    known[prefix][name] = found
  end
  return found
end
local function look(prefix, name, key)
  local row = redis.call('HMGET', prefix .. ':row:' .. name .. ':' .. key, 'seq', 'event')
  local by, seq = hides(prefix, name), tonumber(row[1] or 0)
  local seen = row[2] and seq > tonumber(by.truncated or 0) and not by.whole
  return {seq = seq, event = row[2], seen = seen, by = by, listed = redis.call('SISMEMBER', prefix .. ':keys:' .. name, key) == 1}
end
local answer = {0}
local function judge(n, name, key)
  local one, two = look(a, name, key), look(b, name, key)
  local hidden = not one.seen and not two.seen
  if hidden then
    -- The one may be seen by what the other knows of its table, and that changes places, too.
    local sameRow = one.event == two.event and one.seq == two.seq
    if sameRow or (one.by.truncated == two.by.truncated and one.by.whole == two.by.whole) then return end
  elseif one.seen and two.seen and one.seq == two.seq and one.event == two.event and one.listed == two.listed then
    return
  end
  redis.call('SADD', b .. ':judged', name)
  if hidden then
    redis.call('SADD', b .. ':touched:' .. name, key)
  elseif same and (one.seq > ends[2] or two.seq > ends[1]) then
    redis.call('SADD', b .. ':touched:' .. name, key)
    answer[1] = answer[1] + 1
  elseif redis.call('SADD', b .. ':differs:' .. name, key) == 1 then
    answer[#answer + 1] = n - 3
  end
end
for n = 4, #ARGV do
  if ARGV[3] ~= '1' or redis.call('EXISTS', b .. ':row:' .. ARGV[n]) == 0 then
    local name, key = string.match(ARGV[n], '^([^:]*):(.*)$')
    judge(n, name or ARGV[n], key or '')
  end
end
redis.call('HINCRBY', b .. ':comparison', 'pages', 1)
return answer`);

/**
 * Ends a comparison, if all that it has found is there: Redis may lose the last of what it was told in a crash, also of before this. KEYS: the record; ARGV: what stands beside, its
 * prefix, which comparison, and how often rows were compared. Answers how many rows would change places.
 */
export const endScript = new RedisScript(`#!lua
${standsLua}
if not stands(KEYS[1], ARGV[1]) then return 'overtaken' end
local b = ARGV[2]
local comparison = redis.call('HMGET', b .. ':comparison', 'id', 'pages')
-- Without the note the flip asks for another one.
if comparison[1] ~= ARGV[3] or (comparison[2] or '0') ~= ARGV[4] then return 0 end
redis.call('HSET', b .. ':comparison', 'compared', 1)
local rows = 0
for _, name in ipairs(redis.call('SMEMBERS', b .. ':judged')) do
  rows = rows + redis.call('SCARD', b .. ':differs:' .. name) + redis.call('SCARD', b .. ':touched:' .. name)
end
return rows`);

/**
 * Lua: does the comparison hold for the flip? Not when the live cache has been emptied or filled anew meanwhile, nor when it hides something that it did not hide and that is not
 * hidden beside either: its role has left a table out that this fold holds.
 */
const comparisonHolds = `
local comparison = redis.call('HMGET', b .. ':comparison', 'id', 'compared', 'unsettled', 'making', 'hidden')
local hidden = {hiddenBy(a), hiddenBy(b)}
if comparison[1] ~= ARGV[5] or not comparison[2] or comparison[3] then return 'compare' end
if comparison[4] ~= (redis.call('HGET', KEYS[1], 'making') or '') or (hidden[1] ~= comparison[5] and hidden[1] ~= hidden[2]) then
  redis.call('HSET', b .. ':comparison', 'unsettled', 1)
  return 'compare'
end`;

/** Lua: exchanges all rows that were found to differ, or may by now. */
const exchangeRows = `
local function exchange(name, key)
  swap(a .. ':row:' .. name .. ':' .. key, b .. ':row:' .. name .. ':' .. key, by)
  local one, two = a .. ':keys:' .. name, b .. ':keys:' .. name
  local isOne, isTwo = redis.call('SISMEMBER', one, key), redis.call('SISMEMBER', two, key)
  if isOne ~= isTwo then
    if isTwo == 1 then one, two = two, one end
    redis.call('SREM', one, key)
    redis.call('SADD', two, key)
  end
end
for _, name in ipairs(redis.call('SMEMBERS', b .. ':judged')) do
  local differs, touched = b .. ':differs:' .. name, b .. ':touched:' .. name
  -- Twice would be not at all, and a scan may give a key twice.
  redis.call('SUNIONSTORE', differs, differs, touched)
  redis.call('UNLINK', touched)
  repeat
    local some = redis.call('SPOP', differs, 1000)
    for _, key in ipairs(some) do exchange(name, key) end
  until #some == 0
end
redis.call('UNLINK', b .. ':judged', b .. ':comparison')`;

/** Lua: exchanges what each of them hides. */
const exchangeHidden = `
if hidden[1] ~= hidden[2] then
  for _, name in ipairs({'truncated', 'uncached'}) do swap(a .. ':' .. name, b .. ':' .. name, by) end
  -- What is still to be removed goes along with what hides it.
  local names = {}
  for _, prefix in ipairs({a, b}) do
    for _, name in ipairs(redis.call('LRANGE', prefix .. ':dropped', 0, -1)) do names[name] = true end
  end
  for name in pairs(names) do swap(a .. ':dropped:' .. name, b .. ':dropped:' .. name, by) end
  swap(a .. ':dropped', b .. ':dropped', by)
end`;

/** Lua: what was folded is as much as all of the epoch, if what the log no longer held had been brought back before. */
const wholeEpoch = `
local refilled = redis.call('HGET', KEYS[3], 'refilled')
local from = redis.call('HGET', KEYS[2], 'from')
if refilled and refilled ~= '' and from then
  refilled = cjson.decode(refilled)
  if refilled.epoch == beside[2] and tonumber(from) <= refilled.by then redis.call('HSET', KEYS[2], 'from', refilled.from) end
end
redis.call('HDEL', KEYS[3], 'refilled')`;

/** KEYS and ARGV: besides those of the guard both prefixes, which comparison, and which making the live cache is from then on. */
export const flipScript = new RedisScript(`#!lua
${flipGuard}
${hiddenLua}
${swapLua}
local a, b = ARGV[3], ARGV[4]
local by = b .. ':swap'
${comparisonHolds}
${exchangeRows}
${exchangeHidden}
${wholeEpoch}
swap(KEYS[1], KEYS[2], by)
redis.call('HSET', KEYS[1], 'making', ARGV[6])
${flipped}`);
