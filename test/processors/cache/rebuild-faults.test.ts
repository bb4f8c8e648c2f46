import { expect } from 'chai';
import type { RedisClient } from '../../../pipeline/clients/redis.ts';
import type { NewEvent } from '../../../pipeline/log/event-log.ts';
import { unfitOffset } from '../../../pipeline/runner/mending.ts';
import type { Beside, Steering } from '../../../pipeline/runner/rebuild/model.ts';
import { rebuildable } from '../../../pipeline/runner/rebuild/rebuild.ts';
import { RedisStateStore } from '../../../pipeline/runner/redis-state-store.ts';
import { startRunner } from '../../../pipeline/runner/runner.ts';
import { sameOffset } from '../../../pipeline/runner/state-store.ts';
import type { Role } from '../../../pipeline/runtime/lifecycle.ts';
import { cacheProcessor, type CacheEffects } from '../../../processors/cache/fold.ts';
import { cacheBeside } from '../../../processors/cache/rebuild.ts';
import { cachePatterns, redisCache } from '../../../processors/cache/redis-cache.ts';
import { RedisRows } from '../../../processors/cache/redis-rows.ts';
import { defaultCatalog, entryFor, type Catalog } from '../../../schemas/catalog.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { redisNamespace, type RedisNamespace } from '../../support/redis-namespace.ts';
import { roleContext, until } from '../../support/role-context.ts';
import { rowEvent } from '../../support/row-events.ts';
import { unsteered } from '../../support/unsteered.ts';

const table = 'public.prices';
const catalog = defaultCatalog();
const noLetters = { publish: () => Promise.reject(new Error('no event of this test is poison')) };

const price = (n: number, id: number, op = 'insert'): NewEvent =>
  op === 'delete'
    ? rowEvent(n, op, { key: { id: `${id}` }, before: { id: `${id}` } })
    : rowEvent(n, op, { key: { id: `${id}` }, after: { id: `${id}`, n } });

