import { RedisScript } from '../../pipeline/clients/redis.ts';
import { flipGuard, flipped } from '../../pipeline/runner/rebuild/redis-record.ts';
import { standsLua, swapLua } from '../../pipeline/runner/redis-lua.ts';

/*
 * The names of the cache's keys are a promise to readers of Redis, so a flip cannot point them elsewhere: rows have to change places. Nearly all rows are the same
 * in both, so only those change places that the comparison found to differ, or that have changed since it began: all of them, and the offsets, in one Lua call.
 *
 * Beside the live ones, within `{hw}:rebuild:cache`, stand the same keys as there, and while it is compared:
 * - `differs:<table>`, `touched:<table>`: sets of keys of rows that differ, and of rows that may by now. What is found equal leaves both: neither has a change of it then that
 *   the other lacks, and later ones are noted by the fold beside
 * - `judged`: set of these tables
 * - `comparison`: hash; `id`: which comparison it is, and a fold that does not know of it makes another one due; `making` and `hidden`: which live cache it began with, and what
 *   that one hid; `pages`: how often rows were compared since; `page` and `answer`: the last of these calls, and what it was answered; `compared`: it has come to its end; `unsettled`:
 *   another one is due, `table`: since a whole table has changed, `fold`: since another process has folded
 *
 * The record's `refilled` is of a backfill that brought back what the log no longer held.
 */

/** Lua: up to which sequence a cache hides rows of a table, and whether all of them. */
const hidesLua = `
local function hides(prefix, name)
  return tonumber(redis.call('HGET', prefix .. ':truncated', name) or 0), redis.call('SISMEMBER', prefix .. ':uncached', name) == 1
end`;

/** Lua: which tables a cache hides, in part or as a whole. The texts of two that hide the same are equal. */
const hiddenLua = `
local function hiddenBy(prefix)
  local tables, truncated = {}, redis.call('HGETALL', prefix .. ':truncated')
  for n = 1, #truncated, 2 do tables[#tables + 1] = truncated[n] .. ':' .. truncated[n + 1] .. ':' end
  for _, name in ipairs(redis.call('SMEMBERS', prefix .. ':uncached')) do tables[#tables + 1] = name .. '::' end
  table.sort(tables)
  return redis.sha1hex(table.concat(tables))
end`;

/** Why another comparison was due: a whole table has changed, or the live cache is another one; another process has folded. */
export const dueTo = { nothing: 0, fold: 1, table: 2 } as const;

/**
 * Begins a comparison, in one call: another's is there as a whole, or not at all. KEYS: the record, the live offset; ARGV: what stands beside, both prefixes, which comparison.
 * Answers whether another one was due, and why: see `dueTo`.
 */
export const beginScript = new RedisScript(`#!lua
${standsLua}
${hiddenLua}
if not stands(KEYS[1], ARGV[1]) then return 'overtaken' end
local a, b = ARGV[2], ARGV[3]
for _, name in ipairs(redis.call('SMEMBERS', b .. ':judged')) do redis.call('UNLINK', b .. ':differs:' .. name, b .. ':touched:' .. name) end
local due = redis.call('HGET', b .. ':comparison', 'unsettled')
redis.call('UNLINK', b .. ':judged', b .. ':comparison')
redis.call('HSET', b .. ':comparison', 'id', ARGV[4], 'making', redis.call('HGET', KEYS[2], 'making') or '', 'hidden', hiddenBy(a))
if due == 'table' then return ${dueTo.table} end
return due and ${dueTo.fold} or ${dueTo.nothing}`);

/**
 * KEYS: live offset, the one beside, the record; ARGV: what stands beside, prefixes of the live cache and of the one beside, a name of this call's own, '1' to pass over rows that are
 * beside, too, then for each table its name, the number of rows and their keys. A row that one of the two cannot have seen yet is `touched`; one that differs at the same offset is in
 * `differs`. Answers how many rows of this call are done, since it looks at little more than a megabyte; how many are touched since they differ; and for those that are new in
 * `differs` how many rows of this call come before them. Given twice, since the first answer was lost, it answers the same.
 */
