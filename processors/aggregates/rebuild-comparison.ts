import { RedisScript, untilRedisAnswers, type RedisClient } from '../../pipeline/clients/redis.ts';
import { difference, type Comparison, type Difference, type Steering } from '../../pipeline/runner/rebuild/model.ts';
import { Findings } from '../../pipeline/runner/rebuild/findings.ts';
import { RedisMeeting, whereTheyMeet } from '../../pipeline/runner/rebuild/redis-meeting.ts';
import { inOneProcess, type Ask } from '../../pipeline/runner/redis-scan.ts';
import { keptFor } from './engine/retention.ts';
import type { Definition } from './model.ts';
import { aggregateKeys } from './store/keys.ts';

/**
 * Compares the windows of groups that are not too old to be there at all. ARGV: besides that of the meeting the prefix whose windows are looked at and the other one, '1' to pass
 * over windows that are in the other one, whether there are percentiles, JSON of levels as [text, micros, kept], where to go on in the first group, then groups. Answers how many
 * groups are done, where to go on in the next one, how many windows were compared, and group and field of each that differs: no call looks at much more than 10,000 items.
 */
const compareScript = new RedisScript(`#!lua flags=no-writes
${whereTheyMeet}
local mostItems, pageWindows = 10000, 200
local here, there, others, percentiles = ARGV[2], ARGV[3], ARGV[4] == '1', ARGV[5] == '1'
local clock, oldest = 0, {}
for _, prefix in ipairs({here, there}) do clock = math.max(clock, tonumber(redis.call('GET', prefix .. ':clock') or '0')) end
for _, level in ipairs(cjson.decode(ARGV[6])) do oldest[level[1]] = math.floor((clock - level[3]) / level[2]) + 1 end
local answer, spent = {0, '0', 0}, 0
local function sameHash(a, b)
  local size = redis.call('HLEN', a)
  spent = spent + size
  if size ~= redis.call('HLEN', b) then return false end
  local items = redis.call('HGETALL', a)
  for n = 1, #items, 2 do if redis.call('HGET', b, items[n]) ~= items[n + 1] then return false end end
  return true
end
local function isGone(field)
  local level, index = string.match(field, '^(.-):(-?%d+)$')
  return oldest[level] and tonumber(index) < oldest[level]
end
local function compare(group, field, value, other)
  if isGone(field) or (others and other) then return end
  answer[3] = answer[3] + 1
  local same = value == other
  for _, kind in ipairs(percentiles and same and {':v:', ':b:'} or {}) do
    same = same and sameHash(here .. kind .. field .. ':' .. group, there .. kind .. field .. ':' .. group)
  end
  if same then return end
  answer[#answer + 1] = group
  answer[#answer + 1] = field
end
-- The next cursor. Of a group that is not listed there is nothing, whatever other keys say.
local function part(group, cursor)
  spent = spent + 1
  if not redis.call('ZSCORE', here .. ':groups', group) then return '0' end
  local isThere = redis.call('ZSCORE', there .. ':groups', group)
  local page = redis.call('HSCAN', here .. ':w:' .. group, cursor, 'COUNT', pageWindows)
  local windows = page[2]
  spent = spent + #windows / 2
  for n = 1, #windows, 2 do
    compare(group, windows[n], windows[n + 1], isThere and redis.call('HGET', there .. ':w:' .. group, windows[n]))
  end
  return page[1]
end
local cursor = ARGV[7]
for n = 8, #ARGV do
  repeat cursor = part(ARGV[n], cursor) until cursor == '0' or spent > mostItems
  if cursor == '0' then answer[1] = n - 7 end
  answer[2] = cursor
  if spent > mostItems then break end
end
return answer`);

const pageGroups = 50;

export interface ComparedAggregates {
  readonly client: RedisClient;
  readonly definition: Definition;
  readonly prefixes: readonly [live: string, beside: string];
  /** Keys of the offsets. */
  readonly offsets: { readonly live: string; readonly beside: string };
}

/** Compares all windows of two namespaces, each at one offset. */
export async function compareWindows(compared: ComparedAggregates, steering: Steering): Promise<Comparison> {
  const ask: Ask = (attempt) => untilRedisAnswers(attempt, steering);
  const comparison = await inOneProcess(compared.client, ask, () => compareOnce(compared, steering, ask));
  steering.letGo();
  return comparison;
}

async function compareOnce(
  { client, definition, prefixes, offsets }: ComparedAggregates,
  steering: Steering,
  ask: Ask,
): Promise<Comparison> {
  const kept = keptFor(definition);
  const levels = JSON.stringify(definition.levels.map(({ text, micros }, n) => [text, micros, kept[n]]));
  const findings = new Findings();
  const meeting = new RedisMeeting({ client, ...offsets }, steering);
  const judge = async (groups: readonly string[], [here, there]: readonly string[], others: boolean): Promise<void> => {
    const about = [here!, there!, others ? 1 : '', definition.percentiles ? 1 : '', levels];
    for (let [rest, cursor] = [groups, '0']; rest.length > 0;) {
      const { answer, met } = await meeting.run(compareScript, [...about, cursor, ...rest]);
      const [done, next, windows, ...different] = answer as [number, Buffer, number, ...Buffer[]];
      findings.compared += windows - (met ? 0 : different.length / 2);
      for (let n = 0; n < different.length; n += 2) {
        const [group, field] = [different[n]!.toString(), different[n + 1]!.toString()];
        if (met) await findings.add(() => ask(() => describe(client, prefixes, group, field)));
        else findings.moving++;
      }
      [rest, cursor] = [rest.slice(done), next.toString()];
    }
    steering.progress(`${findings.compared} windows compared, ${findings.differences} differ`);
  };
  const [live, beside] = prefixes;
  // First all that should be there, then what is there and should not be: for that one no group has to be remembered.
  for (const sides of [
    [beside, live],
    [live, beside],
  ]) {
    for await (const groups of groupsOf(client, sides[0]!, ask)) {
      for (let at = 0; at < groups.length; at += pageGroups) await judge(groups.slice(at, at + pageGroups), sides, sides[0] === live);
    }
  }
  const { apart } = meeting;
  return { ...findings.comparison, ...(apart !== undefined && { apart }) };
}

/** In pages; a group may be given twice. */
async function* groupsOf(client: RedisClient, prefix: string, ask: Ask): AsyncGenerator<readonly string[], void, undefined> {
  let cursor = '0';
  do {
    const from = cursor;
    const [next, flat] = await ask(() => client.zscan(aggregateKeys.groups(prefix), from, 'COUNT', 500));
    cursor = next;
    yield flat.filter((_, n) => n % 2 === 0);
  } while (cursor !== '0');
}

async function describe(client: RedisClient, prefixes: readonly string[], group: string, field: string): Promise<Difference> {
  const [live, beside] = await Promise.all(prefixes.map((prefix) => client.hget(aggregateKeys.windows(prefix, group), field)));
  return difference(`${group} ${field}`, live ?? undefined, beside ?? undefined);
}
