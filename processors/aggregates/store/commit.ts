import type { RedisEffects } from '../../../pipeline/runner/redis-state-store.ts';
import type { AggregateEffects, SealedEffects } from '../engine/effects.ts';
import type { Definition } from '../model.ts';
import { encodeContribution, encodePoint, encodeRecord } from './record.ts';

/** So many panes are remembered as changed: who has been away for longer reads anew. */
const mostChanged = 100_000;
/** So many groups are looked through for old windows at each commit, and so many windows and rows are removed with them. */
const sweptGroups = 16;
const swept = 2_000;
/** So many windows are removed at each commit of groups that a truncate has emptied. */
const cleaned = 1_000;

/**
 * The argument is one JSON text, see `encode`: taking it apart costs less than thousands of arguments. Numbers that Redis gets are text in it, which Lua need
 * not print.
 */
const lua = `
local effects = cjson.decode(ARGV[first])
local levels, oldest, percentiles, rows = effects.levels, effects.oldest, effects.percentiles, effects.rows
local groups, dropped = prefix .. ':groups', prefix .. ':dropped'

local function windowsKey(group) return prefix .. ':w:' .. group end
local function fieldOf(level, index) return levels[level] .. ':' .. index end
local function indexesKey(level, group) return prefix .. ':i:' .. levels[level] .. ':' .. group end
local function valuesKey(level, index, group) return prefix .. ':v:' .. levels[level] .. ':' .. index .. ':' .. group end
local function bucketsKey(level, index, group) return prefix .. ':b:' .. levels[level] .. ':' .. index .. ':' .. group end
local function pointsKey(index, group) return prefix .. ':p:' .. index .. ':' .. group end

-- With as many arguments in a call as fit on the stack.
local function each(command, key, items)
  for n = 1, #items, 1000 do redis.call(command, key, unpack(items, n, math.min(n + 999, #items))) end
end
-- What belongs to windows besides their records.
local function unlink(level, group, found)
  local keys = {}
  for _, index in ipairs(found) do
    if percentiles then
      keys[#keys + 1] = valuesKey(level, index, group)
      keys[#keys + 1] = bucketsKey(level, index, group)
    end
    if rows and level == 1 then keys[#keys + 1] = pointsKey(index, group) end
  end
  for n = 1, #keys, 1000 do redis.call('UNLINK', unpack(keys, n, math.min(n + 999, #keys))) end
end
local function remove(level, group, found)
  local fields = {}
  for n, index in ipairs(found) do fields[n] = fieldOf(level, index) end
  unlink(level, group, found)
  each('HDEL', windowsKey(group), fields)
  each('ZREM', indexesKey(level, group), found)
end
local function leaveIfEmpty(group)
  for level = 1, #levels do
    if redis.call('EXISTS', indexesKey(level, group)) == 1 then return end
  end
  redis.call('ZREM', groups, group)
end
-- A truncate has emptied the group: its windows go at once, and the list of them is set aside, so that what else belongs to them can go bit by bit.
local tossed = prefix .. ':tossed'
local strewn = redis.call('EXISTS', tossed) == 1
local function toss(group)
  redis.call('UNLINK', windowsKey(group))
  for level = 1, #levels do
    local list, n = indexesKey(level, group), 0
    if not percentiles and not (rows and level == 1) then
      redis.call('UNLINK', list)
    elseif redis.call('EXISTS', list) == 1 then
      local function name() return n .. ':' .. level .. ':' .. group end
      while redis.call('EXISTS', prefix .. ':t:' .. name()) == 1 do n = n + 1 end
      redis.call('RENAME', list, prefix .. ':t:' .. name())
      redis.call('RPUSH', tossed, name())
      strewn = true
    end
  end
end

local function forget(seq)
  local key = prefix .. ':forgotten'
  if tonumber(redis.call('GET', key) or '-1') < tonumber(seq) then redis.call('SET', key, seq) end
end
if effects.cleared then
  local count = redis.call('ZCARD', groups)
  if count > 0 and redis.call('EXISTS', dropped) == 0 then
    redis.call('RENAME', groups, dropped)
  elseif count > 1000 then
    local n = 1
    while redis.call('EXISTS', dropped .. ':' .. n) == 1 do n = n + 1 end
    redis.call('RENAME', groups, dropped .. ':' .. n)
  elseif count > 0 then
    for _, group in ipairs(redis.call('ZRANGE', groups, 0, -1)) do redis.call('ZADD', dropped, 0, group) end
  end
  redis.call('UNLINK', groups, prefix .. ':rows', prefix .. ':changed')
  forget(effects.cleared)
end
local littered = redis.call('EXISTS', dropped) == 1
redis.call('MSET', prefix .. ':meta', effects.meta, prefix .. ':clock', effects.clock)

local fresh, left = {}, {}
local function grow(key, changes)
  for n = 1, #changes, 2 do
    if redis.call('HINCRBY', key, changes[n], changes[n + 1]) <= 0 then redis.call('HDEL', key, changes[n]) end
  end
end
local function write(group, windows)
  local records = {}
  if littered and not redis.call('ZSCORE', groups, group) then toss(group) end
  for n = 1, #windows, 6 do
    local level, index, record, flags, values, buckets = unpack(windows, n, n + 5)
    if record == '' then
      redis.call('HDEL', windowsKey(group), fieldOf(level, index))
      redis.call('ZREM', indexesKey(level, group), index)
      if percentiles then redis.call('UNLINK', valuesKey(level, index, group), bucketsKey(level, index, group)) end
      left[group] = true
    else
      records[#records + 1] = fieldOf(level, index)
      records[#records + 1] = record
      if flags % 2 == 1 then
        if strewn then unlink(level, group, {index}) end
        redis.call('ZADD', indexesKey(level, group), index, index)
        fresh[group] = true
      end
      if flags > 1 then redis.call('UNLINK', valuesKey(level, index, group), bucketsKey(level, index, group)) end
      if values ~= 0 then grow(valuesKey(level, index, group), values) end
      if buckets ~= 0 then grow(bucketsKey(level, index, group), buckets) end
    end
  end
  each('HSET', windowsKey(group), records)
end
local windows = effects.windows
for n = 1, #windows, 2 do write(windows[n], windows[n + 1]) end
for group in pairs(left) do if not fresh[group] then leaveIfEmpty(group) end end
local joining = {}
for group in pairs(fresh) do
  joining[#joining + 1] = '0'
  joining[#joining + 1] = group
end
each('ZADD', groups, joining)

local function set(key, items)
  local there = {}
  for n = 1, #items, 2 do
    if items[n + 1] == '' then
      redis.call('HDEL', key, items[n])
    else
      there[#there + 1] = items[n]
      there[#there + 1] = items[n + 1]
    end
  end
  each('HSET', key, there)
end
if rows then
  set(prefix .. ':rows', rows)
  local points = effects.points
  for n = 1, #points, 3 do set(pointsKey(points[n + 1], points[n]), points[n + 2]) end
end

local changed = prefix .. ':changed'
each('ZADD', changed, effects.changed)
local extra = redis.call('ZCARD', changed) - ${mostChanged}
if extra > 0 then
  local last = redis.call('ZRANGE', changed, extra - 1, extra - 1, 'WITHSCORES')[2]
  redis.call('ZREMRANGEBYSCORE', changed, '-inf', last)
  forget(last)
end

local budget = ${swept}
-- The rows of a pane that goes go along. False when there are too many for now.
local function takeRows(index, group)
  local points, ids, found = pointsKey(index, group), {}, {}
  local some = redis.call('HRANDFIELD', points, budget, 'WITHVALUES')
  for n = 1, #some, 2 do
    ids[#ids + 1] = some[n]
    found[#found + 1] = cjson.decode(some[n + 1])[3]
  end
  each('HDEL', prefix .. ':rows', found)
  budget = budget - #ids
  if budget > 0 then return true end
  each('HDEL', points, ids)
  return redis.call('EXISTS', points) == 0
end
local function sweep(group)
  local old = false
  for level = 1, #levels do
    if budget <= 0 then break end
    local found = redis.call('ZRANGEBYSCORE', indexesKey(level, group), '-inf', '(' .. oldest[level], 'LIMIT', 0, budget)
    local whole = found
    if rows and level == 1 then
      whole = {}
      for _, index in ipairs(found) do
        if budget <= 0 or not takeRows(index, group) then break end
        budget = budget - 1
        whole[#whole + 1] = index
      end
    else
      budget = budget - #found
    end
    if #whole > 0 then
      remove(level, group, whole)
      old = true
    end
  end
  if old then leaveIfEmpty(group) end
end
local after = redis.call('GET', prefix .. ':swept')
local some = redis.call('ZRANGEBYLEX', groups, after and '(' .. after or '-', '+', 'LIMIT', 0, ${sweptGroups})
local last = after
for n, group in ipairs(some) do
  sweep(group)
  -- The next commit goes on with it.
  if budget <= 0 then break end
  last = group
  if n == #some and n < ${sweptGroups} then last = nil end
end
if #some == 0 then last = nil end
if last then redis.call('SET', prefix .. ':swept', last) elseif after then redis.call('DEL', prefix .. ':swept') end

budget = (littered or strewn) and ${cleaned} or 0
while budget > 0 do
  local name = redis.call('LINDEX', tossed, 0)
  if name then
    local number, group = string.match(name, '^%d+:(%d+):(.*)$')
    local level, list, gone = tonumber(number), prefix .. ':t:' .. name, {}
    local found = redis.call('ZRANGE', list, 0, budget - 1)
    -- What is there again is another one.
    for _, index in ipairs(found) do
      if not redis.call('ZSCORE', indexesKey(level, group), index) then gone[#gone + 1] = index end
    end
    unlink(level, group, gone)
    redis.call('ZREMRANGEBYRANK', list, 0, #found - 1)
    if redis.call('EXISTS', list) == 0 then redis.call('LPOP', tossed) end
    budget = budget - 1 - #found
  else
    local group = redis.call('ZPOPMIN', dropped)[1]
    if not group then break end
    if not redis.call('ZSCORE', groups, group) then toss(group) end
    if redis.call('EXISTS', dropped) == 0 then
      local n = 0
      while redis.call('EXISTS', dropped .. ':' .. n + 1) == 1 do n = n + 1 end
      if n > 0 then redis.call('RENAME', dropped .. ':' .. n, dropped) end
    end
    budget = budget - 1 - #levels
  end
end`;

