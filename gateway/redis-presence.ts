import { setTimeout as sleep } from 'node:timers/promises';
import { RedisScript, unexpectedAnswer, type RedisClient } from '../pipeline/clients/redis.ts';
import { RedisKeys } from '../pipeline/runner/redis-keys.ts';
import { messageOf } from '../pipeline/runtime/errors.ts';
import type { Logger } from '../pipeline/runtime/logging.ts';
import type { ConnectionRecord, Presence } from './presence.ts';

/** How often a node writes what has changed, and reads what the others say. */
const flushEveryMs = 3_000;
/** A node that has not written for this long is taken for dead, with all its connections. */
const timeToLiveMs = 15_000;
/** A node that stops takes its records away, but waits no longer than this for it. */
const closePatienceMs = 500;

/*
 * Within the namespace:
 * - `gateways`: set of the nodes
 * - `gateways:<node>`: hash connection → JSON [key id, since, subscriptions]
 * - `gateways:<node>:keys`: hash key id → number of its connections
 * The two hashes of a node expire together. Nodes that are gone are taken out of the set by the others.
 */
const nodesKey = (keys: RedisKeys): string => `${keys.prefix}:gateways`;
const recordsKey = (keys: RedisKeys, node: string): string => `${nodesKey(keys)}:${node}`;

/**
 * One round trip writes a node's changes and reads the others' counts.
 * ARGV: node, time to live, `all` or `changes`, number of records set, each as connection and JSON, number of those
 * removed, each as connection, then key id and count of each key. Answers 0 when the records that the changes are to
 * are gone, else 1 and key id and count of each key of each other node.
 */
const flushScript = new RedisScript(`#!lua
local nodes, me, ttl = KEYS[1], ARGV[1], ARGV[2]
local records = nodes .. ':' .. me
local counts = records .. ':keys'
if ARGV[3] == 'all' then
  redis.call('DEL', records)
elseif redis.call('EXISTS', records) == 0 then
  return {0}
end
local i = 5
for n = 1, tonumber(ARGV[4]) do
  redis.call('HSET', records, ARGV[i], ARGV[i + 1])
  i = i + 2
end
local removed = tonumber(ARGV[i])
for n = 1, removed do redis.call('HDEL', records, ARGV[i + n]) end
i = i + removed + 1
redis.call('DEL', counts)
while ARGV[i] do
  redis.call('HSET', counts, ARGV[i], ARGV[i + 1])
  i = i + 2
end
if redis.call('PEXPIRE', records, ttl) == 1 then
  redis.call('PEXPIRE', counts, ttl)
  redis.call('SADD', nodes, me)
else
  redis.call('SREM', nodes, me)
end
local answer = {1}
for _, node in ipairs(redis.call('SMEMBERS', nodes)) do
  if node ~= me then
    local theirs = redis.call('HGETALL', nodes .. ':' .. node .. ':keys')
    if #theirs == 0 then redis.call('SREM', nodes, node) end
    for n = 1, #theirs do answer[#answer + 1] = theirs[n] end
  end
end
return answer`);

/** What presence in Redis stands on. */
export interface RedisPresenceParts {
  readonly client: RedisClient;
  /** This node's name, unlike that of any other. */
  readonly node: string;
  readonly log: Logger;
  readonly keys?: RedisKeys;
}

/** Connections listed in Redis. Changes are gathered and written every few seconds; without Redis they just wait. */
export class RedisPresence implements Presence {
  readonly #client: RedisClient;
  readonly #node: string;
  readonly #log: Logger;
  readonly #keys: RedisKeys;
  readonly #records = new Map<string, ConnectionRecord>();
  /** Connections of each key on this node. */
  readonly #counts = new Map<string, number>();
  #changed = new Set<string>();
  #elsewhere: ReadonlyMap<string, number> = new Map();
  /** Whether Redis has all records but the changed ones. */
  #whole = false;
  #flushing: Promise<void> | undefined;
  readonly #timer: NodeJS.Timeout;

