import { randomUUID } from 'node:crypto';
import { unexpectedAnswer, type RedisClient } from '../../pipeline/clients/redis.ts';
import type { Beside, Refilled } from '../../pipeline/runner/rebuild/model.ts';
import { overtaken } from '../../pipeline/runner/rebuild/refusals.ts';
import { holesAt, RedisRecord, runFlip } from '../../pipeline/runner/rebuild/redis-record.ts';
import { RedisKeys } from '../../pipeline/runner/redis-keys.ts';
import { RedisStateStore, type RedisEffects } from '../../pipeline/runner/redis-state-store.ts';
import type { CacheEffects } from './fold.ts';
import { compareRows } from './rebuild-comparison.ts';
import { beginScript, endScript, flipScript } from './rebuild-scripts.ts';
import { encodeTable, redisCache } from './redis-cache.ts';

/** A fold that notes which rows it changes, while it is being compared. */
function notingEffects(noting: () => string): RedisEffects<CacheEffects> {
  const lua = `
local comparison = redis.call('HGET', prefix .. ':comparison', 'id')
local unsettled = comparison and comparison ~= ARGV[first]
local whole, noted = tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])
first = first + 3
for n = first, first + whole - 1 do
  -- What happens to a table that is not held changes nothing.
  if redis.call('SISMEMBER', prefix .. ':uncached', ARGV[n]) == 0 then unsettled = true end
end
first = first + whole
if unsettled then redis.call('HSET', prefix .. ':comparison', 'unsettled', 1) end
for n = first, first + 2 * noted - 1, 2 do
  redis.call('SADD', prefix .. ':judged', ARGV[n])
  redis.call('SADD', prefix .. ':touched:' .. ARGV[n], ARGV[n + 1])
end
first = first + 2 * noted
${redisCache.lua}`;
  return {
    lua,
    encode(effects) {
      const args = redisCache.encode(effects);
      const comparison = noting();
      if (comparison === '') return ['', 0, 0, ...args];
      const { tables, uncached } = effects;
      const truncated = [...tables].flatMap(([table, changes]) => (changes.truncated === undefined ? [] : [table]));
      const whole = [...uncached.keys(), ...truncated].map(encodeTable);
      const noted = [...tables].flatMap(([table, { rows }]) => [...rows.keys()].flatMap((key) => [encodeTable(table), key]));
      return [comparison, whole.length, noted.length / 2, ...whole, ...noted, ...args];
    },
  };
}

/** How long a flip takes for each row that changes places, about, in ms. */
const flipRowMs = 0.025;
const again = 'a table has been truncated, or was left out, after the comparison before, or the live cache was filled anew';

/** A second cache in Redis, and how it takes the place of the live one under its names. */
export function cacheBeside(client: RedisClient, keys: RedisKeys = new RedisKeys()): Beside<CacheEffects> {
  const record = new RedisRecord(client, keys, 'cache');
  const besideKeys = new RedisKeys(record.key);
  const [a, b] = [keys.prefix, besideKeys.prefix];
  const offsets = [keys.offset('cache'), besideKeys.offset('cache')] as const;
  let noting = '';
  /** `from` of the offset beside becomes that of the whole epoch in the flip, if what it folds had been brought back before. */
  const notedRefilled = (refilled: Refilled | undefined): Record<string, string> => ({
    refilled: refilled ? JSON.stringify(refilled) : '',
  });
  const store = new RedisStateStore(
    client,
    'cache',
    besideKeys,
    notingEffects(() => noting),
    { record: record.key, standing: () => record.standing },
  );
  // Its lease is of who works there, and not of what stands there.
  const spared = [offsets[1], besideKeys.lease('cache')];
  return {
    name: 'cache',
    store,
    follows: false,
    status: () => record.status({ beside: offsets[1], live: offsets[0] }),
    begin: (refilled) => record.begin(offsets[1], notedRefilled(refilled)),
    claim: (found) => record.claim(found),
    async clear(refilled) {
      await record.set(notedRefilled(refilled));
      await record.wipe(b, ['*'], { spared });
      await record.restart(offsets[1]);
    },
    holes: () => holesAt(client, offsets[1]),
    async compare(steering) {
      let due: unknown;
      // From the next commit on everything is noted.
      await steering.still(async () => {
        noting = randomUUID();
        due = await beginScript.run(client, [record.key, offsets[0]], [record.standing, a, b, noting]);
      });
      const why = answered(due) === 1 ? `again, since ${again}: ` : '';
      const progress = (text: string): void => steering.progress(`${why}${text}`);
      const { comparison, pages } = await compareRows({ client, prefixes: [a, b], offsets }, { signal: steering.signal, progress });
      const changing = answered(await endScript.run(client, [record.key], [record.standing, b, noting, pages]));
      return { ...comparison, pauseMs: Math.round(changing * flipRowMs) };
    },
    flip: () => runFlip(record, flipScript, [...offsets, record.key], [a, b, noting, randomUUID()]),
    async remove(signal) {
      await record.drop();
      await record.wipe(b, ['*'], { signal, spared });
      signal.throwIfAborted();
      await record.forget(offsets[1]);
    },
  };
}

/** The number that a script has answered. */
function answered(answer: unknown): number {
  if (Buffer.isBuffer(answer) && answer.toString() === 'overtaken') throw overtaken('cache');
  if (typeof answer !== 'number') throw unexpectedAnswer('a comparison', answer);
  return answer;
}
