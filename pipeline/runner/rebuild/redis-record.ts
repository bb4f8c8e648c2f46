import { randomUUID } from 'node:crypto';
import type { Seq } from '../../log/event-log.ts';
import { RedisScript, unexpectedAnswer, type RedisClient } from '../../clients/redis.ts';
import type { RedisKeys } from '../redis-keys.ts';
import { standsLua } from '../redis-lua.ts';
import { scanKeys } from '../redis-scan.ts';
import { mostUnlinked } from '../redis-state-store.ts';
import type { Offset } from '../state-store.ts';
import type { BesideState, BesideStatus, FlipOutcome } from './model.ts';
import { overtaken } from './refusals.ts';

/**
 * Lua of a flip, in front of what it does: KEYS are the live offset, the one beside, the record; ARGV[1] is what stands beside, ARGV[2] the time of day, and
 * the last one how what is kept is to be named. Sets `live` and `beside`. Given twice, since the first answer was lost, it flips once.
 */
export const flipGuard = `${standsLua}
if stands(KEYS[3], 'kept:' .. ARGV[#ARGV]) then return 'flipped' end
if not stands(KEYS[3], ARGV[1]) then return 'overtaken' end
local live = redis.call('HMGET', KEYS[1], 'seq', 'epoch')
local beside = redis.call('HMGET', KEYS[2], 'seq', 'epoch')
if not beside[1] then return 'behind' end
if live[1] and live[2] == beside[2] and tonumber(live[1]) > tonumber(beside[1]) then return 'behind' end`;

/** Lua at the end of a flip. */
export const flipped = `
redis.call('HSET', KEYS[3], 'state', 'kept', 'since', ARGV[2], 'making', ARGV[#ARGV])
return 'flipped'`;

/** Lua in front of what changes something beside: KEYS[1] is the record, ARGV[1] what has to stand there. */
const mine = `#!lua
${standsLua}
if not stands(KEYS[1], ARGV[1]) then return 0 end`;

/**
 * KEYS: record, offset; ARGV: namespace of the offset or '', then fields and values of the record. Answers 2 when there is an offset: whoever removes a state forgets its offset last,
 * and with the record, so without either nothing is left of it.
 */
const beginScript = new RedisScript(`#!lua
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local left = redis.call('DEL', KEYS[2])
if ARGV[1] ~= '' then redis.call('HSET', KEYS[2], 'namespace', ARGV[1]) end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1 + left`);

/** ARGV: a field that must have the value behind it, or two empty ones, then fields and values. */
const setScript = new RedisScript(`${mine}
if ARGV[2] ~= '' and redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
return 1`);

/** KEYS: record, then what goes. */
const unlinkScript = new RedisScript(`${mine}
redis.call('UNLINK', unpack(KEYS, 2))
return 1`);

/** KEYS: record, offset, which forgets all but where its state is. */
const restartScript = new RedisScript(`${mine}
local namespace = redis.call('HGET', KEYS[2], 'namespace')
redis.call('DEL', KEYS[2])
if namespace then redis.call('HSET', KEYS[2], 'namespace', namespace) end
return 1`);

/** KEYS: record, others that go with it. */
const forgetScript = new RedisScript(`${mine}
redis.call('DEL', unpack(KEYS))
return 1`);

/**
 * What is noted of a state beside: hash `state`, `since`, `making`, and what the processor adds. `making` is random, and another one whenever somebody takes it
 * over or flips it: whatever is changed beside is changed in one call with a look at it, so that nobody goes on with what is not his any more.
 */
export class RedisRecord {
  readonly client: RedisClient;
  readonly name: string;
  readonly key: string;
  #standing = '';
  /** What it is called once it has been flipped. */
  #next = '';
  #empty = false;

  constructor(client: RedisClient, keys: RedisKeys, name: string) {
    this.client = client;
    this.name = name;
    this.key = `${keys.prefix}:rebuild:${name}`;
  }

  /** What this process works on, as scripts compare it. */
  get standing(): string {
    return this.#standing;
  }

  get next(): string {
    return this.#next;
  }

  /** This process has begun it where nothing was, and has put nothing there. */
  get empty(): boolean {
    return this.#empty;
  }

  get(field: string): Promise<string | null> {
    return this.client.hget(this.key, field);
  }

  /** @param offsets keys of the offset beside and of the live one, where that is asked for */
  async status(offsets: { readonly beside: string; readonly live?: string }): Promise<BesideStatus | undefined> {
    const [state, since, making] = await this.client.hmget(this.key, 'state', 'since', 'making');
    if (state == null || since == null) return undefined;
    const offset = await offsetAt(this.client, offsets.beside);
    const live = offsets.live === undefined ? undefined : await offsetAt(this.client, offsets.live);
    return { name: this.name, state: state as BesideState, since, making: making ?? '', offset, live };
  }