describe('rebuild of the cache, when something happens between comparison and flip', () => {
  let redis: RedisNamespace;
  let log: MemoryLog;
  let stop: AbortController;
  let live: Role | undefined;
  let steering: Steering;
  before(async () => {
    redis = await redisNamespace();
  });
  beforeEach(async () => {
    await redis.empty();
    log = new MemoryLog();
    stop = new AbortController();
    steering = unsteered(stop.signal);
  });
  afterEach(async () => {
    stop.abort();
    await live?.stop();
    live = undefined;
  });
  after(() => redis.close());

  const append = (events: readonly NewEvent[]): Promise<number> => log.append(events, log.head);
  const liveStore = (client = redis.client): RedisStateStore<CacheEffects> => new RedisStateStore(client, 'cache', redis.keys, redisCache);
  const rows = (of = catalog): RedisRows => new RedisRows(redis.client, of, redis.keys);

  async function appendRows(count: number, op?: string): Promise<void> {
    for (let id = 0; id < count; id += 500) await append(Array.from({ length: 500 }, (_, n) => price(log.head + 1 + n, id + n, op)));
  }

  /** The live role, until it has come to the log's end; it goes on unless it is stopped. */
  async function startLive(): Promise<Role> {
    const store = liveStore();
    live = startRunner(roleContext(stop.signal), {
      eventLog: log,
      deadLetters: noLetters,
      store,
      processor: cacheProcessor(catalog),
      mend: async () => {
        const expected = await unfitOffset('cache', store, log);
        return !expected || (await store.wipe(cachePatterns, expected)) || true;
      },
    });
    const atEnd = async (): Promise<boolean> => sameOffset(await store.offset(), { seq: log.head, epoch: log.epoch });
    await until(atEnd, 30_000, 'the end of the log');
    return live;
  }

  async function rebuild(flip: boolean, of: Catalog = catalog): Promise<void> {
    const beside = cacheBeside(redis.client, redis.keys);
    const parts = { eventLog: log, deadLetters: noLetters, beside, processor: cacheProcessor(of) };
    expect((await rebuildable(roleContext(stop.signal), parts).rebuild({ flip })).flipped).to.equal(flip);
  }

  async function claimed(client: RedisClient = redis.client): Promise<Beside<CacheEffects>> {
    const beside = cacheBeside(client, redis.keys);
    await beside.claim((await beside.status())!);
    return beside;
  }

  /** Each row that readers see, and its `n`. */
  async function seen(of = catalog): Promise<Map<string, number>> {
    const found = new Map<string, number>();
    for await (const page of rows(of).rows(table)) {
      for (const { event } of page) {
        const { key, after } = JSON.parse(Buffer.from(event).toString()) as { key: { id: string }; after: { n: number } };
        found.set(key.id, after.n);
      }
    }
    return found;
  }

  /** A client that does something else first whenever a page of keys is asked for. */
  function scanning(first: (pattern: string, nth: number) => Promise<void>): RedisClient {
    let nth = 0;
    return new Proxy(redis.client, {
      get(client, name) {
        const found: unknown = Reflect.get(client, name);
        if (name === 'scan')
          return async (...args: [string, 'MATCH', string, 'COUNT', number]) => {
            await first(args[2], ++nth);
            return client.scan(...args);
          };
        return typeof found === 'function' ? (found.bind(client) as unknown) : found;
      },
    });
  }

  /** Everything as it is now; the function brings it back, as a Redis does that has lost what it was told since. */
  async function remembered(): Promise<() => Promise<void>> {
    const { client, keys } = redis;
    const all = async (): Promise<string[]> => client.keys(`${keys.prefix}:*`);
    const dumps = await Promise.all((await all()).map(async (key) => [key, await client.dumpBuffer(key)] as const));
    return async () => {
      const transaction = client.multi().unlink(...(await all()));
      for (const [key, dump] of dumps) transaction.restore(key, 0, dump);
      await transaction.exec();
    };
  }

  async function spoilRow(id: number): Promise<void> {
    const key = `${redis.keys.prefix}:row:${table}:${id}`;
    const event = await redis.client.hget(key, 'event');
    await redis.client.hset(key, 'event', event!.replace(/"n":\d+/, '"n":-1'));
  }

  for (const moment of ['after the comparison', 'while it is compared'])
    it(`leaves no wrong row when Redis loses the last of its writes ${moment}`, async () => {
      await appendRows(500);
      await (await startLive()).stop();
      const right = await seen();
      await rebuild(false);
      await spoilRow(7);
      let [lose, lost]: [(() => Promise<void>) | undefined, boolean] = [undefined, false];
      const client = scanning(async (pattern) => {
        lose ??= await remembered();
        if (lost || moment.startsWith('after') || pattern.includes('rebuild')) return;
        await lose();
        lost = true;
      });
      const beside = await claimed(client);
      expect((await beside.compare(steering)).differences).to.equal(1);
      if (moment.startsWith('after')) await lose!();
      expect(await beside.flip(steering)).to.equal('compare');
      await beside.compare(steering);
      expect(await beside.flip(steering)).to.equal('flipped');
      expect(await seen()).to.deep.equal(right);
    });

  it('does not bring rows back that were deleted while their table was left out', async () => {
    await appendRows(2_000);
    const mark = { v: 1, data: { phase: 'begin', table, large: true } };
    await append([{ subject: 'ev._mark.backfill', data: Buffer.from(JSON.stringify(mark)) }]);
    const deleted = Array.from({ length: 100 }, (_, id) => id);
    await append(deleted.map((id, n) => price(log.head + 1 + n, id, 'delete')));
    await (await startLive()).stop();
    const litter = await Promise.all(deleted.map((id) => redis.client.hexists(`${redis.keys.prefix}:row:${table}:${id}`, 'event')));
    expect(litter, 'hashes that are still to be removed').to.include(1);

    const held: Catalog = { ...catalog, tables: new Map([[table, { ...entryFor(catalog, 'public', 'prices'), cache: true }]]) };
    await rebuild(true, held);
    const answers = await Promise.all(deleted.map(async (id) => (await rows(held).row(table, `${id}`)).known));
    expect(new Set(answers)).to.deep.equal(new Set(['absent']));
    expect((await seen(held)).size).to.equal(1_900);
  });

  it('compares again when the live cache has left a table out by itself', async () => {
    await appendRows(500);
    await (await startLive()).stop();
    const right = await seen();
    await rebuild(false);
    const beside = await claimed();
    await beside.compare(steering);
    const stored = (await liveStore().offset())!;
    const effects: CacheEffects = { ...cacheProcessor(catalog).begin(), uncached: new Map([[table, stored.seq]]) };
    expect(await liveStore().commit(effects, stored, stored)).to.equal('committed');
    expect(await beside.flip(steering)).to.equal('compare');
    await beside.compare(steering);
    expect(await beside.flip(steering)).to.equal('flipped');
    expect(await seen()).to.deep.equal(right);
  });

  describe('or while the live cache is emptied', () => {
    /** A cache whose log has begun anew, with a copy of all rows. */
    async function outdated(): Promise<void> {
      await appendRows(3_000);
      await (await startLive()).stop();
      [log.epoch, log.epochStart] = ['epoch-2', log.head + 1];
      await appendRows(3_000, 'read');
    }

    async function requireWhole(): Promise<void> {
      const found = await seen();
      expect(found.size).to.equal(3_000);
      expect([...found.values()].filter((n) => n < log.epochStart)).to.deep.equal([]);
    }

    it('has all rows, whenever the role is killed that empties it', async () => {
      await outdated();
      await rebuild(false);
      const beside = await claimed();
      let flips = 0;
      const dying = scanning(async (_pattern, nth) => {
        if (nth === 2) await beside.compare(steering);
        // What has gone since the comparison saw it is not taken for what the comparison saw.
        if (nth === 3) for (flips = 1; (await beside.flip(steering)) !== 'flipped'; flips++) await beside.compare(steering);
        if (nth === 5) throw new Error('killed');
      });
      const store = liveStore(dying);
      const ended = await store.wipe(cachePatterns, (await store.offset())!).catch((error: Error) => error.message);
      expect(await liveStore().offset()).to.include({ epoch: 'epoch-2' });
      await requireWhole();
      expect(ended, 'the one that emptied it').to.equal(false);
      expect(flips).to.equal(2);
    });

    it('has all rows when another instance has filled it since, and the first one wakes up', async () => {
      await outdated();
      let wake!: () => void;
      const asleep = new Promise<void>((resolve) => (wake = resolve));
      const sleeping = liveStore(scanning((_pattern, nth) => (nth === 2 ? asleep : Promise.resolve())));
      const emptied = sleeping.wipe(cachePatterns, (await sleeping.offset())!);
      await startLive();
      wake();
      const ended = await emptied;
      await requireWhole();
      expect(ended, 'the one that was asleep').to.equal(false);
    });

    it('is emptied to its end when it was begun, also when the log is the one of before again', async () => {
      await outdated();
      const before = await rows().position();
      const dying = scanning((_pattern, nth) => (nth === 3 ? Promise.reject(new Error('killed')) : Promise.resolve()));
      const store = liveStore(dying);
      expect(await store.wipe(cachePatterns, (await store.offset())!).catch((error: Error) => error.message)).to.equal('killed');
      expect(await rows().position(), 'for a reader').to.equal(undefined);
      log = new MemoryLog();
      await appendRows(3_000);
      await startLive();
      expect((await seen()).size).to.equal(3_000);
      expect(await rows().position()).to.include({ seq: before!.seq, epoch: before!.epoch });
    });
  });
});