export const compareScript = new RedisScript(`#!lua
${standsLua}
if not stands(KEYS[3], ARGV[1]) then return 'overtaken' end
local call = redis.call
local a, b, others = ARGV[2], ARGV[3], ARGV[5] == '1'
local done = redis.call('HMGET', b .. ':comparison', 'page', 'answer')
if done[1] == ARGV[4] then return cjson.decode(done[2]) end
local live, beside = redis.call('HMGET', KEYS[1], 'seq', 'epoch'), redis.call('HMGET', KEYS[2], 'seq', 'epoch')
local same = live[2] == beside[2]
local ends = {tonumber(live[1] or 0), tonumber(beside[1] or 0)}
local answer, before, bytes, mostBytes = {0, 0}, 0, 0, 1048576
${hidesLua}
local function hidden(prefix, name)
  local truncated, whole = hides(prefix, name)
  return {truncated = truncated, whole = whole}
end
local function isEqual(one, two)
  if one.seen and two.seen then return one.event == two.event and one.seq == two.seq and one.listed == two.listed end
  if one.seen or two.seen then return false end
  -- Neither is seen. But one may be by what the other knows of its table, which changes places, too; or as soon as the live one comes to where it was there and not yet gone.
  return (one.event == two.event and one.seq == two.seq) or (one.hidesSame and not one.isApart)
end
local function judgeTable(name, judged, numbers)
  local hides = {hidden(a, name), hidden(b, name)}
  local hidesSame = hides[1].truncated == hides[2].truncated and hides[1].whole == hides[2].whole
  local truncated = math.max(hides[1].truncated, hides[2].truncated)
  local whole = hides[1].whole or hides[2].whole
  local rows = {a .. ':row:' .. name .. ':', b .. ':row:' .. name .. ':'}
  local listed = {call('SMISMEMBER', a .. ':keys:' .. name, unpack(judged)), call('SMISMEMBER', b .. ':keys:' .. name, unpack(judged))}
  local touched, differs = b .. ':touched:' .. name, b .. ':differs:' .. name
  local noted, settled = call('EXISTS', touched, differs) > 0, {}
  local function look(which, n, row)
    local seq, by = tonumber(row[1] or 0), hides[which]
    local seen = row[2] and seq > by.truncated and not by.whole
    return {seq = seq, event = row[2], seen = seen, listed = listed[which][n], newest = math.max(seq, by.truncated), hidesSame = hidesSame}
  end
  local function judge(n, key, here, there)
    local one, two = look(1, n, here), look(2, n, there)
    one.isApart = same and (one.newest > ends[2] or two.newest > ends[1])
    if isEqual(one, two) then return true end
    call('SADD', b .. ':judged', name)
    noted = true
    if one.isApart or (not one.seen and not two.seen) then
      call('SADD', touched, key)
      if one.seen or two.seen then answer[2] = answer[2] + 1 end
    else
      if call('SADD', differs, key) == 1 then answer[#answer + 1] = numbers[n] end
      call('SREM', touched, key)
    end
    return false
  end
  for n, key in ipairs(judged) do
    if bytes > mostBytes then break end
    local here, there = call('HMGET', rows[1] .. key, 'seq', 'event'), call('HMGET', rows[2] .. key, 'seq', 'event')
    -- Nearly all are equal.
    local equal = here[2] and not whole and here[2] == there[2] and here[1] == there[1] and listed[1][n] == listed[2][n] and tonumber(here[1]) > truncated
    if equal or judge(n, key, here, there) then settled[#settled + 1] = key end
    answer[1] = numbers[n] + 1
    bytes = bytes + #(here[2] or '') + #(there[2] or '')
  end
  if noted and #settled > 0 then
    call('SREM', touched, unpack(settled))
    call('SREM', differs, unpack(settled))
  end
end
local n = 6
while ARGV[n] and bytes <= mostBytes do
  local name, last = ARGV[n], n + 1 + tonumber(ARGV[n + 1])
  local row, judged, numbers = b .. ':row:' .. name .. ':', {}, {}
  for at = n + 2, last do
    if not others or redis.call('EXISTS', row .. ARGV[at]) == 0 then
      judged[#judged + 1] = ARGV[at]
      numbers[#numbers + 1] = before
    end
    before = before + 1
  end
  if #judged > 0 then judgeTable(name, judged, numbers) end
  n = last + 1
end
if bytes <= mostBytes then answer[1] = before end
redis.call('HINCRBY', b .. ':comparison', 'pages', 1)
redis.call('HSET', b .. ':comparison', 'page', ARGV[4], 'answer', cjson.encode(answer))
return answer`);

/** Lua: how many rows would change places. */
const changingLua = `
local function changing(prefix)
  local rows = 0
  for _, name in ipairs(redis.call('SMEMBERS', prefix .. ':judged')) do
    rows = rows + redis.call('SCARD', prefix .. ':differs:' .. name) + redis.call('SCARD', prefix .. ':touched:' .. name)
  end
  return rows
end`;

/**
 * Ends a comparison, if all that it has found is there: Redis may lose the last of what it was told in a crash, also of before this. KEYS: the record; ARGV: what stands beside, its
 * prefix, which comparison, and how often rows were compared. Answers how many rows would change places.
 */
export const endScript = new RedisScript(`#!lua
${standsLua}
${changingLua}
if not stands(KEYS[1], ARGV[1]) then return 'overtaken' end
local b = ARGV[2]
local comparison = redis.call('HMGET', b .. ':comparison', 'id', 'pages')
-- Without the note the flip asks for another one.
if comparison[1] ~= ARGV[3] or (comparison[2] or '0') ~= ARGV[4] then return 0 end
redis.call('HSET', b .. ':comparison', 'compared', 1)
return changing(b)`);

/** How many rows would change places in a flip. KEYS: the record; ARGV: what stands beside, its prefix. */
export const changingScript = new RedisScript(`#!lua flags=no-writes
${standsLua}
${changingLua}
if not stands(KEYS[1], ARGV[1]) then return 'overtaken' end
return changing(ARGV[2])`);

