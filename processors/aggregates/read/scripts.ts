import { RedisScript } from '../../../pipeline/clients/redis.ts';

/*
 * What is read of an aggregate: one call of Redis each, so that an answer is the state at the sequence it comes with. Nothing is written.
 *
 * KEYS: registry, offset. ARGV: name and entry of the registry as it is expected, prefix, whether values are wanted, budget, levels; then
 * what each script says. An answer begins with 1, sequence, epoch and clock; with 0 when the registry has another entry by now.
 */

const prelude = `#!lua flags=no-writes
local arg = 0
local function text() arg = arg + 1 return ARGV[arg] end
local function number() return tonumber(text()) end
local function list(item)
  local found = {}
  for n = 1, number() do found[n] = item() end
  return found
end
local function int(n) return string.format('%.0f', n) end

local entry = redis.call('HGET', KEYS[1], text())
if entry ~= text() then return {0, entry} end
local prefix, withValues, budget = text(), text() == '1', number()
local clockText = redis.call('GET', prefix .. ':clock')
local clock = tonumber(clockText)
local meta = redis.call('GET', prefix .. ':meta')
local oldest = meta and cjson.decode(meta).oldest or {}
local levels = {}
for n = 1, number() do
  local level = {n = n, text = text(), micros = number(), keep = number()}
  levels[n] = level
  level.size = level.micros / levels[1].micros
  -- Windows that begin before are gone, whether or not they have been swept away: also those that were kept no longer before they were to be kept for longer.
  level.first = math.max(clock and math.floor((clock - level.keep) / level.micros) + 1 or -math.huge, oldest[n] or -math.huge)
end

local function answer(body)
  local offset = redis.call('HMGET', KEYS[2], 'seq', 'epoch')
  return {1, offset[1], offset[2], clockText, body}
end

local function indexes(level, group) return prefix .. ':i:' .. level.text .. ':' .. group end
local function inRange(level, group, from, to, limit)
  if from > to then return {} end
  return redis.call('ZRANGEBYSCORE', indexes(level, group), int(from), int(to), 'LIMIT', 0, limit)
end
local function newest(level, group)
  local index = tonumber(redis.call('ZRANGE', indexes(level, group), -1, -1)[1])
  return index and index >= level.first and index or nil
end

-- A window: its level's number, its index, its record, and its values or buckets when they are wanted.
local spent = 0
local function window(level, index, group)
  local record = redis.call('HGET', prefix .. ':w:' .. group, level.text .. ':' .. index)
  if not record then return nil end
  spent = spent + 1
  if not withValues then return {level.n, index, record} end
  local kind = string.sub(record, -1) == '1' and ':b:' or ':v:'
  local counts = redis.call('HGETALL', prefix .. kind .. level.text .. ':' .. index .. ':' .. group)
  spent = spent + #counts / 2
  return {level.n, index, record, counts}
end

-- Panes first to last, by windows as large as fit.
local function cover(group, first, last, into)
  local at = first
  while at <= last do
    local pane = tonumber(inRange(levels[1], group, at, last, 1)[1])
    if not pane then return end
    at = pane + 1
    for n = #levels, 1, -1 do
      local level = levels[n]
      local index = math.floor(pane / level.size)
      local begin = index * level.size
      if begin >= first and begin + level.size - 1 <= last and index >= level.first then
        local found = window(level, int(index), group)
        if found then
          into[#into + 1] = found
          at = begin + level.size
          break
        end
      end
    end
  end
end

-- The same; nothing where some of them are kept no longer.
local function coverWhole(group, first, last, into)
  if first >= levels[1].first then cover(group, first, last, into) end
end

-- The first of these groups that there is.
local function knownOf(candidates)
  for _, group in ipairs(candidates) do
    if redis.call('ZSCORE', prefix .. ':groups', group) then return group end
  end
  return false
end
`;

/** Further ARGV: spellings of the group, number of the level, first and last index, limit. Body: group, first index that is kept, windows, whether there are more, gaps. */
export const seriesScript = new RedisScript(`${prelude}
local group, level = knownOf(list(text)), levels[number()]
local from, to, limit = math.max(number(), level.first), number(), number()
local windows, more = {}, 0
if group then
  for n, index in ipairs(inRange(level, group, from, to, limit + 1)) do
    if n > limit or spent > budget then more = 1 break end
    windows[#windows + 1] = window(level, index, group)
  end
end
return answer({group, int(level.first), windows, more, redis.call('LRANGE', prefix .. ':gaps', 0, -1)})`);

/**
 * Further ARGV: spellings of the group, panes of a window, first and last pane that a window may end with, limit. Body: group, first pane that
 * is kept, pane that the first and the last window end with, pieces in order of time, whether there are more, gaps.
 */
