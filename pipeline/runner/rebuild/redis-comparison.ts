import { RedisScript, unexpectedAnswer, untilRedisAnswers, type RedisClient } from '../../clients/redis.ts';
import { inOneProcess, scanKeys, type Ask } from '../redis-scan.ts';
import { Findings } from './findings.ts';
import { difference, type Comparison, type Steering } from './model.ts';
import { RedisMeeting, whereTheyMeet } from './redis-meeting.ts';

/**
 * Compares the hashes, sets, sorted sets, lists, streams and strings `<prefix>:<suffix>` of two namespaces: sizes first, then what is in the live one, which is all of the other where
 * both are as large. ARGV: besides that of the meeting both prefixes, where to go on in the first key, then suffixes. Answers how many keys are done, where to go on in the next
 * one, and the number of each that differs: no call looks at much more than 10,000 items, or a megabyte of a string.
 */
const compareScript = new RedisScript(`#!lua flags=no-writes
${whereTheyMeet}
local mostItems, pageItems, pageBytes = 10000, 500, 1048576
local size = {string = 'STRLEN', hash = 'HLEN', set = 'SCARD', zset = 'ZCARD', list = 'LLEN', stream = 'XLEN'}
local spent = 0
-- The next cursor, or nothing where they differ.
local parts = {}
function parts.string(one, two, cursor)
  local from = tonumber(cursor)
  local a = redis.call('GETRANGE', one, from, from + pageBytes - 1)
  spent = spent + #a / 100
  if a ~= redis.call('GETRANGE', two, from, from + pageBytes - 1) then return nil end
  return #a < pageBytes and '0' or tostring(from + pageBytes)
end
local function scanned(scan, step, isSame)
  return function(one, two, cursor)
    local page = redis.call(scan, one, cursor, 'COUNT', pageItems)
    spent = spent + #page[2] / step
    for n = 1, #page[2], step do if not isSame(one, two, page[2][n], page[2][n + 1]) then return nil end end
    return page[1]
  end
end
parts.hash = scanned('HSCAN', 2, function(_, two, field, value) return redis.call('HGET', two, field) == value end)
parts.set = scanned('SSCAN', 1, function(_, two, member) return redis.call('SISMEMBER', two, member) == 1 end)
parts.zset = scanned('ZSCAN', 2, function(one, two, member) return redis.call('ZSCORE', two, member) == redis.call('ZSCORE', one, member) end)
function parts.list(one, two, cursor)
  local from = tonumber(cursor)
  local a, b = redis.call('LRANGE', one, from, from + pageItems - 1), redis.call('LRANGE', two, from, from + pageItems - 1)
  spent = spent + #a
  for n = 1, #a do if a[n] ~= b[n] then return nil end end
  return #a < pageItems and '0' or tostring(from + pageItems)
end
function parts.stream(one, two, cursor)
  local from = cursor == '0' and '-' or cursor
  local a, b = redis.call('XRANGE', one, from, '+', 'COUNT', pageItems), redis.call('XRANGE', two, from, '+', 'COUNT', pageItems)
  spent = spent + #a
  if cjson.encode(a) ~= cjson.encode(b) then return nil end
  return #a < pageItems and '0' or '(' .. a[#a][1]
end
local function compare(one, two, cursor)
  local kind = redis.call('TYPE', one).ok
  spent = spent + 1
  if kind ~= redis.call('TYPE', two).ok then return nil end
  if kind == 'none' then return '0' end
  if not size[kind] then
    if redis.call('DUMP', one) == redis.call('DUMP', two) then return '0' end
    return nil
  end
  if redis.call(size[kind], one) ~= redis.call(size[kind], two) then return nil end
  repeat cursor = parts[kind](one, two, cursor) until cursor == nil or cursor == '0' or spent > mostItems
  return cursor
end
local answer, cursor = {0, '0'}, ARGV[4]
for n = 5, #ARGV do
  cursor = compare(ARGV[2] .. ':' .. ARGV[n], ARGV[3] .. ':' .. ARGV[n], cursor)
  if cursor == nil then answer[#answer + 1] = n - 4 end
  cursor = cursor or '0'
  if cursor == '0' then answer[1] = n - 4 end
  answer[2] = cursor
  if spent > mostItems then break end
end
return answer`);

/** ARGV: prefix, suffixes. Answers the number of each that is not there. */
const missingScript = new RedisScript(`#!lua flags=no-writes
local missing = {}
for n = 2, #ARGV do
  if redis.call('EXISTS', ARGV[1] .. ':' .. ARGV[n]) == 0 then missing[#missing + 1] = n - 1 end
end
return missing`);

