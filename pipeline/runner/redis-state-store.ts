import { RedisScript, unexpectedAnswer, type RedisClient } from '../clients/redis.ts';
import type { RedisKeys } from './redis-keys.ts';
import type { CommitOutcome, Offset, StateStore } from './state-store.ts';

/** How a processor's effects become Redis commands. */
export interface RedisEffects<Effects> {
  /**
   * Lua that carries the effects out. It sees `prefix` (the namespace) and `ARGV[first]…`, and must not fail half-way:
   * Redis does not undo.
   */
  readonly lua: string;
  /** The arguments that `lua` finds from `ARGV[first]` on. */
  encode(effects: Effects): (string | number | Buffer)[];
}

/** ARGV: prefix, expected seq and epoch ('' for none), new seq and epoch, then the effects. */
const guarded = (effects: string): string => `#!lua
local stored = redis.call('HMGET', KEYS[1], 'seq', 'epoch')
if (stored[1] or '') ~= ARGV[2] or (stored[2] or '') ~= ARGV[3] then return 0 end
local prefix, first = ARGV[1], 6
${effects}
redis.call('HSET', KEYS[1], 'seq', ARGV[4], 'epoch', ARGV[5])
if ARGV[2] == '' then redis.call('HSET', KEYS[1], 'from', ARGV[4] + 1) end
return 1`;

const leaseScript = new RedisScript(`
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`);

const releaseScript = new RedisScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`);

/** State in Redis: one Lua call a batch compares the offset, carries the effects out and sets the new offset. */
export class RedisStateStore<Effects> implements StateStore<Effects> {
  readonly #client: RedisClient;
  readonly #processor: string;
  readonly #keys: RedisKeys;
  readonly #effects: RedisEffects<Effects>;
  readonly #commit: RedisScript;

  constructor(client: RedisClient, processor: string, keys: RedisKeys, effects: RedisEffects<Effects>) {
    this.#client = client;
    this.#processor = processor;
    this.#keys = keys;
    this.#effects = effects;
    this.#commit = new RedisScript(guarded(effects.lua));
  }

  async offset(): Promise<Offset | undefined> {
    return readOffset(this.#client, this.#keys.offset(this.#processor));
  }

  async commit(effects: Effects, expected: Offset | undefined, next: Offset): Promise<CommitOutcome> {
    const guard = [expected?.seq ?? '', expected?.epoch ?? '', next.seq, next.epoch];
    const answer = await this.#commit.run(
      this.#client,
      [this.#keys.offset(this.#processor)],
      [this.#keys.prefix, ...guard, ...this.#effects.encode(effects)],
    );
    if (answer === 1) return 'committed';
    if (answer === 0) return 'lost';
    throw unexpectedAnswer('a commit', answer);
  }

  /**
   * Deletes the state under these patterns, and the offset last: interrupted, it is still the old offset that is found.
   * Only for a state that nobody works on (the lease is held).
   */
  async wipe(patterns: readonly string[]): Promise<void> {
    for (const pattern of patterns) {
      let cursor = '0';
      do {
        const [next, keys] = await this.#client.scan(cursor, 'MATCH', globOf(`${this.#keys.prefix}:`) + pattern, 'COUNT', 1_000);
        cursor = next;
        if (keys.length > 0) await this.#client.unlink(...keys);
      } while (cursor !== '0');
    }
    await this.#client.del(this.#keys.offset(this.#processor));
  }

  async lease(owner: string, ttlMs: number): Promise<boolean> {
    return (await leaseScript.run(this.#client, [this.#keys.lease(this.#processor)], [owner, ttlMs])) === 1;
  }

  async release(owner: string): Promise<void> {
    await releaseScript.run(this.#client, [this.#keys.lease(this.#processor)], [owner]);
  }
}

/** The offset stored under a key, if there is one. */
async function readOffset(client: RedisClient, key: string): Promise<Offset | undefined> {
  const [seq, epoch] = await client.hmget(key, 'seq', 'epoch');
  return seq == null || epoch == null ? undefined : { seq: Number(seq), epoch };
}

/** Text as a glob-style pattern that matches it alone. */
function globOf(text: string): string {
  return text.replace(/[\\*?[\]]/g, '\\$&');
}
