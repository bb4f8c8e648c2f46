import { setTimeout as sleep } from 'node:timers/promises';
import { connectRedis } from '../../pipeline/clients/redis.ts';
import type { LogEvent } from '../../pipeline/log/event-log.ts';
import type { Processor } from '../../pipeline/runner/processor.ts';
import { RedisKeys } from '../../pipeline/runner/redis-keys.ts';
import { RedisStateStore } from '../../pipeline/runner/redis-state-store.ts';
import { startRunner } from '../../pipeline/runner/runner.ts';
import { FaultyLog } from './faulty-log.ts';
import { roleContext } from './role-context.ts';
import { rowEvent } from './row-events.ts';

/**
 * A program of its own that runs a processor whose effects show if one of them is made twice or not at all: each event's
 * sequence is appended to a list. Its log is the same in every process. Tests kill it.
 */
const [redisUrl, prefix, count] = process.argv.slice(2);
if (redisUrl === undefined || prefix === undefined || count === undefined) throw new Error('usage: run-ledger REDIS_URL PREFIX COUNT');

const log = new FaultyLog();
log.add(...Array.from({ length: Number(count) }, (_, i) => rowEvent(i + 1, 'insert', { key: { id: i + 1 }, after: { id: i + 1 } })));
const ledger: Processor<number[]> = {
  name: 'ledger',
  begin: () => [],
  apply: ({ seq }: LogEvent, effects) => void effects.push(seq),
};
const context = roleContext();
const redis = await connectRedis(redisUrl, context.log);
const lua = `for i = first, #ARGV do redis.call('RPUSH', prefix .. ':ledger', ARGV[i]) end`;
const store = new RedisStateStore<number[]>(redis, ledger.name, new RedisKeys(prefix), { lua, encode: (effects) => effects });
// Slow before and after the commit, so that kills meet a runner at all of its moments.
const commit = store.commit.bind(store);
store.commit = async (...batch) => {
  await sleep(2 * Math.random());
  const outcome = await commit(...batch);
  await sleep(2 * Math.random());
  return outcome;
};
const role = startRunner(context, {
  eventLog: log,
  processor: ledger,
  store,
  deadLetters: { publish: () => Promise.reject(new Error('none expected')) },
  leaseMs: 400,
  limits: { events: 20 },
});
process.stdout.write(`${JSON.stringify({ pid: process.pid })}\n`);
await role.done;
