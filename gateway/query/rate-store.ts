import { RedisScript, type RedisClient } from '../../pipeline/clients/redis.ts';
import { messageOf } from '../../pipeline/runtime/errors.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import { within } from './service-patience.ts';

/** How often a key has asked in its window, with this time, and after how many ms the window ends. */
interface Counted {
  readonly current: number;
  readonly ttl: number;
}

export interface RateStoreParts {
  /** Without it, each process counts by itself. */
  readonly redis: RedisClient | undefined;
  /** Of the keys in Redis. */
  readonly prefix: string;
  readonly log: Logger;
}

/** Redis is waited for so long, then this process counts by itself (ms), and for a while does not ask again. */
const patienceMs = 200;
const absenceMs = 2_000;
/** Keys that a process counts at most; the oldest windows are forgotten first. */
const mostKeys = 100_000;

/** A script, so that a count without an end cannot be left behind. Returns the count after `ARGV[2]` more, and the ms until it ends. */
const increment = new RedisScript(`
local count = redis.call('INCRBY', KEYS[1], ARGV[2])
if count == tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return {count, redis.call('PTTL', KEYS[1])}`);

/** Requests of a key that are counted in one call. */
interface Together {
  count: number;
  readonly counted: Promise<Counted | undefined>;
}

/**
 * A store for @fastify/rate-limit. Counts the requests of a key in windows of time: in Redis for all gateways together. While one call is
 * under way for a key, those that come are counted together by the next. Without Redis requests go on, and each gateway counts by itself.
 * The counts of before are then not known: a key may get as much again as it had.
 */
export class RateStore {
  readonly #parts: RateStoreParts;
  readonly #local = new Map<string, { count: number; readonly endsAt: number }>();
  readonly #next = new Map<string, Together>();
  readonly #underWay = new Map<string, Promise<Counted | undefined>>();
  #awayUntil = 0;

  constructor(parts: RateStoreParts) {
    this.#parts = parts;
  }

  incr(key: string, done: (error: Error | null, counted?: Counted) => void, windowMs: number): void {
    void this.#tell(key, windowMs, done);
  }

  child(): this {
    return this;
  }

  async #tell(key: string, windowMs: number, done: (error: null, counted: Counted) => void): Promise<void> {
    done(null, await this.#count(key, windowMs));
  }

  async #count(key: string, windowMs: number): Promise<Counted> {
    if (!this.#parts.redis || performance.now() < this.#awayUntil) return this.#countHere(key, windowMs);
    let together = this.#next.get(key);
    if (!together) {
      together = { count: 0, counted: this.#countAll(key, windowMs) };
      this.#next.set(key, together);
    }
    const place = ++together.count;
    const all = await together.counted;
    return all ? { current: all.current - together.count + place, ttl: all.ttl } : this.#countHere(key, windowMs);
  }

  /** Counts all requests of a key that have come until the call before has ended; undefined when Redis does not answer. */
  async #countAll(key: string, windowMs: number): Promise<Counted | undefined> {
    await this.#underWay.get(key);
    const count = this.#next.get(key)?.count ?? 1;
    this.#next.delete(key);
    if (performance.now() < this.#awayUntil) return undefined;
    const asked = this.#ask(key, windowMs, count);
    this.#underWay.set(key, asked);
    try {
      return await asked;
    } finally {
      if (this.#underWay.get(key) === asked) this.#underWay.delete(key);
    }
  }

  async #ask(key: string, windowMs: number, count: number): Promise<Counted | undefined> {
    const { redis, prefix, log } = this.#parts;
    let error = `no answer within ${patienceMs} ms`;
    const asked = increment
      .run(redis!, [`${prefix}${key}`], [windowMs, count])
      .catch((reason: unknown) => void (error = messageOf(reason)));
    const answer = (await within(patienceMs, asked)) as [current: number, ttl: number] | undefined;
    if (answer) {
      this.#awayUntil = 0;
      return { current: answer[0], ttl: answer[1] };
    }
    if (this.#awayUntil === 0) log.warn({ error }, 'Redis does not count queries: each gateway counts by itself');
    this.#awayUntil = performance.now() + absenceMs;
    return undefined;
  }

  #countHere(key: string, windowMs: number): Counted {
    const now = performance.now();
    let window = this.#local.get(key);
    if (!window || window.endsAt <= now) {
      this.#local.delete(key);
      if (this.#local.size >= mostKeys) this.#local.delete(this.#local.keys().next().value!);
      window = { count: 0, endsAt: now + windowMs };
      this.#local.set(key, window);
    }
    window.count++;
    return { current: window.count, ttl: Math.ceil(window.endsAt - now) };
  }
}
