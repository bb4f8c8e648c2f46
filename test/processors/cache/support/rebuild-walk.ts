import { expect } from 'chai';
import type { RedisClient } from '../../../../pipeline/clients/redis.ts';
import type { Seq } from '../../../../pipeline/log/event-log.ts';
import type { Beside } from '../../../../pipeline/runner/rebuild/model.ts';
import type { StateStore } from '../../../../pipeline/runner/state-store.ts';
import { HeadwaterError } from '../../../../pipeline/runtime/errors.ts';
import { cacheProcessor, type CacheEffects } from '../../../../processors/cache/fold.ts';
import { cacheBeside } from '../../../../processors/cache/rebuild.ts';
import { RedisRows } from '../../../../processors/cache/redis-rows.ts';
import { defaultCatalog } from '../../../../schemas/catalog.ts';
import { Random } from '../../../pipeline/capture/support/random.ts';
import { MemoryLog } from '../../../support/memory-log.ts';
import type { RedisNamespace } from '../../../support/redis-namespace.ts';
import { rowEvent } from '../../../support/row-events.ts';
import { unsteered } from '../../../support/unsteered.ts';
import { liveCache } from './cache-folds.ts';

const catalog = defaultCatalog();
const tables = ['t1', 't2', 't3'];
const ids = Array.from({ length: 8 }, (_, id) => `${id}`);
const mostFaults = 4;

/** What readers are to find: which event each row is of, and which tables are left out. */
interface Expected {
  readonly rows: ReadonlyMap<string, Seq>;
  readonly uncached: ReadonlySet<string>;
}

/**
 * A rebuild of a small cache under way, in which between any two calls of the command rows are written, deleted and truncated, tables turn out to be without primary key, both caches
 * go on by some events, Redis loses the last of what it was told, or another command takes over.
 */
export class Walk {
  readonly #redis: RedisNamespace;
  readonly #random: Random;
  readonly #seed: number;
  readonly #log = new MemoryLog();
  readonly #live: StateStore<CacheEffects>;
  readonly #client: RedisClient;
  readonly #truncates: boolean;
  readonly #keyless: boolean;
  #beside: Beside<CacheEffects> | undefined;
  /** Rows of the live cache that are as no event has made them. */
  #spoiled = new Set<string>();
  #dump: readonly (readonly [string, Buffer])[] = [];
  #faults = 0;
  #burdens = 0;
  /** Nothing else happens: it is happening, or the fold is held up. */
  #still = true;
  #trace: string[] = [];

  constructor(redis: RedisNamespace, seed: number) {
    this.#redis = redis;
    this.#random = new Random(seed);
    this.#seed = seed;
    this.#live = liveCache(redis);
    this.#client = this.#steppingClient();
    this.#truncates = this.#random.chance(0.7);
    this.#keyless = this.#random.chance(0.3);
  }

  async run(): Promise<void> {
    const random = this.#random;
    await this.#append(random.int(40, 99));
    if (random.chance(0.7)) await this.#burden('live');
    for (let n = random.int(1, 30); n > 0; n--) await this.#fold(this.#live, random.int(1, 8));
    await this.#spoil();
    const spoiled = this.#spoiled;
    this.#beside = cacheBeside(this.#client, this.#redis.keys);
    await this.#beside.begin();
    await this.#beside.clear();
    await this.#flip();
    this.#spoiled = new Set();
    await this.#requireRight('after the flip');
    await this.#claim();
    await this.#flip();
    // They are the former state's.
    this.#spoiled = spoiled;
    await this.#requireRight('after the way back');
  }

  /** Until it has been flipped, whatever happens. */
  async #flip(): Promise<void> {
    const steering = unsteered(new AbortController().signal);
    await this.#follow();
    this.#faults = 0;
    for (let n = 0; n < 100; n++) {
      const beside = this.#beside!;
      try {
        this.#still = false;
        await beside.compare(steering);
        await this.#step();
        for (let outcome = 'behind'; outcome === 'behind'; await this.#follow()) {
          this.#still = true;
          outcome = await beside.flip(steering);
          if (outcome === 'flipped') {
            this.#trace.push('FLIP');
            [this.#beside, this.#dump] = [undefined, []];
            return;
          }
        }
      } catch (error) {
        this.#still = true;
        if (!(error instanceof HeadwaterError) || error.code !== 'rebuild_overtaken') throw error;
        await this.#claim();
        await this.#follow();
      }
    }
    throw new Error(`it was never flipped ${this.#where('')}`);
  }

