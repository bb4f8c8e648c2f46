import { randomBytes, randomUUID } from 'node:crypto';
import { RedisScript, type RedisClient } from '../../pipeline/clients/redis.ts';
import { pause } from '../../pipeline/runtime/backoff.ts';
import { HeadwaterError, refused } from '../../pipeline/runtime/errors.ts';
import type { RoleContext } from '../../pipeline/runtime/lifecycle.ts';
import {
  difference,
  mostListed,
  type Beside,
  type Comparison,
  type Difference,
  type Rebuildable,
  type Steering,
} from '../../pipeline/runner/rebuild/model.ts';
import { rebuildable } from '../../pipeline/runner/rebuild/rebuild.ts';
import { overtaken } from '../../pipeline/runner/rebuild/refusals.ts';
import { flipGuard, flipped, RedisRecord, runFlip } from '../../pipeline/runner/rebuild/redis-record.ts';
import { RedisKeys } from '../../pipeline/runner/redis-keys.ts';
import { RedisStateStore } from '../../pipeline/runner/redis-state-store.ts';
import { madeAnew, plainHash } from './definition.ts';
import type { AggregateEffects } from './engine/effects.ts';
import { keptFor } from './engine/retention.ts';
import type { Definition } from './model.ts';
import { definitionFold, type DefinitionParts } from './runner.ts';
import { redisAggregates } from './store/commit.ts';
import { aggregateKeys, namespaceOf, namespacesKey, registryKey } from './store/keys.ts';
import { statePatterns } from './store/mend.ts';
import { entryText, processorName, Registry, type Entry } from './store/registry.ts';

/*
 * Readers find the namespace of an aggregate in the registry, and each of their readings checks it there. So a rebuild fills a namespace of its own, and a flip is
 * another entry in the registry; the role finds it there, and goes on in the new namespace.
 */

/** Each aggregate that is served, as it can be made anew. */
export async function aggregateRebuilds(context: RoleContext, parts: Omit<DefinitionParts, 'metrics'>): Promise<readonly Rebuildable[]> {
  const entries = [...(await new Registry(parts.redis).entries()).values()].sort((a, b) =>
    a.definition.name < b.definition.name ? -1 : 1,
  );
  return Promise.all(entries.map((entry) => rebuildOf(context, parts, entry)));
}

async function rebuildOf(context: RoleContext, parts: Omit<DefinitionParts, 'metrics'>, entry: Entry): Promise<Rebuildable> {
  const name = `${processorName}.${entry.definition.name}`;
  const record = new RedisRecord(parts.redis, new RedisKeys(), name);
  const hash = (await record.get('hash')) ?? madeAnew(entry.hash, randomBytes(4).toString('hex'));
  const definition = { ...entry.definition, hash };
  const { fold } = definitionFold(context, definition, parts);
  const made = rebuildable(context, { ...fold, beside: aggregateBeside(parts.redis, record, entry, definition) });
  if (plainHash(hash) === plainHash(entry.hash)) return made;
  const outdated = refused(
    'rebuild_outdated',
    `what stands beside ${name} was made for another definition of it`,
    `remove it with \`headwater rebuild ${name} --abort\`, or --drop once it has been flipped`,
  );
  return { ...made, rebuild: () => Promise.reject(outdated) };
}

/** KEYS: besides those of the guard the registry and the namespaces; ARGV: name, entry as it is expected and as it is to be, both namespaces, hash that is kept, prefix of the new one. */
const flipScript = new RedisScript(`#!lua
${flipGuard}
if redis.call('HGET', KEYS[4], ARGV[3]) ~= ARGV[4] then return 'overtaken' end
redis.call('HSET', KEYS[4], ARGV[3], ARGV[5])
redis.call('SADD', KEYS[5], ARGV[7])
redis.call('SREM', KEYS[5], ARGV[6])
redis.call('HSET', KEYS[3], 'hash', ARGV[8])
-- Whoever has followed the other one has to begin anew: see forgetChanges.
redis.call('SET', ARGV[9] .. ':forgotten', beside[1] + 1)
${flipped}`);

