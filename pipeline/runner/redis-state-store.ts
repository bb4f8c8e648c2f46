import { RedisScript, unexpectedAnswer, type RedisClient } from '../clients/redis.ts';
import type { RedisKeys } from './redis-keys.ts';
import type { Seq } from '../log/event-log.ts';
import type { CommitOutcome, Holes, Offset, StateStore } from './state-store.ts';

/** How a processor's effects become Redis commands. */
export interface RedisEffects<Effects> {
  /**
   * Lua that carries the effects out. It sees `prefix` (the namespace, which is another one after a rebuild) and `ARGV[first]…`, and must not fail half-way:
   * Redis does not undo.
   */
  readonly lua: string;
  /** The arguments that `lua` finds from `ARGV[first]` on. */
  encode(effects: Effects): (string | number | Buffer)[];
}

/** A state beside the live one: it is changed only while the record of what stands there says that it is the same one still. */
export interface RedisStanding {
  /** Key of the record, a hash with `state` and `making`. */
  readonly record: string;
  /** `<state>:<making>`. */
  readonly standing: () => string;
  /** Its offset says in `namespace` where it is; without that nobody knows. */
  readonly namespaced?: boolean;
}

/**
 * ARGV: prefix, expected seq and epoch ('' for none), new seq and epoch, name of a redrive or '', holes made and mended, expected namespace
 * ('' for the prefix), and of a state beside what stands there and whether it must have a namespace; then the effects.
 */
const guarded = (effects: string): string => `#!lua
local stored = redis.call('HMGET', KEYS[1], 'seq', 'epoch', 'namespace')
if KEYS[2] then
  local record = redis.call('HMGET', KEYS[2], 'state', 'making')
  if (record[1] or '') .. ':' .. (record[2] or '') ~= ARGV[10] or (ARGV[11] ~= '' and not stored[3]) then return 0 end
end
if (stored[1] or '') ~= ARGV[2] or (stored[2] or '') ~= ARGV[3] then return 0 end
if ARGV[2] ~= '' and (stored[3] or '') ~= ARGV[9] then return 0 end
local prefix, first = stored[3] or ARGV[1], 12
${effects}
redis.call('HSET', KEYS[1], 'seq', ARGV[4], 'epoch', ARGV[5])
if ARGV[2] == '' then redis.call('HSET', KEYS[1], 'from', ARGV[4] + 1) end
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'redriven', ARGV[6]) end
for seq in string.gmatch(ARGV[7], '%d+') do redis.call('HSET', KEYS[1], 'hole:' .. seq, '') end
for seq in string.gmatch(ARGV[8], '%d+') do redis.call('HDEL', KEYS[1], 'hole:' .. seq) end
return 1`;

const leaseScript = new RedisScript(`
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`);

const releaseScript = new RedisScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`);

/** Forgets how far a processor has come, but not where its state is. */
const forgetScript = new RedisScript(`#!lua
local namespace = redis.call('HGET', KEYS[1], 'namespace')
redis.call('DEL', KEYS[1])
if namespace then redis.call('HSET', KEYS[1], 'namespace', namespace) end
return 1`);

/** State in Redis: one Lua call a batch compares the offset, carries the effects out and sets the new offset. */
export class RedisStateStore<Effects> implements StateStore<Effects> {
  readonly #client: RedisClient;
  readonly #processor: string;
  readonly #keys: RedisKeys;
  readonly #effects: RedisEffects<Effects>;
  readonly #commit: RedisScript;
  readonly #beside: RedisStanding | undefined;

  /** @param beside for the state that stands beside the live one */
  constructor(client: RedisClient, processor: string, keys: RedisKeys, effects: RedisEffects<Effects>, beside?: RedisStanding) {
    this.#client = client;
    this.#processor = processor;
    this.#keys = keys;
    this.#effects = effects;
    this.#commit = new RedisScript(guarded(effects.lua));
    this.#beside = beside;
  }

  async offset(): Promise<Offset | undefined> {
    return readOffset(this.#client, this.#keys.offset(this.#processor));
  }

  async commit(effects: Effects, expected: Offset | undefined, next: Offset, holes?: Holes): Promise<CommitOutcome> {
    const redriven = next.redriven === expected?.redriven ? '' : (next.redriven ?? '');
    const beside = this.#beside;
    const standing = beside ? [beside.standing(), beside.namespaced ? 1 : ''] : ['', ''];
    const about = [redriven, holes?.made.join() ?? '', holes?.mended.join() ?? '', expected?.namespace ?? '', ...standing];
    const guard = [expected?.seq ?? '', expected?.epoch ?? '', next.seq, next.epoch, ...about];
    const answer = await this.#commit.run(
      this.#client,
      [this.#keys.offset(this.#processor), ...(beside ? [beside.record] : [])],
      [this.#keys.prefix, ...guard, ...this.#effects.encode(effects)],
    );
    if (answer === 1) return 'committed';
    if (answer === 0) return 'lost';
    throw unexpectedAnswer('a commit', answer);
  }

  async holes(seqs: readonly Seq[]): Promise<ReadonlySet<Seq>> {
    if (seqs.length === 0) return new Set();
    const found = await this.#client.hmget(this.#keys.offset(this.#processor), ...seqs.map((seq) => `hole:${seq}`));
    return new Set(seqs.filter((_, n) => found[n] != null));
  }

  /**
   * Deletes the state under these patterns, and the offset last: interrupted, it is still the old offset that is found.
   * Only for a state that nobody works on (the lease is held).
   */
  async wipe(patterns: readonly string[]): Promise<void> {
    const offset = this.#keys.offset(this.#processor);
    const namespace = await this.#client.hget(offset, 'namespace');
    for (const pattern of patterns) {
      for await (const keys of scanKeys(this.#client, namespace ?? this.#keys.prefix, pattern)) await this.#client.unlink(...keys);
    }
    await forgetScript.run(this.#client, [offset], []);
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
  const [seq, epoch, redriven, namespace] = await client.hmget(key, 'seq', 'epoch', 'redriven', 'namespace');
  if (seq == null || epoch == null) return undefined;
  return { seq: Number(seq), epoch, ...(redriven != null && { redriven }), ...(namespace != null && { namespace }) };
}

/** The keys `<prefix>:<pattern>` in pages, none of them empty; a key may be given twice. */
export async function* scanKeys(client: RedisClient, prefix: string, pattern: string): AsyncGenerator<string[], void, undefined> {
  let cursor = '0';
  do {
    const [next, keys] = await client.scan(cursor, 'MATCH', globOf(`${prefix}:`) + pattern, 'COUNT', 1_000);
    cursor = next;
    if (keys.length > 0) yield keys;
  } while (cursor !== '0');
}

/** Text as a glob-style pattern that matches it alone. */
function globOf(text: string): string {
  return text.replace(/[\\*?[\]]/g, '\\$&');
}
