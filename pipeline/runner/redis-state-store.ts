import { randomUUID } from 'node:crypto';
import { RedisScript, unexpectedAnswer, type RedisClient } from '../clients/redis.ts';
import type { RedisKeys } from './redis-keys.ts';
import type { Seq } from '../log/event-log.ts';
import { standsLua } from './redis-lua.ts';
import { scanKeys } from './redis-scan.ts';
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

export interface RedisStateOptions {
  /** For the state that stands beside the live one. */
  readonly beside?: RedisStanding;
  /** Whether `RedisKeys.processors` names it (default: a live one is named). */
  readonly listed?: boolean;
}

/**
 * ARGV: prefix, expected seq and epoch ('' for none), new seq and epoch, name of a redrive or '', holes made and mended, expected namespace
 * ('' for the prefix), of a state beside what stands there and whether it must have a namespace, and the processor if it is listed; then the effects.
 */
const guarded = (effects: string): string => `#!lua
${standsLua}
local stored = redis.call('HMGET', KEYS[1], 'seq', 'epoch', 'namespace')
if KEYS[2] and (not stands(KEYS[2], ARGV[10]) or (ARGV[11] ~= '' and not stored[3])) then return 0 end
if (stored[1] or '') ~= ARGV[2] or (stored[2] or '') ~= ARGV[3] then return 0 end
if ARGV[2] ~= '' and (stored[3] or '') ~= ARGV[9] then return 0 end
local prefix, first = stored[3] or ARGV[1], 13
${effects}
redis.call('HSET', KEYS[1], 'seq', ARGV[4], 'epoch', ARGV[5])
if ARGV[2] == '' then redis.call('HSET', KEYS[1], 'from', ARGV[4] + 1) end
if ARGV[12] ~= '' then redis.call('SADD', ARGV[1] .. ':processors', ARGV[12]) end
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

/** In the place of an epoch: no log has it, so whoever finds it empties the state from its beginning. */
const beingEmptied = '(being emptied)';

/**
 * Begins to empty a state. KEYS: offset; ARGV: seq, epoch and namespace that it must have, which making it is from now on, and the epoch. Readers find no position then.
 */
const emptyScript = new RedisScript(`#!lua
local stored = redis.call('HMGET', KEYS[1], 'seq', 'epoch', 'namespace')
if stored[1] ~= ARGV[1] or stored[2] ~= ARGV[2] or (stored[3] or '') ~= ARGV[3] then return 0 end
redis.call('HDEL', KEYS[1], 'from')
redis.call('HSET', KEYS[1], 'making', ARGV[4], 'epoch', ARGV[5])
return 1`);

/** KEYS: offset, then what goes; ARGV: the making that must be there, and what it is called from now on, since it is another one with each key that goes. */
const unlinkScript = new RedisScript(`#!lua
if redis.call('HGET', KEYS[1], 'making') ~= ARGV[1] then return 0 end
redis.call('UNLINK', unpack(KEYS, 2))
redis.call('HSET', KEYS[1], 'making', ARGV[2])
return 1`);

/** Forgets how far a processor has come, but neither where its state is nor that it is another one than before. */
const forgetScript = new RedisScript(`#!lua
local stored = redis.call('HMGET', KEYS[1], 'namespace', 'making')
if stored[2] ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'making', stored[2])
if stored[1] then redis.call('HSET', KEYS[1], 'namespace', stored[1]) end
return 1`);

/** So many keys fit on the stack of a Lua call. */
export const mostUnlinked = 500;

/** State in Redis: one Lua call a batch compares the offset, carries the effects out and sets the new offset. */
export class RedisStateStore<Effects> implements StateStore<Effects> {
  /** One connection, which Redis answers in turn. */
  readonly ordered = true;
  readonly #client: RedisClient;
  readonly #processor: string;
  readonly #keys: RedisKeys;
  readonly #effects: RedisEffects<Effects>;
  readonly #commit: RedisScript;
  readonly #beside: RedisStanding | undefined;
  readonly #listed: boolean;

  constructor(
    client: RedisClient,
    processor: string,
    keys: RedisKeys,
    effects: RedisEffects<Effects>,
    { beside, listed = beside === undefined }: RedisStateOptions = {},
  ) {
    this.#client = client;
    this.#processor = processor;
    this.#keys = keys;
    this.#effects = effects;
    this.#commit = new RedisScript(guarded(effects.lua));
    this.#beside = beside;
    this.#listed = listed;
  }

  async offset(): Promise<Offset | undefined> {
    return readOffset(this.#client, this.#keys.offset(this.#processor));
  }

  async commit(effects: Effects, expected: Offset | undefined, next: Offset, holes?: Holes): Promise<CommitOutcome> {
    const redriven = next.redriven === expected?.redriven ? '' : (next.redriven ?? '');
    const beside = this.#beside;
    const standing = beside ? [beside.standing(), beside.namespaced ? 1 : ''] : ['', ''];
    const about = [
      redriven,
      holes?.made.join() ?? '',
      holes?.mended.join() ?? '',
      expected?.namespace ?? '',
      ...standing,
      this.#listed ? this.#processor : '',
    ];
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
   * Deletes the state under these patterns, and the offset last. Interrupted, an offset is found that fits no log, so that it is done again. Each step looks at the offset, so
   * that whoever has been asleep deletes nothing of what another instance has made since, or a flip has brought.
   * @param expected of the state that is to go
   * @returns false when there is another one by now, which is left as it is
   */
  async wipe(patterns: readonly string[], expected: Offset): Promise<boolean> {
    const offset = this.#keys.offset(this.#processor);
    const id = randomUUID();
    let pages = 0;
    const making = (): string => `${id}.${pages}`;
    const { seq, epoch, namespace } = expected;
    const run = async (script: RedisScript, keys: readonly string[], args: readonly (string | number)[]): Promise<boolean> => {
      const answer = await script.run(this.#client, [offset, ...keys], args);
      if (answer !== 0 && answer !== 1) throw unexpectedAnswer('an emptying', answer);
      return answer === 1;
    };
    if (!(await run(emptyScript, [], [seq, epoch, namespace ?? '', making(), beingEmptied]))) return false;
    for (const pattern of patterns) {
      for await (const keys of scanKeys(this.#client, namespace ?? this.#keys.prefix, pattern)) {
        for (let at = 0; at < keys.length; at += mostUnlinked) {
          const before = making();
          pages++;
          if (!(await run(unlinkScript, keys.slice(at, at + mostUnlinked), [before, making()]))) return false;
        }
      }
    }
    return run(forgetScript, [], [making()]);
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