  async #follow(): Promise<void> {
    for (let seq = -1, next = 0; next !== seq;) {
      seq = next;
      if (this.#beside) await this.#fold(this.#beside.store, this.#random.int(1, 50));
      next = (await this.#beside?.store.offset())?.seq ?? 0;
    }
  }

  async #claim(): Promise<void> {
    const next = cacheBeside(this.#client, this.#redis.keys);
    const status = await next.status();
    if (status) await next.claim(status);
    else {
      await next.begin();
      await next.clear();
    }
    this.#beside = next;
  }

  /** What happens between two calls of the command. */
  async #step(): Promise<void> {
    if (this.#still) return;
    this.#still = true;
    const random = this.#random;
    for (let n = random.int(0, 2); n > 0; n--) {
      const chance = random.next();
      if (chance < 0.4) await this.#append(random.int(1, 6));
      else if (chance < 0.7) await this.#fold(this.#live, random.int(1, 6));
      else if (this.#beside) await this.#fold(this.#beside.store, random.int(1, 10));
    }
    if (random.chance(0.1)) await this.#burden(random.chance(0.5) ? 'live' : 'beside');
    const chance = random.next();
    if (chance < 0.05) await this.#remember();
    else if (chance < 0.1 && this.#faults < mostFaults) {
      this.#faults++;
      if (chance < 0.08) await this.#lose();
      else await this.#claim();
    }
    this.#still = false;
  }

  #steppingClient(): RedisClient {
    const { client } = this.#redis;
    return new Proxy(client, {
      get: (_, name) => {
        const found: unknown = Reflect.get(client, name);
        if (typeof found !== 'function') return found;
        if (name !== 'scan' && name !== 'sscan' && name !== 'scard') return found.bind(client) as unknown;
        return async (...args: unknown[]): Promise<unknown> => {
          await this.#step();
          // Small pages, so that much can happen in between.
          const asked = name === 'scan' ? [...args.slice(0, -1), 15] : args;
          return Reflect.apply(found, client, asked) as unknown;
        };
      },
    });
  }

  async #append(count: number): Promise<void> {
    for (let k = 0; k < count; k++) {
      const { head } = this.#log;
      await this.#log.append([this.#event(head + 1)], head);
    }
    this.#trace.push(`log ${this.#log.head}`);
  }

