import { RedisScript, unexpectedAnswer, type RedisClient } from '../../../pipeline/clients/redis.ts';
import type { EventLog, Seq } from '../../../pipeline/log/event-log.ts';
import { microsOf } from '../../../pipeline/runner/event-head.ts';
import type { RedisKeys } from '../../../pipeline/runner/redis-keys.ts';
import type { Offset } from '../../../pipeline/runner/state-store.ts';
import type { Definition, Micros } from '../model.ts';
import { aggregateKeys } from './keys.ts';
import { processorName } from './registry.ts';

/** Everything of a namespace but the offset, the lease, and from where on changes are remembered. */
export const statePatterns: readonly string[] = ['[^lof]*'];

/** KEYS: offset; ARGV: prefix, expected seq and epoch, new seq and epoch, where the gap ends. Answers where it begins. */
const skipScript = new RedisScript(`#!lua
local stored = redis.call('HMGET', KEYS[1], 'seq', 'epoch')
if stored[1] ~= ARGV[2] or stored[2] ~= ARGV[3] then return false end
local prefix, start = ARGV[1], redis.call('GET', ARGV[1] .. ':clock') or '0'
redis.call('RPUSH', prefix .. ':gaps', '[' .. start .. ',' .. ARGV[6] .. ']')
-- Sequences of another history compare with nothing.
redis.call('UNLINK', prefix .. ':changed')
redis.call('SET', prefix .. ':forgotten', ARGV[4])
redis.call('HSET', KEYS[1], 'seq', ARGV[4], 'epoch', ARGV[5])
return start`);

/**
 * Moves the offset over events that are lost, and remembers that those between the newest folded one and `end` are missing.
 * @returns when the newest folded one was committed; undefined when the offset is not the expected one
 */
export async function skipLost(
  client: RedisClient,
  keys: RedisKeys,
  { expected, next, end }: { readonly expected: Offset; readonly next: Offset; readonly end: Micros },
): Promise<Micros | undefined> {
  const args = [keys.prefix, expected.seq, expected.epoch, next.seq, next.epoch, end];
  const answer = await skipScript.run(client, [keys.offset(processorName)], args);
  if (answer === null) return undefined;
  if (Buffer.isBuffer(answer)) return Number(answer.toString());
  throw unexpectedAnswer('a skip', answer);
}

/**
 * Whoever has seen windows of this aggregate when the log ended at `last` begins anew: windows there may be other ones, and nothing tells
 * in which way. One more than `last`, since those who had seen everything are among them.
 */
export async function forgetChanges(client: RedisClient, keys: RedisKeys, last: Seq): Promise<void> {
  await client.set(aggregateKeys.forgotten(keys.prefix), last + 1);
}

/**
 * Remembers what a state lacks that was begun when the log no longer held everything: of `changes`, that all before the first folded event is missing;
 * of both, that windows may once have had more in them.
 */
export async function noteBeginning(client: RedisClient, keys: RedisKeys, eventLog: EventLog, of: Definition['of']): Promise<void> {
  const stored = await client.hget(keys.offset(processorName), 'from');
  const { first, last, epochStart } = await eventLog.bounds();
  const from = Number(stored ?? 0);
  // Rows are made anew with each history of the log, changes are kept. Once noted it stays so: nobody works between the first commit and this.
  if (from > (of === 'rows' ? epochStart : 1)) await client.set(aggregateKeys.forgotten(keys.prefix), last + 1, 'NX');
  const gaps = aggregateKeys.gaps(keys.prefix);
  if (of === 'rows' || from <= epochStart || (await client.exists(gaps)) === 1) return;
  const event = await eventLog.get(Math.max(from, first));
  const end = event && microsOf(event);
  if (end !== undefined) await client.rpush(gaps, JSON.stringify([0, end]));
}

/** Removes everything of a namespace, the offset last. Returns early when the signal fires. */
export async function removeNamespace(client: RedisClient, keys: RedisKeys, signal: AbortSignal): Promise<void> {
  let cursor = '0';
  do {
    const [next, found] = await client.scan(cursor, 'MATCH', `${keys.prefix}:*`, 'COUNT', 1_000);
    cursor = next;
    const offset = keys.offset(processorName);
    const others = found.filter((key) => key !== offset);
    if (others.length > 0) await client.unlink(...others);
  } while (cursor !== '0' && !signal.aborted);
  if (!signal.aborted) await client.unlink(keys.offset(processorName));
}