  /**
   * Notes a state that begins to be filled, with an offset that says nothing yet.
   * @throws HeadwaterError `rebuild_overtaken` (refused) when something stands there already
   */
  async begin(offset: string, fields: Readonly<Record<string, string>> = {}, namespace = ''): Promise<string> {
    const standing = { state: 'filling', since: new Date().toISOString(), making: randomUUID(), ...fields };
    const answer = await beginScript.run(this.client, [this.key, offset], [namespace, ...Object.entries(standing).flat()]);
    this.#require(answer === 2 ? 1 : answer);
    const making = this.#work('filling', standing.making);
    this.#empty = answer === 1;
    return making;
  }

  /**
   * Takes what stands there over: from now on nothing counts that anybody else does with it.
   * @param required a field and the value that it must have
   */
  async claim({ state, making: found }: BesideStatus, required: readonly [string, string] = ['', '']): Promise<string> {
    const making = randomUUID();
    this.#require(await setScript.run(this.client, [this.key], [`${state}:${found}`, ...required, 'making', making]));
    return this.#work(state, making);
  }

  /** From now on it is being removed. */
  async drop(): Promise<void> {
    const making = randomUUID();
    await this.set({ state: 'dropping', since: new Date().toISOString(), making });
    this.#work('dropping', making);
  }

  /** It is being removed, as a script has noted with this name. */
  dropped(making: string): void {
    this.#work('dropping', making);
  }

  /** Notes something more. */
  async set(fields: Readonly<Record<string, string>>): Promise<void> {
    this.#require(await setScript.run(this.client, [this.key], [this.#standing, '', '', ...Object.entries(fields).flat()]));
  }

  /** Removes the keys `<prefix>:<pattern>`, but not those that are spared. For each pattern all keys of Redis are looked at. */
  async wipe(prefix: string, patterns: readonly string[], { signal, spared = [], progress }: Wiping = {}): Promise<void> {
    let removed = 0;
    for (const [n, pattern] of patterns.entries()) {
      const onLook = (share: number): void => {
        signal?.throwIfAborted();
        const percent = Math.floor(((n + share) / patterns.length) * 100);
        progress?.(`emptying its place: ${percent} %, ${removed.toLocaleString('en-US')} keys found`);
      };
      for await (const found of scanKeys(this.client, prefix, pattern, { onLook })) {
        signal?.throwIfAborted();
        const keys = found.filter((key) => !spared.includes(key));
        for (let at = 0; at < keys.length; at += mostUnlinked)
          this.#require(await unlinkScript.run(this.client, [this.key, ...keys.slice(at, at + mostUnlinked)], [this.#standing]));
        removed += keys.length;
      }
    }
  }

  /** Forgets how far it has come: it begins to be filled. */
  async restart(offset: string): Promise<void> {
    this.#empty = false;
    this.#require(await restartScript.run(this.client, [this.key, offset], [this.#standing]));
  }

  /** Nothing stands there any more. */
  async forget(offset: string): Promise<void> {
    this.#require(await forgetScript.run(this.client, [this.key, offset], [this.#standing]));
  }

  #work(state: BesideState, making: string): string {
    this.#empty = false;
    this.#standing = `${state}:${making}`;
    this.#next = randomUUID();
    return making;
  }

  #require(answer: unknown): void {
    if (answer === 0) throw overtaken(this.name);
    if (answer !== 1) throw unexpectedAnswer('a rebuild', answer);
  }
}

interface Wiping {
  readonly signal?: AbortSignal;
  readonly spared?: readonly string[];
  /** Told how far it is. */
  readonly progress?: (text: string) => void;
}

/** The sequences of all events that the state of an offset lacks. */
export async function holesAt(client: RedisClient, offset: string): Promise<readonly Seq[]> {
  const found = new Set<Seq>();
  for (let cursor: string | undefined = '0'; cursor !== undefined;) {
    const [next, items]: [string, string[]] = await client.hscan(offset, cursor, 'MATCH', 'hole:*', 'COUNT', 1_000);
    for (let n = 0; n < items.length; n += 2) found.add(Number(items[n]!.slice('hole:'.length)));
    cursor = next === '0' ? undefined : next;
  }
  return [...found].sort((a, b) => a - b);
}

/** Runs a script of a flip; `args` follow what stands beside and the time of day. `more`: what it may answer besides. */
export async function runFlip<More extends string = never>(
  record: RedisRecord,
  script: RedisScript,
  keys: readonly string[],
  args: readonly (string | number)[],
  more: readonly More[] = [],
): Promise<FlipOutcome | More> {
  const answer = await script.run(record.client, keys, [record.standing, new Date().toISOString(), ...args, record.next]);
  const outcome = Buffer.isBuffer(answer) ? answer.toString() : '';
  if (outcome === 'overtaken') throw overtaken(record.name);
  const other = more.find((name) => name === outcome);
  if (other !== undefined) return other;
  if (outcome !== 'flipped' && outcome !== 'behind' && outcome !== 'compare') throw unexpectedAnswer('a flip', answer);
  return outcome;
}

async function offsetAt(client: RedisClient, key: string): Promise<Offset | undefined> {
  const [seq, epoch, namespace] = await client.hmget(key, 'seq', 'epoch', 'namespace');
  if (seq == null || epoch == null) return undefined;
  return { seq: Number(seq), epoch, ...(namespace != null && { namespace }) };
}
