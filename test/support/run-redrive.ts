import { connectNats } from '../../pipeline/clients/nats.ts';
import { connectRedis } from '../../pipeline/clients/redis.ts';
import type { LogEvent } from '../../pipeline/log/event-log.ts';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import { JetStreamDeadLetters } from '../../pipeline/runner/jetstream-dead-letters.ts';
import type { Processor } from '../../pipeline/runner/processor.ts';
import { RedisKeys } from '../../pipeline/runner/redis-keys.ts';
import { RedisStateStore } from '../../pipeline/runner/redis-state-store.ts';
import { startRunner } from '../../pipeline/runner/runner.ts';
import { roleContext } from './role-context.ts';

/**
 * A program of its own that runs a processor whose effects show if one of them is made twice or not at all: each insert's sequence is appended to
 * a list, and what came before does not matter. It is poison to it that a row's number is a multiple of ten, unless it was corrected. It kills
 * itself at the given moment of its first redrive: `before` or `after` the commit, or when the letters are `removed` and the request is not. Its letters are
 * in a stream beside the log's, or with TEST_LETTERS=usual where commands look for them.
 */
const [natsUrl, redisUrl, stream, prefix, mode, death] = process.argv.slice(2);
if (!natsUrl || !redisUrl || !stream || !prefix || !mode)
  throw new Error('usage: run-redrive NATS REDIS STREAM PREFIX faulty|corrected [before|after|removed]');

const die = (): void => void process.kill(process.pid, 'SIGKILL');
const context = roleContext();
const connection = await connectNats(natsUrl, 'test', context.log);
const eventLog = await JetStreamLog.open(connection, { stream, subject: stream }, context.log);
const usual = process.env['TEST_LETTERS'] === 'usual';
const letters = await JetStreamDeadLetters.open(connection, usual ? {} : { stream: `${stream}DL`, subject: `${stream}DL` });
const ledger: Processor<number[]> = {
  name: 'ledger',
  redrive: { of: 'events' },
  begin: () => [],
  apply({ seq, subject, data }: LogEvent, effects) {
    if (!subject.endsWith('.insert')) return;
    const { key } = JSON.parse(Buffer.from(data).toString()) as { key: { id: number } };
    if (mode === 'faulty' && key.id % 10 === 0) throw new Error(`row ${key.id} is a multiple of ten`);
    effects.push(seq);
  },
};
const redis = await connectRedis(redisUrl, context.log);
const lua = `for i = first, #ARGV do redis.call('RPUSH', prefix .. ':ledger', ARGV[i]) end`;
const store = new RedisStateStore<number[]>(redis, ledger.name, new RedisKeys(prefix), { lua, encode: (effects) => effects });
const commit = store.commit.bind(store);
store.commit = async (effects, expected, next, holes) => {
  const redrives = next.redriven !== expected?.redriven;
  if (redrives && death === 'before') die();
  const outcome = await commit(effects, expected, next, holes);
  if (redrives && death === 'after') die();
  return outcome;
};
const { redrives } = letters;
const finish = redrives.finish.bind(redrives);
redrives.finish = async (processor, request, results) => {
  // Another place: all is removed but the request.
  await finish(processor, death === 'removed' ? { ...request, place: 2 ** 40 } : request, results);
  if (death === 'removed') die();
};
const role = startRunner(
  { ...context, config: { ...context.config, subject: stream } },
  { eventLog, processor: ledger, store, deadLetters: letters, leaseMs: 400 },
);
process.stdout.write(`${JSON.stringify({ pid: process.pid })}\n`);
await role.done;