  #event(n: number): ReturnType<typeof rowEvent> {
    const random = this.#random;
    const [table, id, chance] = [random.pick(tables), random.pick(ids), random.next()];
    const key = { id };
    if (this.#truncates && chance < 0.05) return rowEvent(n, 'truncate', { table });
    if (chance < 0.25) return rowEvent(n, 'delete', { table, key, before: key });
    if (this.#keyless && chance < 0.26) return rowEvent(n, 'insert', { table: 't3', after: { id, n } });
    if (chance < 0.35) return rowEvent(n, 'update', { table, key, after: { id, n }, before: { id: random.pick(ids) } });
    return rowEvent(n, 'insert', { table, key, after: { id, n } });
  }

  async #fold(store: StateStore<CacheEffects>, most: number): Promise<void> {
    const expected = await store.offset();
    const from = expected?.seq ?? 0;
    const to = Math.min(this.#log.head, from + most);
    if (to === from) return;
    const processor = cacheProcessor(catalog);
    const effects = processor.begin();
    for (let seq = from + 1; seq <= to; seq++) processor.apply((await this.#log.get(seq))!, effects);
    const outcome = await store.commit(effects, expected, { seq: to, epoch: this.#log.epoch });
    this.#trace.push(`${store === this.#live ? 'live' : 'beside'} ${to} ${outcome}`);
  }

  /** A cache has rows of a large table to remove first, so that those of the small ones stay for some commits. */
  async #burden(which: 'live' | 'beside'): Promise<void> {
    const { client, keys } = this.#redis;
    const prefix = which === 'live' ? keys.prefix : `${keys.prefix}:rebuild:cache`;
    const dropped = `${++this.#burdens}:public.large`;
    await client.rpush(`${prefix}:dropped`, dropped);
    await client.sadd(`${prefix}:dropped:${dropped}`, ...Array.from({ length: 1_000 }, (_, key) => key));
  }

  async #remember(): Promise<void> {
    const { client, keys } = this.#redis;
    const all = await client.keys(`${keys.prefix}:*`);
    this.#dump = await Promise.all(all.map(async (key) => [key, await client.dumpBuffer(key)] as const));
  }

  async #lose(): Promise<void> {
    const { client, keys } = this.#redis;
    if (this.#dump.length === 0) return;
    const transaction = client.multi().unlink(...(await client.keys(`${keys.prefix}:*`)));
    for (const [key, dump] of this.#dump) transaction.restore(key, 0, dump);
    await transaction.exec();
    this.#trace.push('LOST');
  }

  async #spoil(): Promise<void> {
    const { client, keys } = this.#redis;
    const prefix = `${keys.prefix}:row:`;
    const all = (await client.keys(`${prefix}*`)).sort();
    for (let n = all.length > 0 ? this.#random.int(0, 3) : 0; n > 0; n--) {
      const key = this.#random.pick(all);
      const event = await client.hget(key, 'event');
      if (event === null) continue;
      if (this.#random.chance(0.5)) await client.hset(key, 'event', event.replace(/"n":\d+/, '"n":-1'));
      else await client.del(key);
      this.#spoiled.add(key.slice(prefix.length).replace(':', '/'));
    }
  }

  /** Now, and after each of some commits, with rows that come again and the last of what was to be removed. */
  async #requireRight(when: string): Promise<void> {
    await this.#requireSame(when);
    for (let n = 0; n < 16; n++) {
      await this.#append(this.#random.int(0, 4));
      await this.#fold(this.#live, this.#random.int(1, 6));
      await this.#requireSame(`${when}, ${n + 1} commits later`);
    }
  }

  async #requireSame(when: string): Promise<void> {
    const where = this.#where(when);
    const reader = new RedisRows(this.#redis.client, catalog, this.#redis.keys);
    const { rows, uncached } = await this.#expected((await this.#live.offset())?.seq ?? 0);
    for (const name of tables) {
      const table = `public.${name}`;
      expect(await reader.holds(table), `${table} ${where}`).to.equal(!uncached.has(table));
      const found = uncached.has(table) ? new Map<string, Seq>() : await this.#scanned(reader, table);
      for (const id of ids) {
        const row = `${table}/${id}`;
        if (this.#spoiled.has(row)) continue;
        expect(found.get(row), `scan: ${row} ${where}`).to.equal(rows.get(row));
        const answer = await reader.row(table, id);
        expect(answer.known === 'row' ? answer.seq : undefined, `${row} ${where}`).to.equal(rows.get(row));
      }
    }
  }

  async #scanned(reader: RedisRows, table: string): Promise<ReadonlyMap<string, Seq>> {
    const found = new Map<string, Seq>();
    for await (const page of reader.rows(table))
      for (const { seq, event } of page) {
        const { key } = JSON.parse(Buffer.from(event).toString()) as { key: { id: string } };
        found.set(`${table}/${key.id}`, seq);
      }
    return found;
  }

  /** The log, folded event by event into a map. */
  async #expected(to: Seq): Promise<Expected> {
    const [rows, uncached] = [new Map<string, Seq>(), new Set<string>()];
    const empty = (table: string): void => {
      for (const row of rows.keys()) if (row.startsWith(`${table}/`)) rows.delete(row);
    };
    const processor = cacheProcessor(catalog);
    for (let seq = 1; seq <= to; seq++) {
      const effects = processor.begin();
      processor.apply((await this.#log.get(seq))!, effects);
      for (const table of effects.uncached.keys()) {
        uncached.add(table);
        empty(table);
      }
      for (const [table, { truncated, rows: changed }] of effects.tables) {
        if (truncated !== undefined) empty(table);
        if (uncached.has(table)) continue;
        for (const [key, { event }] of changed) {
          if (event) rows.set(`${table}/${key}`, seq);
          else rows.delete(`${table}/${key}`);
        }
      }
    }
    return { rows, uncached };
  }

  #where(when: string): string {
    return `${when} (seed ${this.#seed}; ${this.#trace.slice(-15).join(', ')})`;
  }
}