/** The effects of a definition as one Lua call, which also looks for windows that are older than they are kept. */
export function redisAggregates(definition: Definition): RedisEffects<AggregateEffects> {
  return { lua, encode: (effects) => [encode(definition, effects.seal())] };
}

function encode({ levels, percentiles, of }: Definition, sealed: SealedEffects): string {
  const { cleared, meta, rows, points, changed } = sealed;
  return JSON.stringify({
    levels: levels.map(({ text }) => text),
    oldest: meta.oldest,
    percentiles,
    cleared,
    meta: JSON.stringify(meta),
    clock: String(meta.logTime),
    windows: windowsOf(sealed),
    rows: of === 'rows' && flat(rows, encodeContribution),
    points: points.flatMap(({ group, index, points: ofPane }) => [group, String(index), flat(ofPane, encodePoint)]),
    changed: changed.flatMap(({ group, index, seq }) => [String(seq), `${index}:${group}`]),
  });
}

/**
 * Group and list in turn. Six items of the list are a window: level from 1, index, record or '', 1 when it is fresh and 2 when its values begin anew, growth of
 * values and of buckets or 0.
 */
function windowsOf({ windows }: SealedEffects): unknown[] {
  const groups = new Map<string, unknown[]>();
  for (const { level, group, index, record, fresh, anew, values, buckets } of windows) {
    let list = groups.get(group);
    if (!list) groups.set(group, (list = []));
    const flags = (fresh ? 1 : 0) + (anew ? 2 : 0);
    list.push(
      level + 1,
      String(index),
      record ? encodeRecord(record) : '',
      flags,
      values ? [...values].flat() : 0,
      buckets ? [...buckets].flat() : 0,
    );
  }
  return [...groups].flat();
}

/** Names and texts in turn; '' for what goes. */
function flat<T>(items: ReadonlyMap<string, T | undefined>, print: (item: T) => string): string[] {
  const list: string[] = [];
  for (const [name, item] of items) list.push(name, item === undefined ? '' : print(item));
  return list;
}