const pageKeys = 100;

export interface ComparedSpaces {
  readonly client: RedisClient;
  /** Keys of the offsets, and the prefixes, of the live state and of the one beside. */
  readonly live: { readonly offset: string; readonly prefix: string };
  readonly beside: { readonly offset: string; readonly prefix: string };
  readonly patterns: readonly string[];
}

/** Compares two namespaces key by key, each key at one offset, a large one part by part. */
export async function compareSpaces(spaces: ComparedSpaces, steering: Steering): Promise<Comparison> {
  const ask: Ask = (attempt) => untilRedisAnswers(attempt, steering);
  const comparison = await inOneProcess(spaces.client, ask, () => compareOnce(spaces, steering, ask));
  steering.letGo();
  return comparison;
}

async function compareOnce({ client, live, beside, patterns }: ComparedSpaces, steering: Steering, ask: Ask): Promise<Comparison> {
  const findings = new Findings();
  const meeting = new RedisMeeting({ client, live: live.offset, beside: beside.offset }, steering);
  const judge = async (suffixes: readonly string[]): Promise<void> => {
    for (let [rest, cursor] = [suffixes, '0']; rest.length > 0;) {
      const { answer, met } = await meeting.run(compareScript, [live.prefix, beside.prefix, cursor, ...rest]);
      const [done, next, ...different] = answer as [number, Buffer, ...number[]];
      for (const number of different) {
        if (met) await findings.add(() => ask(() => describe(client, [live.prefix, beside.prefix], rest[number - 1]!)));
        else findings.moving++;
      }
      findings.compared += done - (met ? 0 : different.length);
      [rest, cursor] = [rest.slice(done), next.toString()];
    }
    steering.progress(`${findings.compared} keys compared`);
  };
  // First all that should be there, then what is there and should not be: for that one no key has to be remembered.
  for (const { prefix } of [beside, live]) {
    for (const pattern of patterns) {
      for await (const keys of scanKeys(client, prefix, pattern, { ask })) {
        steering.signal.throwIfAborted();
        const suffixes = keys.map((key) => key.slice(prefix.length + 1));
        const judged = prefix === beside.prefix ? suffixes : await missing({ client, ask }, beside.prefix, suffixes);
        for (let at = 0; at < judged.length; at += pageKeys) await judge(judged.slice(at, at + pageKeys));
      }
    }
  }
  const { apart } = meeting;
  return { ...findings.comparison, ...(apart !== undefined && { apart }) };
}

async function missing(
  { client, ask }: { readonly client: RedisClient; readonly ask: Ask },
  prefix: string,
  suffixes: readonly string[],
): Promise<readonly string[]> {
  const answer = await ask(() => missingScript.run(client, [], [prefix, ...suffixes]));
  if (!Array.isArray(answer)) throw unexpectedAnswer('a comparison', answer);
  return (answer as number[]).map((number) => suffixes[number - 1]!);
}

async function describe(client: RedisClient, prefixes: readonly string[], suffix: string): Promise<ReturnType<typeof difference>> {
  const [live, beside] = await Promise.all(prefixes.map((prefix) => contentOf(client, `${prefix}:${suffix}`)));
  return difference(suffix, live, beside);
}

const mostShown = { items: 1_000, bytes: 100_000 };

/** A key’s content, the beginning of it, as text. */
async function contentOf(client: RedisClient, key: string): Promise<string | undefined> {
  const { items, bytes } = mostShown;
  const large = (kind: string, size: number): string => `a ${kind} of ${size} items`;
  switch (await client.type(key)) {
    case 'none':
      return undefined;
    case 'string':
      return client.getrange(key, 0, bytes);
    case 'hash': {
      const size = await client.hlen(key);
      if (size > items) return large('hash', size);
      const fields = Object.entries(await client.hgetall(key)).map(([field, value]) => `${field}: ${value}`);
      return JSON.stringify(fields.sort());
    }
    case 'set': {
      const size = await client.scard(key);
      return size > items ? large('set', size) : JSON.stringify((await client.smembers(key)).sort());
    }
    case 'zset':
      return JSON.stringify(await client.zrange(key, '0', `${items}`, 'WITHSCORES'));
    case 'list':
      return JSON.stringify(await client.lrange(key, 0, items));
    default:
      return 'something else';
  }
}
