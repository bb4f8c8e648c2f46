import { RedisScript, unexpectedAnswer, type RedisClient } from '../../../pipeline/clients/redis.ts';
import type { RedisKeys } from '../../../pipeline/runner/redis-keys.ts';
import type { EngineMeta } from '../engine/effects.ts';
import type { Loaded, Needs } from '../engine/needs.ts';
import type { Definition, Point, WindowRecord } from '../model.ts';
import { aggregateKeys } from './keys.ts';
import { decodeContribution, decodePoint, decodeRecord } from './record.ts';
import { processorName } from './registry.ts';

/**
 * KEYS: offset; ARGV: prefix, then, each with its number in front: rows; groups with the number of their windows and the fields of these; levels; groups whose
 * newest windows are wanted; panes as group and index; windows whose values are wanted as level, group and index. Answers the offset's sequence and the five lists.
 */
const loadScript = new RedisScript(`#!lua
local prefix, i = ARGV[1], 2
local function take() i = i + 1 return ARGV[i - 1] end
local function count() return tonumber(take()) end
local dropped = prefix .. ':dropped'
local littered = redis.call('EXISTS', dropped) == 1
local groupsKey = prefix .. ':groups'
-- A truncate has emptied it, whatever is still there.
local function isDropped(group) return littered and not redis.call('ZSCORE', groupsKey, group) end
-- Of a window without a record there is nothing, either.
local function isThere(level, index, group)
  return not isDropped(group) and redis.call('HEXISTS', prefix .. ':w:' .. group, level .. ':' .. index) == 1
end
local function some(key, n)
  local found = {}
  while n > 0 do
    local part = math.min(n, 1000)
    for _, value in ipairs(redis.call('HMGET', key, unpack(ARGV, i, i + part - 1))) do found[#found + 1] = value end
    i, n = i + part, n - part
  end
  return found
end
local rows = some(prefix .. ':rows', count())
local windows, newest, points, values = {}, {}, {}, {}
for n = 1, count() do
  local group = take()
  local found = some(prefix .. ':w:' .. group, count())
  if isDropped(group) then for m = 1, #found do found[m] = false end end
  windows[n] = found
end
local levels = {}
for n = 1, count() do levels[n] = take() end
for n = 1, count() do
  local group, found = take(), {}
  for m = 1, #levels do
    found[m] = not isDropped(group) and redis.call('ZREVRANGE', prefix .. ':i:' .. levels[m] .. ':' .. group, 0, 0)[1] or false
  end
  newest[n] = found
end
for n = 1, count() do
  local group, index = take(), take()
  points[n] = isThere(levels[1], index, group) and redis.call('HGETALL', prefix .. ':p:' .. index .. ':' .. group) or {}
end
for n = 1, count() do
  local level, group, index = take(), take(), take()
  values[n] = isThere(level, index, group) and redis.call('HGETALL', prefix .. ':v:' .. level .. ':' .. index .. ':' .. group) or {}
end
return {redis.call('HGET', KEYS[1], 'seq'), rows, windows, newest, points, values}`);

type Text = Buffer | null;
type Answer = readonly [
  seq: Text,
  rows: readonly Text[],
  windows: readonly (readonly Text[])[],
  newest: readonly (readonly Text[])[],
  points: readonly Buffer[][],
  values: readonly Buffer[][],
];

/** Reads what the engine needs, in one atomic call with the offset. */
export async function loadNeeds(client: RedisClient, keys: RedisKeys, { levels }: Definition, needs: Needs): Promise<Loaded> {
  const text = (level: number): string => levels[level]!.text;
  const args: (string | number)[] = [keys.prefix, needs.rows.length];
  for (const row of needs.rows) args.push(row);
  const groups = fieldsByGroup(needs, text);
  args.push(groups.size);
  for (const [group, fields] of groups) {
    args.push(group, fields.length);
    for (const field of fields) args.push(field);
  }
  args.push(levels.length, ...levels.map((level) => level.text), needs.newest.length, ...needs.newest, needs.points.length);
  for (const { group, index } of needs.points) args.push(group, index);
  args.push(needs.values.length);
  for (const { level, group, index } of needs.values) args.push(text(level), group, index);
  const answer = await loadScript.run(client, [keys.offset(processorName)], args);
  if (!Array.isArray(answer) || answer.length !== 6) throw unexpectedAnswer('a question for windows', answer);
  const [seq, rows, windows, newest, points, values] = answer as unknown as Answer;
  return {
    // Without an offset there is nothing: whatever is committed next is not.
    seq: Number(seq ?? -1),
    rows: rows.map((row) => (row ? decodeContribution(row.toString()) : undefined)),
    windows: inOrderOf(needs, [...groups.keys()], windows),
    newest: newest.map((ofGroup) => ofGroup.map((index) => (index ? Number(index) : undefined))),
    points: points.map((flat) => new Map(pairs(flat).map(([id, point]): [string, Point] => [id, decodePoint(id, point)]))),
    values: values.map((flat) => new Map(pairs(flat).map(([value, count]): [string, number] => [value, Number(count)]))),
  };
}

function fieldsByGroup({ windows }: Needs, text: (level: number) => string): ReadonlyMap<string, readonly string[]> {
  const groups = new Map<string, string[]>();
  for (const { level, group, indexes } of windows) {
    let fields = groups.get(group);
    if (!fields) groups.set(group, (fields = []));
    for (const index of indexes) fields.push(`${text(level)}:${index}`);
  }
  return groups;
}

/** The records in the order in which they are needed, from those of each group. */
function inOrderOf({ windows }: Needs, groups: readonly string[], answers: readonly (readonly Text[])[]): Loaded['windows'] {
  const left = new Map(groups.map((group, n) => [group, answers[n]!.values()]));
  const next = (group: string): WindowRecord | undefined => {
    const record = left.get(group)!.next().value;
    return record ? decodeRecord(record.toString()) : undefined;
  };
  return windows.map(({ group, indexes }) => indexes.map(() => next(group)));
}

/** What the engine knows besides, as it was when the offset was stored; undefined when nothing has been stored yet. */
export async function loadMeta(client: RedisClient, keys: RedisKeys): Promise<EngineMeta | undefined> {
  const text = await client.get(aggregateKeys.meta(keys.prefix));
  // The oldest windows are not in what former versions have stored.
  return text == null ? undefined : { oldest: [], ...(JSON.parse(text) as Omit<EngineMeta, 'oldest'> & Partial<EngineMeta>) };
}

function pairs(flat: readonly Buffer[]): [string, string][] {
  return Array.from({ length: flat.length / 2 }, (_, n): [string, string] => [flat[2 * n]!.toString(), flat[2 * n + 1]!.toString()]);
}
