import { createHash } from 'node:crypto';
import type { RedisClient } from '../../pipeline/clients/redis.ts';
import type { Seq } from '../../pipeline/log/event-log.ts';
import { RedisKeys } from '../../pipeline/runner/redis-keys.ts';
import { messageOf } from '../../pipeline/runtime/errors.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import type { PreparedQuery, QueryRows } from './model.ts';
import { within } from './service-patience.ts';

/** An answer that was kept, with what it says of itself: whether that still holds is for the reader to judge. */
export interface CachedAnswer extends Pick<QueryRows, 'items' | 'more'> {
  readonly epoch: string;
  /** Every event of that epoch up to here is in it. */
  readonly asOf: Seq;
  /** When the database was asked for it (ms since 1970, by the clock of that gateway). */
  readonly readAt: number;
}

/** Keeps answers. It never fails: what cannot be asked holds nothing. */
export interface QueryCache {
  /** As this process has it. Another node may have put a newer one. */
  near(key: string): CachedAnswer | undefined;
  get(key: string): Promise<CachedAnswer | undefined>;
  /** Returns at once; the answer may never be kept. */
  put(key: string, answer: CachedAnswer): void;
}

/**
 * The name of an answer in the cache: the same for all who may ask, since what may be kept is what everybody sees alike. Another
 * version of the table has other answers.
 */
export function cacheKey({ table, canonical }: PreparedQuery): string {
  return createHash('sha256')
    .update(JSON.stringify([table.name, table.version, canonical]))
    .digest('base64url');
}

const defaults = {
  /** A second net under the exact invalidation: no answer is older (ms). */
  timeToLiveMs: 60_000,
  /** Larger answers are not kept (bytes). */
  mostBytes: 256 * 1024,
  /** What this node keeps in Redis at most (bytes): a full Redis would stop the processors that share it. */
  budgetBytes: 64 * 1024 ** 2,
  /** What this process keeps in its own memory at most (bytes). */
  nearBytes: 32 * 1024 ** 2,
  /** How long an answer may take (ms). */
  patienceMs: 250,
  /** For how long it is not asked after it has failed (ms). */
  restMs: 250,
};

export interface RedisQueryCacheParts extends Partial<typeof defaults> {
  readonly client: RedisClient;
  readonly log: Logger;
  readonly keys?: RedisKeys;
}

/** A line of JSON, then the items, each ended by a byte that no JSON text of PostgreSQL holds. */
const separator = '\0';
/** How far the clocks of two gateways may be apart (ms). */
const clocksMs = 1_000;
const overheadBytes = 200;

/** Answers in Redis, and those used last in memory too. When Redis is away or slow it holds nothing. */
export class RedisQueryCache implements QueryCache {
  readonly #client: RedisClient;
  readonly #log: Logger;
  readonly #prefix: string;
  readonly #limits: typeof defaults;
  readonly #kept: KeptBytes;
  readonly #near: NearAnswers;
  #restUntil = -Infinity;
  #away = false;

  constructor({ client, log, keys = new RedisKeys(), ...limits }: RedisQueryCacheParts) {
    this.#client = client;
    this.#log = log;
    this.#prefix = `${keys.prefix}:query:`;
    this.#limits = { ...defaults, ...limits };
    this.#kept = new KeptBytes(this.#limits.budgetBytes);
    this.#near = new NearAnswers(this.#limits.nearBytes);
  }

  near(key: string): CachedAnswer | undefined {
    return this.#near.get(key);
  }