/** KEYS: record, registry; ARGV: what has to stand beside, name, hash of what is to go, time of day, how it is to be named. What is served is never removed. */
const dropScript = new RedisScript(`#!lua
local standing = redis.call('HMGET', KEYS[1], 'state', 'making')
if (standing[1] or '') .. ':' .. (standing[2] or '') ~= ARGV[1] or redis.call('HGET', KEYS[1], 'hash') ~= ARGV[3] then return 0 end
local entry = redis.call('HGET', KEYS[2], ARGV[2])
if entry and cjson.decode(entry).hash == ARGV[3] then return 2 end
redis.call('HSET', KEYS[1], 'state', 'dropping', 'since', ARGV[4], 'making', ARGV[5])
return 1`);

function aggregateBeside(client: RedisClient, record: RedisRecord, entry: Entry, definition: Definition): Beside<AggregateEffects> {
  const { name, hash } = definition;
  const liveKeys = namespaceOf(name, entry.hash);
  const keys = namespaceOf(name, hash);
  const offsets = { live: liveKeys.offset(processorName), beside: keys.offset(processorName) };
  const standing = { record: record.key, standing: () => record.standing };
  const store = new RedisStateStore(client, processorName, keys, redisAggregates(definition), standing);
  return {
    name: record.name,
    store,
    follows: false,
    status: () => record.status(offsets),
    begin: () => record.begin(offsets.beside, { hash }),
    // What was read of the record at the beginning may not be true any more.
    claim: (found) => record.claim(found, ['hash', hash]),
    async clear() {
      await record.wipe(keys.prefix, statePatterns);
      // Nobody has read it yet.
      await record.wipe(keys.prefix, ['forgotten']);
      await record.restart(offsets.beside);
    },
    holes: () => record.holes(offsets.beside),
    compare: (steering) =>
      compareWindows(client, { definition, prefixes: [liveKeys.prefix, keys.prefix], offsets: [offsets.live, offsets.beside] }, steering),
    flip: () =>
      runFlip(
        record,
        flipScript,
        [offsets.live, offsets.beside, record.key, registryKey, namespacesKey],
        [name, entry.text, entryText(definition), `${name}:${entry.hash}`, `${name}:${hash}`, entry.hash, keys.prefix],
      ),
    async remove(signal) {
      const making = randomUUID();
      const begun = await dropScript.run(
        client,
        [record.key, registryKey],
        [record.standing, name, hash, new Date().toISOString(), making],
      );
      if (begun === 2) throw new HeadwaterError('rebuild_unclear', `what stands beside ${record.name} cannot be told from what is served`);
      if (begun !== 1) throw overtaken(record.name);
      record.dropped(making);
      await record.wipe(keys.prefix, ['*'], { signal, spared: [offsets.beside, keys.lease(processorName)] });
      signal.throwIfAborted();
      await record.forget(offsets.beside);
    },
  };
}

/**
 * Compares the windows of groups that are not too old to be there at all. KEYS: the offsets; ARGV: both prefixes, whether there are percentiles, JSON of
 * levels as [text, micros, kept], then groups. Answers 'moving', or the number of windows compared, and group and field of each that differs.
 */
