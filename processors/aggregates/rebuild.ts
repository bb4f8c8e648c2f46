import { randomBytes, randomUUID } from 'node:crypto';
import { RedisScript, type RedisClient } from '../../pipeline/clients/redis.ts';
import { HeadwaterError, refused } from '../../pipeline/runtime/errors.ts';
import type { RoleContext } from '../../pipeline/runtime/lifecycle.ts';
import type { Beside, Rebuildable } from '../../pipeline/runner/rebuild/model.ts';
import { rebuildable } from '../../pipeline/runner/rebuild/rebuild.ts';
import { overtaken } from '../../pipeline/runner/rebuild/refusals.ts';
import { flipGuard, flipped, holesAt, RedisRecord, runFlip } from '../../pipeline/runner/rebuild/redis-record.ts';
import { RedisKeys } from '../../pipeline/runner/redis-keys.ts';
import { standsLua } from '../../pipeline/runner/redis-lua.ts';
import { RedisStateStore } from '../../pipeline/runner/redis-state-store.ts';
import { madeAnew, plainHash } from './definition.ts';
import type { AggregateEffects } from './engine/effects.ts';
import type { Definition } from './model.ts';
import { compareWindows } from './rebuild-comparison.ts';
import { definitionFold, type DefinitionParts } from './runner.ts';
import { redisAggregates } from './store/commit.ts';
import { namespaceOf, namespacesKey, registryKey } from './store/keys.ts';
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

/** KEYS: besides those of the guard the registry, the namespaces, and the lease of the new one; ARGV: name, entry as it is expected and as it is to be, both namespaces, hash that is kept, prefix of the new one. */
const flipScript = new RedisScript(`#!lua
${flipGuard}
if redis.call('HGET', KEYS[4], ARGV[3]) ~= ARGV[4] then return 'overtaken' end
redis.call('HSET', KEYS[4], ARGV[3], ARGV[5])
redis.call('SADD', KEYS[5], ARGV[7])
redis.call('SREM', KEYS[5], ARGV[6])
redis.call('HSET', KEYS[3], 'hash', ARGV[8])
-- Whoever has followed the other one has to begin anew: see forgetChanges.
redis.call('SET', ARGV[9] .. ':forgotten', beside[1] + 1)
-- It is the lease of what is served now: the role does not wait for it to lapse.
redis.call('DEL', KEYS[6])
${flipped}`);

/** KEYS: record, registry; ARGV: what has to stand beside, name, hash of what is to go, time of day, how it is to be named. What is served is never removed. */
const dropScript = new RedisScript(`#!lua
${standsLua}
if not stands(KEYS[1], ARGV[1]) or redis.call('HGET', KEYS[1], 'hash') ~= ARGV[3] then return 0 end
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
  const store = new RedisStateStore(client, processorName, keys, redisAggregates(definition), { beside: standing });
  return {
    name: record.name,
    store,
    follows: false,
    status: () => record.status(offsets),
    begin: () => record.begin(offsets.beside, { hash }),
    // What was read of the record at the beginning may not be true any more.
    claim: (found) => record.claim(found, ['hash', hash]),
    async clear(_refilled, progress) {
      // What is forgotten, too: nobody has read it yet.
      if (!record.empty) await record.wipe(keys.prefix, [...statePatterns, 'forgotten'], progress && { progress });
      await record.restart(offsets.beside);
    },
    holes: () => holesAt(client, offsets.beside),
    compare: (steering) => compareWindows({ client, definition, prefixes: [liveKeys.prefix, keys.prefix], offsets }, steering),
    flip: () =>
      runFlip(
        record,
        flipScript,
        [offsets.live, offsets.beside, record.key, registryKey, namespacesKey, keys.lease(processorName)],
        [name, entry.text, entryText(definition), `${name}:${entry.hash}`, `${name}:${hash}`, entry.hash, keys.prefix],
      ),
    async remove(signal, progress) {
      const making = randomUUID();
      const begun = await dropScript.run(
        client,
        [record.key, registryKey],
        [record.standing, name, hash, new Date().toISOString(), making],
      );
      if (begun === 2) throw new HeadwaterError('rebuild_unclear', `what stands beside ${record.name} cannot be told from what is served`);
      if (begun !== 1) throw overtaken(record.name);
      record.dropped(making);
      await record.wipe(keys.prefix, ['*'], { signal, spared: [offsets.beside, keys.lease(processorName)], ...(progress && { progress }) });
      signal.throwIfAborted();
      await record.forget(offsets.beside);
    },
  };
}