  async get(key: string): Promise<CachedAnswer | undefined> {
    if (performance.now() < this.#restUntil) return undefined;
    const text = await this.#inTime(this.#client.get(this.#prefix + key));
    const answer = typeof text === 'string' ? decodeAnswer(key, text) : undefined;
    const leftMs = answer ? this.#leftMs(answer) : 0;
    if (!answer || leftMs <= 0) return undefined;
    this.#near.set(key, answer, (text as string).length, performance.now() + leftMs);
    return answer;
  }

  put(key: string, answer: CachedAnswer): void {
    const now = performance.now();
    const leftMs = this.#leftMs(answer);
    const text = encodeAnswer(key, answer);
    const bytes = Buffer.byteLength(text);
    if (leftMs <= 0 || bytes > this.#limits.mostBytes) return;
    this.#near.set(key, answer, text.length, now + leftMs);
    if (now < this.#restUntil) return;
    if (!this.#kept.add(key, bytes + overheadBytes, now, now + leftMs)) return;
    void this.#inTime(this.#client.set(this.#prefix + key, text, 'PX', leftMs));
  }

  /** How long it may still be given (ms, whole); not at all if a clock is wrong. */
  #leftMs({ readAt }: CachedAnswer): number {
    const ageMs = Date.now() - readAt;
    return ageMs < -clocksMs ? 0 : Math.min(this.#limits.timeToLiveMs, Math.floor(this.#limits.timeToLiveMs - ageMs));
  }

  async #inTime<T>(asked: Promise<T>): Promise<T | undefined> {
    let answer: T | undefined;
    let failure = 'no answer in time';
    try {
      answer = await within(this.#limits.patienceMs, asked);
    } catch (error) {
      failure = messageOf(error);
    }
    const away = answer === undefined;
    if (away) this.#restUntil = performance.now() + this.#limits.restMs;
    if (away && !this.#away) this.#log.debug({ error: failure }, 'queries: Redis does not answer, so the database is asked');
    this.#away = away;
    return answer;
  }
}

function encodeAnswer(key: string, { epoch, asOf, readAt, more, items }: CachedAnswer): string {
  const head = JSON.stringify({ key, epoch, asOf, readAt, count: items.length, ...(more && { more }) });
  return `${head}\n${items.join(separator)}`;
}

/** Undefined for what was not written under this key, or not whole. */
function decodeAnswer(key: string, text: string): CachedAnswer | undefined {
  const end = text.indexOf('\n');
  let head: unknown;
  try {
    head = JSON.parse(text.slice(0, end));
  } catch {
    return undefined;
  }
  if (typeof head !== 'object' || head === null) return undefined;
  const { key: ofKey, epoch, asOf, readAt, count, more } = head as Readonly<Record<string, unknown>>;
  if (ofKey !== key || typeof epoch !== 'string' || !Number.isSafeInteger(asOf) || !isKeyset(more)) return undefined;
  if (typeof readAt !== 'number') return undefined;
  const items = count === 0 ? [] : text.slice(end + 1).split(separator);
  return items.length === count ? { epoch, asOf: asOf as Seq, readAt, more, items } : undefined;
}

function isKeyset(value: unknown): value is readonly (string | null)[] | undefined {
  return value === undefined || (Array.isArray(value) && value.every((each) => each === null || typeof each === 'string'));
}

/** Answers in memory, within a bound; the longest unused go first. */
class NearAnswers {
  readonly #most: number;
  #bytes = 0;
  readonly #answers = new Map<string, { readonly answer: CachedAnswer; readonly bytes: number; readonly expiresAt: number }>();

  constructor(most: number) {
    this.#most = most;
  }

  get(key: string): CachedAnswer | undefined {
    const entry = this.#answers.get(key);
    if (!entry || entry.expiresAt <= performance.now()) return undefined;
    this.#answers.delete(key);
    this.#answers.set(key, entry);
    return entry.answer;
  }

  /** @param characters of the whole answer as text; each takes up to two bytes, and one more in the body that is sent */
  set(key: string, answer: CachedAnswer, characters: number, expiresAt: number): void {
    const before = this.#answers.get(key);
    // What was asked of Redis may come after what was put meanwhile.
    if (before && before.answer.epoch === answer.epoch && before.answer.asOf > answer.asOf) return;
    this.#bytes -= before?.bytes ?? 0;
    this.#answers.delete(key);
    const bytes = 3 * characters + 40 * answer.items.length + overheadBytes;
    this.#answers.set(key, { answer, bytes, expiresAt });
    this.#bytes += bytes;
    for (const [oldest, entry] of this.#answers) {
      if (this.#bytes <= this.#most) return;
      this.#answers.delete(oldest);
      this.#bytes -= entry.bytes;
    }
  }
}

/** What was put and has not expired, in bytes, with a bound. */
class KeptBytes {
  readonly #most: number;
  #bytes = 0;
  /** In the order in which they expire. */
  readonly #entries = new Map<string, { readonly bytes: number; readonly expiresAt: number }>();

  constructor(most: number) {
    this.#most = most;
  }

  /** False when there is no room. */
  add(key: string, bytes: number, now: number, expiresAt: number): boolean {
    for (const [other, entry] of this.#entries) {
      if (entry.expiresAt > now) break;
      this.#remove(other, entry.bytes);
    }
    const before = this.#entries.get(key)?.bytes ?? 0;
    if (this.#bytes - before + bytes > this.#most) return false;
    if (before > 0) this.#remove(key, before);
    this.#entries.set(key, { bytes, expiresAt });
    this.#bytes += bytes;
    return true;
  }

  #remove(key: string, bytes: number): void {
    this.#entries.delete(key);
    this.#bytes -= bytes;
  }
}