  constructor({ client, node, log, keys = new RedisKeys() }: RedisPresenceParts) {
    this.#client = client;
    this.#node = node;
    this.#log = log;
    this.#keys = keys;
    this.#timer = setInterval(() => void this.flush(), flushEveryMs).unref();
  }

  set(record: ConnectionRecord): void {
    const { connection, keyId } = record;
    const before = this.#records.get(connection);
    if (before?.keyId !== keyId) {
      if (before) this.#count(before.keyId, -1);
      this.#count(keyId, 1);
    }
    this.#records.set(connection, record);
    this.#changed.add(connection);
  }

  remove(connection: string): void {
    const before = this.#records.get(connection);
    if (!before) return;
    this.#count(before.keyId, -1);
    this.#records.delete(connection);
    this.#changed.add(connection);
  }

  elsewhere(keyId: string): number {
    return this.#elsewhere.get(keyId) ?? 0;
  }

  /** Writes the changes now, unless that is under way. Never rejects. */
  flush(): Promise<void> {
    return (this.#flushing ??= this.#flush().finally(() => (this.#flushing = undefined)));
  }

  /** Takes this node's records away, if Redis is there to do it; otherwise they expire. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    for (const connection of [...this.#records.keys()]) this.remove(connection);
    await Promise.race([(this.#flushing ?? Promise.resolve()).then(() => this.flush()), sleep(closePatienceMs, undefined, { ref: false })]);
  }

  #count(keyId: string, change: 1 | -1): void {
    const count = (this.#counts.get(keyId) ?? 0) + change;
    if (count > 0) this.#counts.set(keyId, count);
    else this.#counts.delete(keyId);
  }

  async #flush(): Promise<void> {
    const changed = this.#changed;
    this.#changed = new Set();
    try {
      const answer = (this.#whole && (await this.#write(changed))) || (await this.#write(undefined));
      if (!answer) throw unexpectedAnswer('a list of connections', answer);
      // An empty hash does not exist: the next changes are written as the whole.
      this.#whole = this.#records.size > 0;
      this.#elsewhere = sumOf(answer);
    } catch (error) {
      this.#whole = false;
      this.#elsewhere = new Map();
      this.#log.debug({ error: messageOf(error) }, 'the connections of this node could not be listed in Redis');
    }
  }

  /** Writes what has changed, or everything. Gives the counts of the other nodes, or undefined when changes found nothing to change. */
  async #write(changed: ReadonlySet<string> | undefined): Promise<readonly string[] | undefined> {
    const [set, removed]: [string[], string[]] = [[], []];
    for (const connection of changed ?? this.#records.keys()) {
      const record = this.#records.get(connection);
      if (record) set.push(connection, JSON.stringify([record.keyId, record.since, record.subscriptions]));
      else removed.push(connection);
    }
    const counts = [...this.#counts].flat();
    const mode = changed ? 'changes' : 'all';
    const args = [this.#node, timeToLiveMs, mode, set.length / 2, ...set, removed.length, ...removed, ...counts];
    const answer = await flushScript.run(this.#client, [nodesKey(this.#keys)], args);
    if (!Array.isArray(answer)) throw unexpectedAnswer('a list of connections', answer);
    const [done, ...theirs] = answer as [number, ...Buffer[]];
    return done === 1 ? theirs.map(String) : undefined;
  }
}

function sumOf(pairs: readonly string[]): ReadonlyMap<string, number> {
  const sums = new Map<string, number>();
  for (let i = 0; i + 1 < pairs.length; i += 2) sums.set(pairs[i]!, (sums.get(pairs[i]!) ?? 0) + Number(pairs[i + 1]));
  return sums;
}

/** The connections that the gateways have listed, some seconds old. */
export async function listedConnections(client: RedisClient, keys: RedisKeys = new RedisKeys()): Promise<readonly ConnectionRecord[]> {
  const found: ConnectionRecord[] = [];
  for (const node of await client.smembers(nodesKey(keys))) {
    for (const [connection, text] of Object.entries(await client.hgetall(recordsKey(keys, node)))) {
      const [keyId, since, subscriptions] = JSON.parse(text) as [string, number, number];
      found.push({ connection, keyId, since, subscriptions });
    }
  }
  return found;
}
