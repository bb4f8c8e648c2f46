import type { RedisEffects } from '../../../pipeline/runner/redis-state-store.ts';
import type { AggregateEffects, SealedEffects } from '../engine/effects.ts';
import { keptFor } from '../engine/retention.ts';
import type { Definition, Micros } from '../model.ts';
import { encodeContribution, encodePoint, encodeRecord } from './record.ts';

/** So many panes are remembered as changed: who has been away for longer reads anew. */
const mostChanged = 100_000;
/** So many groups are looked through for old windows at each commit, and so many windows of a level are removed of each. */
const sweptGroups = 16;
const sweptWindows = 100;

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

-- What belongs to a window besides its record. A pane that goes takes its rows along, unless they are gone already.
local function unlink(level, index, group, rowsToo)
  if percentiles then redis.call('UNLINK', valuesKey(level, index, group), bucketsKey(level, index, group)) end
  if not rows or level ~= 1 then return end
  local points = pointsKey(index, group)
  if rowsToo then
    for _, point in ipairs(redis.call('HVALS', points)) do redis.call('HDEL', prefix .. ':rows', cjson.decode(point)[3]) end
  end
  redis.call('UNLINK', points)
end
local function remove(level, group, found, rowsToo)
  for _, index in ipairs(found) do
    unlink(level, index, group, rowsToo)
    redis.call('HDEL', windowsKey(group), fieldOf(level, index))
    redis.call('ZREM', indexesKey(level, group), index)
  end
end
local function leaveIfEmpty(group)
  for level = 1, #levels do
    if redis.call('EXISTS', indexesKey(level, group)) == 1 then return end
  end
  redis.call('ZREM', groups, group)
end
-- Removes windows of a group that a truncate has emptied: so many, or all. True when there are no more.
local function clean(group, most)
  for level = 1, #levels do
    local found = redis.call('ZRANGE', indexesKey(level, group), 0, most)
    remove(level, group, found, false)
    if redis.call('EXISTS', indexesKey(level, group)) == 1 then return false end
  end
  redis.call('ZREM', dropped, group)
  return true
end

if effects.cleared then
  if redis.call('EXISTS', groups) == 1 then redis.call('ZUNIONSTORE', dropped, 2, dropped, groups) end
  redis.call('UNLINK', groups, prefix .. ':rows', prefix .. ':changed')
  redis.call('SET', prefix .. ':forgotten', effects.cleared)
end
local littered = redis.call('EXISTS', dropped) == 1
redis.call('MSET', prefix .. ':meta', effects.meta, prefix .. ':clock', effects.clock)

local fresh, left = {}, {}
local function grow(key, changes)
  for n = 1, #changes, 2 do
    if redis.call('HINCRBY', key, changes[n], changes[n + 1]) <= 0 then redis.call('HDEL', key, changes[n]) end
  end
end
-- With as many arguments in a call as fit on the stack, in pairs.
local function each(command, key, items)
  for n = 1, #items, 1000 do redis.call(command, key, unpack(items, n, math.min(n + 999, #items))) end
end
local function write(group, windows)
  local records = {}
  if littered and redis.call('ZSCORE', dropped, group) then clean(group, -1) end
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
  redis.call('SET', prefix .. ':forgotten', last)
end

local after = redis.call('GET', prefix .. ':swept')
local some = redis.call('ZRANGEBYLEX', groups, after and '(' .. after or '-', '+', 'LIMIT', 0, ${sweptGroups})
for _, group in ipairs(some) do
  local old = false
  for level = 1, #levels do
    local found = redis.call('ZRANGEBYSCORE', indexesKey(level, group), '-inf', '(' .. oldest[level], 'LIMIT', 0, ${sweptWindows})
    if #found > 0 then
      remove(level, group, found, true)
      old = true
    end
  end
  if old then leaveIfEmpty(group) end
end
if #some == ${sweptGroups} then redis.call('SET', prefix .. ':swept', some[#some]) elseif after then redis.call('DEL', prefix .. ':swept') end
local emptied = littered and redis.call('ZRANGE', dropped, 0, 0)[1]
if emptied then clean(emptied, ${sweptWindows - 1}) end`;

/** The effects of a definition as one Lua call, which also looks for windows that are older than they are kept. */
export function redisAggregates(definition: Definition): RedisEffects<AggregateEffects> {
  const kept = keptFor(definition);
  return { lua, encode: (effects) => [encode(definition, kept, effects.seal())] };
}

function encode({ levels, percentiles, of }: Definition, kept: readonly Micros[], sealed: SealedEffects): string {
  const { cleared, meta, rows, points, changed } = sealed;
  return JSON.stringify({
    levels: levels.map(({ text }) => text),
    // A window goes when it began longer ago than it is kept.
    oldest: levels.map(({ micros }, level) => Math.floor((meta.logTime - kept[level]!) / micros) + 1),
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
