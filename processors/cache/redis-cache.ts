import type { RedisEffects } from '../../pipeline/runner/redis-state-store.ts';
import type { CacheEffects } from './fold.ts';
import { packRows, unpackRow } from './packed-rows.ts';

/** How long a deleted row is remembered as deleted: longer than any fill or read from the database may take. */
const tombstoneMs = 24 * 3_600_000;

/**
 * Where the cache is, within the namespace:
 * - `row:<table>:<key>`: hash `seq`, `event`; without `event` a deleted row, until it expires
 * - `keys:<table>`: set of the keys of the rows that exist
 * - `truncated`: hash table → sequence; rows with an older one are absent, also while their hashes are still there
 * - `uncached`: set of the tables that are not cached, since they have rows without primary key or are too large
 * - `dropped`, `dropped:<seq>:<table>`: keys of rows that are gone all at once, whose hashes the following commits remove bit by bit
 */
export const cacheKeys = {
  row: (prefix: string, table: string, key: string): string => `${prefix}:row:${encodeTable(table)}:${key}`,
  keys: (prefix: string, table: string): string => `${prefix}:keys:${encodeTable(table)}`,
  truncated: (prefix: string): string => `${prefix}:truncated`,
  uncached: (prefix: string): string => `${prefix}:uncached`,
} as const;

/** Patterns of all these keys, behind the prefix. */
export const cachePatterns: readonly string[] = ['row:*', 'keys:*', 'truncated', 'uncached', 'dropped*'];

/** Encoded keys hold no further colon, so only the table's own could be taken for a separator. */
export function encodeTable(table: string): string {
  return table.replace(/[%:]/g, encodeURIComponent);
}

/**
 * Arguments: number of tables that are not cached, each as name and sequence; then for each table its name, the sequence of a truncate or '',
 * and its rows in one argument.
 */
const lua = `
local i = first + 1
-- Hashes of before a truncate may still be there, for rows that are no longer listed.
local littered = redis.call('EXISTS', prefix .. ':dropped') == 1
local function drop(name, seq)
  local keys = prefix .. ':keys:' .. name
  if redis.call('EXISTS', keys) == 0 then return end
  local dropped = seq .. ':' .. name
  redis.call('RENAME', keys, prefix .. ':dropped:' .. dropped)
  redis.call('RPUSH', prefix .. ':dropped', dropped)
  littered = true
end
for n = 1, tonumber(ARGV[first]) do
  if redis.call('SADD', prefix .. ':uncached', ARGV[i]) == 1 then drop(ARGV[i], ARGV[i + 1]) end
  i = i + 2
end
while ARGV[i] do
  local name, truncated, rows = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local keys, row = prefix .. ':keys:' .. name, prefix .. ':row:' .. name .. ':'
  i = i + 3
  if truncated ~= '' then
    redis.call('HSET', prefix .. ':truncated', name, truncated)
    drop(name, truncated)
  end
  if redis.call('SISMEMBER', prefix .. ':uncached', name) == 1 then rows = '' end
  local members, at = {}, 1
  while at <= #rows do
    local key, seq, event
    ${unpackRow}
    if event == '' then
      redis.call('SREM', keys, key)
      redis.call('DEL', row .. key)
      redis.call('HSET', row .. key, 'seq', seq)
      redis.call('PEXPIRE', row .. key, ${tombstoneMs})
    else
      local fields = redis.call('HSET', row .. key, 'seq', seq, 'event', event)
      -- It had a sequence but no event: it was deleted and would expire.
      if fields == 1 then redis.call('PERSIST', row .. key) end
      if fields > 0 or littered then
        members[#members + 1] = key
        if #members == 1000 then
          redis.call('SADD', keys, unpack(members))
          members = {}
        end
      end
    end
  end
  if #members > 0 then redis.call('SADD', keys, unpack(members)) end
end
local dropped = redis.call('LINDEX', prefix .. ':dropped', 0)
if dropped then
  local seq, name = string.match(dropped, '^(%d+):(.*)$')
  local found = redis.call('SPOP', prefix .. ':dropped:' .. dropped, 200)
  if #found == 0 then redis.call('LPOP', prefix .. ':dropped') end
  for n = 1, #found do
    local key = prefix .. ':row:' .. name .. ':' .. found[n]
    local last = redis.call('HGET', key, 'seq')
    if last and tonumber(last) < tonumber(seq) then redis.call('UNLINK', key) end
  end
end`;

/** The cache's effects as one Lua call. */
export const redisCache: RedisEffects<CacheEffects> = {
  lua,
  encode({ tables, uncached }) {
    const args: (string | number | Buffer)[] = [uncached.size];
    for (const [table, seq] of uncached) args.push(encodeTable(table), seq);
    for (const [table, { truncated, rows }] of tables) args.push(encodeTable(table), truncated ?? '', packRows(rows));
    return args;
  },
};