export const slidingScript = new RedisScript(`${prelude}
local group, panes, level = knownOf(list(text)), number(), levels[1]
local at, last, limit = math.max(number(), level.first + panes - 1), number(), number()
local pieces, more, stop = {}, 0, at - 1
local gaps = redis.call('LRANGE', prefix .. ':gaps', 0, -1)
local function single(first, last, bounded)
  for _, index in ipairs(inRange(level, group, first, last, last - first + 1)) do
    if bounded and spent > budget then
      stop, more = tonumber(index) - 1, 1
      return
    end
    pieces[#pieces + 1] = window(level, index, group)
  end
end
local final = group and newest(level, group)
if not final then return answer({group, int(level.first), '0', '-1', pieces, more, gaps}) end
-- Windows end no later than the log's time, or than the newest pane.
local now = clock and math.floor(clock / level.micros) or final
last = math.min(last, math.max(now, final), final + panes - 1)
local first = tonumber(inRange(level, group, at - panes + 1, final, 1)[1])
if first then at = math.max(at, first) end
if not first or at > last then return answer({group, int(level.first), '0', '-1', pieces, more, gaps}) end
stop = math.min(last, at + limit - 1)
local least = stop - panes + 1
if least > at then single(at - panes + 1, at, false)
else
  single(at - panes + 1, least - 1, false)
  cover(group, least, at, pieces)
end
local planned = stop
single(at + 1, planned, true)
if stop < last and inRange(level, group, stop - panes + 2, last, 1)[1] then more = 1 end
return answer({group, int(level.first), int(at), int(stop), pieces, more, gaps})`);

/**
 * Further ARGV: numbers of levels, panes of sliding sizes, spellings of the group (none: all groups), the group after which to begin ('' for the
 * first), limit, conditions (position, text, and `number`, `text` or `null`: what it can be). Body: the group after which the next page begins (false: there is none),
 * then for each group: group, newest windows, newest pane, pieces of each sliding size.
 */
export const latestScript = new RedisScript(`${prelude}
local wanted = list(function() return levels[number()] end)
local sliding, candidates = list(number), list(text)
local after, limit = text(), number()
local conditions = list(function() return {number(), text(), text()} end)
local found = {false}

local function isWanted(group)
  if #conditions == 0 then return true end
  local by = cjson.decode(group)
  for _, condition in ipairs(conditions) do
    local value, wantedText, kind = by[condition[1]], condition[2], condition[3]
    local same = value == wantedText
    if kind == 'null' then same = value == cjson.null
    elseif type(value) == 'number' then same = kind == 'number' and value == tonumber(wantedText)
    elseif type(value) == 'boolean' then same = tostring(value) == wantedText end
    if not same then return false end
  end
  return true
end
local function add(group)
  local windows, slid = {}, {}
  for _, level in ipairs(wanted) do
    local index = newest(level, group)
    windows[#windows + 1] = index and window(level, int(index), group)
  end
  local pane = #sliding > 0 and newest(levels[1], group)
  if pane then
    for n, panes in ipairs(sliding) do
      slid[n] = {}
      coverWhole(group, pane - panes + 1, pane, slid[n])
    end
  end
  if #windows > 0 or pane then found[#found + 1] = {group, windows, pane and int(pane), slid} end
end

if #candidates > 0 then
  local group = knownOf(candidates)
  if group then add(group) end
  return answer(found)
end
local scanned = 0
while true do
  local page = redis.call('ZRANGEBYLEX', prefix .. ':groups', after == '' and '-' or '(' .. after, '+', 'LIMIT', 0, 500)
  if #page == 0 then break end
  for _, group in ipairs(page) do
    if #found > limit or spent > budget or scanned >= 20000 then
      found[1] = after
      return answer(found)
    end
    scanned = scanned + 1
    after = group
    if isWanted(group) then add(group) end
  end
end
return answer(found)`);

/** Further ARGV: sequence, limit. Body: up to where changes are forgotten, then pane, group and sequence of each change after it, oldest first. */
export const changesScript = new RedisScript(`${prelude}
local after, limit = text(), number()
local found = {redis.call('GET', prefix .. ':forgotten')}
local changes = redis.call('ZRANGEBYSCORE', prefix .. ':changed', '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
for n = 1, #changes, 2 do
  local colon = string.find(changes[n], ':', 1, true)
  found[#found + 1] = string.sub(changes[n], 1, colon - 1)
  found[#found + 1] = string.sub(changes[n], colon + 1)
  found[#found + 1] = changes[n + 1]
end
return answer(found)`);

/**
 * Further ARGV: panes of sliding sizes, then groups, each with its panes. Body: for each group the windows that these panes are in (without
 * record when it is empty), its newest pane, and the pieces of each sliding size; ends early when the budget is spent.
 */
export const statesScript = new RedisScript(`${prelude}
local sliding, found = list(number), {}
for n = 1, number() do
  local group, panes = text(), list(number)
  if spent > budget then break end
  local windows, seen, slid = {}, {}, {}
  local isKnown = redis.call('ZSCORE', prefix .. ':groups', group)
  for _, level in ipairs(levels) do
    for _, pane in ipairs(panes) do
      local index = math.floor(pane / level.size)
      local name = level.text .. ':' .. int(index)
      if not seen[name] and index >= level.first then
        seen[name] = true
        windows[#windows + 1] = isKnown and window(level, int(index), group) or {level.n, int(index), false}
      end
    end
  end
  local pane = isKnown and #sliding > 0 and newest(levels[1], group)
  if pane then
    for k, size in ipairs(sliding) do
      slid[k] = {}
      coverWhole(group, pane - size + 1, pane, slid[k])
    end
  end
  found[n] = {windows, pane and int(pane), slid}
end
return answer(found)`);
