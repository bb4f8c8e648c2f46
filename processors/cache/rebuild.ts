import { randomUUID } from 'node:crypto';
import { unexpectedAnswer, untilRedisAnswers, type RedisClient } from '../../pipeline/clients/redis.ts';
import type { Beside, Comparison, Refilled, Steering } from '../../pipeline/runner/rebuild/model.ts';
import { overtaken } from '../../pipeline/runner/rebuild/refusals.ts';
import { holesAt, RedisRecord, runFlip } from '../../pipeline/runner/rebuild/redis-record.ts';
import { RedisKeys } from '../../pipeline/runner/redis-keys.ts';
import { inOneProcess, type Ask } from '../../pipeline/runner/redis-scan.ts';
import { RedisStateStore, type RedisEffects } from '../../pipeline/runner/redis-state-store.ts';
import type { CacheEffects } from './fold.ts';
import { CacheComparison, type Shown } from './rebuild-comparison.ts';
import { beginScript, changingScript, dueTo, endScript, flipScript } from './rebuild-scripts.ts';
import { encodeTable, redisCache } from './redis-cache.ts';

/** A fold that notes which rows it changes, while it is being compared. */
function notingEffects(noting: () => string): RedisEffects<CacheEffects> {
  const lua = `
local comparison = redis.call('HGET', prefix .. ':comparison', 'id')
if comparison and comparison ~= ARGV[first] then redis.call('HSETNX', prefix .. ':comparison', 'unsettled', 'fold') end
local whole, noted = tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])
first = first + 3
for n = first, first + whole - 1 do
  -- What happens to a table that is not held changes nothing.
  if redis.call('SISMEMBER', prefix .. ':uncached', ARGV[n]) == 0 then redis.call('HSET', prefix .. ':comparison', 'unsettled', 'table') end
end
first = first + whole
for n = 1, noted do
  local name, last = ARGV[first], first + 1 + tonumber(ARGV[first + 1])
  if redis.call('SISMEMBER', prefix .. ':uncached', name) == 0 then
    redis.call('SADD', prefix .. ':judged', name)
    for from = first + 2, last, 1000 do redis.call('SADD', prefix .. ':touched:' .. name, unpack(ARGV, from, math.min(from + 999, last))) end
  end
  first = last + 1
end
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
      const noted = [...tables].filter(([, { rows }]) => rows.size > 0);
      const rows = noted.flatMap(([table, changes]) => [encodeTable(table), changes.rows.size, ...changes.rows.keys()]);
      return [comparison, whole.length, noted.length, ...whole, ...rows, ...args];
    },
  };
}

/** How long a flip takes in which so many rows change places, about, in ms. */
const pauseOf = (rows: number): number => Math.round(rows * 0.025);
/** So many rows more than the comparison has told of may change places without a word. */
const slack = 4_000;
/** So often it is looked again at what has changed, when it is too much for a flip. */
const mostAttempts = 10;
const again = 'a table has been truncated, or was left out, after the comparison before, or the live cache was filled anew';

/** A comparison, and what has come of it. */
interface Compared {
  /** Which one it is; '': there has been none. */
  readonly id: string;
  /** How many rows may change places in a flip; undefined: all. */
  allowed: number | undefined;
  /** So often it was looked again at what has changed since. */
  attempts: number;
}

/** A second cache in Redis, and how it takes the place of the live one under its names. */
export function cacheBeside(client: RedisClient, keys: RedisKeys = new RedisKeys()): Beside<CacheEffects> {
  const record = new RedisRecord(client, keys, 'cache');
  const besideKeys = new RedisKeys(record.key);
  const [a, b] = [keys.prefix, besideKeys.prefix];
  const offsets = [keys.offset('cache'), besideKeys.offset('cache')] as const;
  let compared: Compared = { id: '', allowed: undefined, attempts: 0 };
  /** `from` of the offset beside becomes that of the whole epoch in the flip, if what it folds had been brought back before. */
  const notedRefilled = (refilled: Refilled | undefined): Record<string, string> => ({
    refilled: refilled ? JSON.stringify(refilled) : '',
  });
  const store = new RedisStateStore(
    client,
    'cache',
    besideKeys,
    notingEffects(() => compared.id),
    { beside: { record: record.key, standing: () => record.standing } },
  );
  // Its lease is of who works there, and not of what stands there.
  const spared = [offsets[1], besideKeys.lease('cache')];
  const comparing = (shown: Shown): CacheComparison =>
    new CacheComparison({ client, prefixes: [a, b], keys: [...offsets, record.key], standing: record.standing }, shown);
  const compareOnce = async (steering: Steering): Promise<Comparison> => {
    const ask = asking(steering);
    // From the next commit on everything is noted. A beginning whose answer was lost may still come: it is another one, and no flip believes it.
    const begin = (): Promise<unknown> => {
      compared = { id: randomUUID(), allowed: undefined, attempts: 0 };
      return beginScript.run(client, [record.key, offsets[0]], [record.standing, a, b, compared.id]);
    };
    const due = answered(await steering.still(() => ask(begin)));
    // It is due, too, when another process has folded since, as one does that goes on with what a command has left: that is no reason to tell.
    const why = due === dueTo.table ? `again, since ${again}: ` : '';
    const { signal, log } = steering;
    const comparison = comparing({ signal, log, progress: (text) => steering.progress(`${why}${text}`) });
    await comparison.run();
    const end = [record.standing, b, compared.id, comparison.pages];
    const changing = answered(await ask(() => endScript.run(client, [record.key], end)));
    compared.allowed = changing + slack;
    return { ...comparison.comparison, changing, pauseMs: pauseOf(changing) };
  };
  return {
    name: 'cache',
    store,
    follows: false,
    status: () => record.status({ beside: offsets[1], live: offsets[0] }),
    begin: (refilled) => record.begin(offsets[1], notedRefilled(refilled)),
    claim: (found) => record.claim(found),
    async clear(refilled, progress) {
      await record.set(notedRefilled(refilled));
      if (!record.empty) await record.wipe(b, ['*'], { spared, ...(progress && { progress }) });
      await record.restart(offsets[1]);
    },
    holes: () => holesAt(client, offsets[1]),
    compare: (steering) => inOneProcess(client, asking(steering), () => compareOnce(steering)),
    async flip(steering) {
      for (;;) {
        const args = [a, b, compared.id, randomUUID(), compared.allowed ?? ''];
        const outcome = await runFlip(record, flipScript, [...offsets, record.key], args, ['large'] as const);
        if (outcome !== 'large') return outcome;
        // It has been waited for, and what was changed meanwhile has been noted. Nothing is committed beside now, so that the live one comes to the same.
        compared.attempts++;
        await comparing(steering).settle();
        const rows = answered(await changingScript.run(client, [record.key], [record.standing, b]));
        if (compared.allowed === undefined || (rows <= compared.allowed && compared.attempts < mostAttempts)) continue;
        steering.pausing?.({ rows, ms: pauseOf(rows) });
        compared.allowed = compared.attempts < mostAttempts ? rows + slack : undefined;
      }
    },
    async remove(signal, progress) {
      await record.drop();
      await record.wipe(b, ['*'], { signal, spared, ...(progress && { progress }) });
      signal.throwIfAborted();
      await record.forget(offsets[1]);
    },
  };
}

function asking(steering: Steering): Ask {
  return (attempt) => untilRedisAnswers(attempt, steering);
}

/** The number that a script has answered. */
function answered(answer: unknown): number {
  if (Buffer.isBuffer(answer) && answer.toString() === 'overtaken') throw overtaken('cache');
  if (typeof answer !== 'number') throw unexpectedAnswer('a comparison', answer);
  return answer;
}