/**
 * Lua: does the comparison hold for the flip? Not when the live cache has been emptied or filled anew meanwhile, nor when it hides something that it did not hide and that is not
 * hidden beside either: its role has left a table out that this fold holds.
 */
const comparisonHolds = `
local comparison = redis.call('HMGET', b .. ':comparison', 'id', 'compared', 'unsettled', 'making', 'hidden')
local hidden = {hiddenBy(a), hiddenBy(b)}
if comparison[1] ~= ARGV[5] or not comparison[2] or comparison[3] then return 'compare' end
if comparison[4] ~= (redis.call('HGET', KEYS[1], 'making') or '') or (hidden[1] ~= comparison[5] and hidden[1] ~= hidden[2]) then
  redis.call('HSET', b .. ':comparison', 'unsettled', 'table')
  return 'compare'
end`;

/** Lua: exchanges all rows that were found to differ, or may by now. */
const exchangeRows = `
-- What is hidden where it comes to is on no list there of what is still to be removed, or that list may have passed it by: it is removed here.
local function sweep(row, truncated, whole)
  if not whole and truncated == 0 then return end
  local seq = redis.call('HGET', row, 'seq')
  if seq and (whole or tonumber(seq) <= truncated) and redis.call('HEXISTS', row, 'event') == 1 then redis.call('UNLINK', row) end
end
local function exchange(name, key, sweeping)
  local here, there = a .. ':row:' .. name .. ':' .. key, b .. ':row:' .. name .. ':' .. key
  swap(here, there, by)
  if sweeping then
    -- What each of them hides changes places, too.
    sweep(here, sweeping[3], sweeping[4])
    sweep(there, sweeping[1], sweeping[2])
  end
  local one, two = a .. ':keys:' .. name, b .. ':keys:' .. name
  local isOne, isTwo = redis.call('SISMEMBER', one, key), redis.call('SISMEMBER', two, key)
  if isOne ~= isTwo then
    if isTwo == 1 then one, two = two, one end
    redis.call('SREM', one, key)
    redis.call('SADD', two, key)
  end
end
local function hiding(name)
  local truncated, whole = hides(a, name)
  return {truncated, whole, hides(b, name)}
end
local function hidesSame(both)
  return both[1] == both[3] and both[2] == both[4]
end
local littered = redis.call('EXISTS', a .. ':dropped', b .. ':dropped') > 0
for _, name in ipairs(redis.call('SMEMBERS', b .. ':judged')) do
  local both = hiding(name)
  local sweeping = (littered or not hidesSame(both)) and both
  local differs, touched = b .. ':differs:' .. name, b .. ':touched:' .. name
  -- Twice would be not at all, and a scan may give a key twice.
  redis.call('SUNIONSTORE', differs, differs, touched)
  redis.call('UNLINK', touched)
  repeat
    local some = redis.call('SPOP', differs, 1000)
    for _, key in ipairs(some) do exchange(name, key, sweeping) end
  until #some == 0
end
redis.call('UNLINK', b .. ':judged', b .. ':comparison')`;

/**
 * Lua: exchanges what each of them hides. What is still to be removed goes along with what hides it, for tables of which the two do not hide the same: the hashes of other tables have
 * stayed where they are.
 */
const exchangeHidden = `
if hidden[1] ~= hidden[2] then
  local lists, moving = {[a] = {}, [b] = {}}, {}
  for _, from in ipairs({a, b}) do
    for _, dropped in ipairs(redis.call('LRANGE', from .. ':dropped', 0, -1)) do
      local both = hiding(string.match(dropped, '^%d+:(.*)$'))
      local to = from
      if not hidesSame(both) then
        to = from == a and b or a
        moving[dropped] = true
      end
      table.insert(lists[to], dropped)
    end
  end
  for dropped in pairs(moving) do swap(a .. ':dropped:' .. dropped, b .. ':dropped:' .. dropped, by) end
  for prefix, list in pairs(lists) do
    redis.call('DEL', prefix .. ':dropped')
    for _, dropped in ipairs(list) do redis.call('RPUSH', prefix .. ':dropped', dropped) end
  end
  for _, name in ipairs({'truncated', 'uncached'}) do swap(a .. ':' .. name, b .. ':' .. name, by) end
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

/**
 * KEYS and ARGV: besides those of the guard both prefixes, which comparison, which making the live cache is from then on, and how many rows may change places at most. `large`: more
 * would, and it has not been flipped.
 */
export const flipScript = new RedisScript(`#!lua
${flipGuard}
${hidesLua}
${hiddenLua}
${changingLua}
${swapLua}
local a, b = ARGV[3], ARGV[4]
local by = b .. ':swap'
${comparisonHolds}
if ARGV[7] ~= '' and changing(b) > tonumber(ARGV[7]) then return 'large' end
${exchangeRows}
${exchangeHidden}
${wholeEpoch}
swap(KEYS[1], KEYS[2], by)
redis.call('HSET', KEYS[1], 'making', ARGV[6])
${flipped}`);