const compareScript = new RedisScript(`#!lua flags=no-writes
local one, two = redis.call('HMGET', KEYS[1], 'seq', 'epoch'), redis.call('HMGET', KEYS[2], 'seq', 'epoch')
if one[1] ~= two[1] or one[2] ~= two[2] then return 'moving' end
local clock, oldest = tonumber(redis.call('GET', ARGV[1] .. ':clock') or '0'), {}
for _, level in ipairs(cjson.decode(ARGV[4])) do oldest[level[1]] = math.floor((clock - level[3]) / level[2]) + 1 end
local function windowsOf(prefix, group)
  local windows = {}
  if not redis.call('ZSCORE', prefix .. ':groups', group) then return windows end
  local items = redis.call('HGETALL', prefix .. ':w:' .. group)
  for n = 1, #items, 2 do
    local level, index = string.match(items[n], '^(.-):(-?%d+)$')
    if tonumber(index) >= oldest[level] then windows[items[n]] = items[n + 1] end
  end
  return windows
end
local function sameHash(a, b)
  if redis.call('HLEN', a) ~= redis.call('HLEN', b) then return false end
  local items = redis.call('HGETALL', a)
  for n = 1, #items, 2 do if redis.call('HGET', b, items[n]) ~= items[n + 1] then return false end end
  return true
end
local answer = {0}
for n = 5, #ARGV do
  local group = ARGV[n]
  local a, b = windowsOf(ARGV[1], group), windowsOf(ARGV[2], group)
  local function same(field)
    if a[field] ~= b[field] then return false end
    if ARGV[3] == '0' then return true end
    for _, kind in ipairs({':v:', ':b:'}) do
      if not sameHash(ARGV[1] .. kind .. field .. ':' .. group, ARGV[2] .. kind .. field .. ':' .. group) then return false end
    end
    return true
  end
  local function note(field)
    answer[1] = answer[1] + 1
    if same(field) then return end
    answer[#answer + 1] = group
    answer[#answer + 1] = field
  end
  for field in pairs(a) do note(field) end
  for field in pairs(b) do if a[field] == nil then note(field) end end
end
return answer`);

/** So many groups are compared at once: each may have some ten thousand windows. */
const pageGroups = 4;
const attempts = 60;

interface Compared {
  readonly definition: Definition;
  readonly prefixes: readonly [live: string, beside: string];
  readonly offsets: readonly [live: string, beside: string];
}

async function compareWindows(
  client: RedisClient,
  { definition, prefixes, offsets }: Compared,
  { signal, progress }: Steering,
): Promise<Comparison> {
  const kept = keptFor(definition);
  const levels = JSON.stringify(definition.levels.map(({ text, micros }, n) => [text, micros, kept[n]]));
  const listed: Difference[] = [];
  let [compared, differences, moving] = [0, 0, 0];
  const ask = async (groups: readonly string[]): Promise<readonly (number | Buffer)[] | undefined> => {
    for (let n = 0; n < attempts; n++) {
      const answer = await compareScript.run(client, offsets, [...prefixes, definition.percentiles ? 1 : 0, levels, ...groups]);
      if (Array.isArray(answer)) return answer as (number | Buffer)[];
      await pause(5 + n, signal);
      signal.throwIfAborted();
    }
    return undefined;
  };
  const judge = async (groups: readonly string[]): Promise<void> => {
    const answer = await ask(groups);
    if (!answer) {
      moving += groups.length;
      return;
    }
    compared += Number(answer[0]);
    for (let n = 1; n < answer.length; n += 2) {
      differences++;
      if (listed.length < mostListed) listed.push(await describe(client, prefixes, String(answer[n]), String(answer[n + 1])));
    }
  };
  for await (const groups of groupsOf(client, prefixes)) {
    for (let at = 0; at < groups.length; at += pageGroups) await judge(groups.slice(at, at + pageGroups));
    progress(`${compared} windows compared, ${differences} differ`);
  }
  return { compared, differences, listed, moving };
}

/** The groups of either, each once, in pages. */
async function* groupsOf(client: RedisClient, prefixes: readonly string[]): AsyncGenerator<readonly string[], void, undefined> {
  const seen = new Set<string>();
  for (const prefix of prefixes) {
    for (let cursor: string | undefined = '0'; cursor !== undefined;) {
      const [next, flat]: [string, string[]] = await client.zscan(aggregateKeys.groups(prefix), cursor, 'COUNT', 500);
      const groups = flat.filter((group, n) => n % 2 === 0 && !seen.has(group));
      for (const group of groups) seen.add(group);
      yield [...new Set(groups)];
      cursor = next === '0' ? undefined : next;
    }
  }
}

async function describe(client: RedisClient, prefixes: readonly string[], group: string, field: string): Promise<Difference> {
  const [live, beside] = await Promise.all(prefixes.map((prefix) => client.hget(aggregateKeys.windows(prefix, group), field)));
  return difference(`${group} ${field}`, live ?? undefined, beside ?? undefined);
}
