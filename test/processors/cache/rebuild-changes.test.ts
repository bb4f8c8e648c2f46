import { expect } from 'chai';
import type { RedisClient } from '../../../pipeline/clients/redis.ts';
import type { NewEvent } from '../../../pipeline/log/event-log.ts';
import type { Beside, FlipPause, Steering } from '../../../pipeline/runner/rebuild/model.ts';
import { rebuildable } from '../../../pipeline/runner/rebuild/rebuild.ts';
import type { StateStore } from '../../../pipeline/runner/state-store.ts';
import { cacheProcessor, type CacheEffects } from '../../../processors/cache/fold.ts';
import { cacheBeside } from '../../../processors/cache/rebuild.ts';
import { RedisRows } from '../../../processors/cache/redis-rows.ts';
import { defaultCatalog } from '../../../schemas/catalog.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { redisNamespace, type RedisNamespace } from '../../support/redis-namespace.ts';
import { roleContext } from '../../support/role-context.ts';
import { rowEvent } from '../../support/row-events.ts';
import { unsteered } from '../../support/unsteered.ts';
import { foldInto, liveCache } from './support/cache-folds.ts';

const table = 'public.prices';
const catalog = defaultCatalog();
const noLetters = { publish: () => Promise.reject(new Error('no event of this test is poison')) };

const price = (n: number, id: number, op = 'update'): NewEvent =>
  op === 'delete'
    ? rowEvent(n, op, { key: { id: `${id}` }, before: { id: `${id}` } })
    : rowEvent(n, op, { key: { id: `${id}` }, after: { id: `${id}`, n } });

describe('rebuild of the cache, while rows change', () => {
  let redis: RedisNamespace;
  let log: MemoryLog;
  let stop: AbortController;
  let steering: Steering;
  let said: string[];
  let pauses: FlipPause[];
  before(async () => {
    redis = await redisNamespace();
  });
  beforeEach(async () => {
    await redis.empty();
    log = new MemoryLog();
    stop = new AbortController();
    [said, pauses] = [[], []];
    steering = unsteered(stop.signal, { progress: (text) => said.push(text), pausing: (pause) => pauses.push(pause) });
  });
  afterEach(() => stop.abort());
  after(() => redis.close());

  const fold = (store: StateStore<CacheEffects>, to = log.head): Promise<void> => foldInto(store, log, to);
  const cacheRows = (): RedisRows => new RedisRows(redis.client, catalog, redis.keys);

  const appendRows = async (count: number, op = 'update'): Promise<void> => {
    for (let id = 0; id < count; id += 500) await log.append(changes(500, id, op), log.head);
  };
  const changes = (count: number, from: number, op: string): NewEvent[] =>
    Array.from({ length: count }, (_, n) => price(log.head + 1 + n, from + n, op));

  /** A live cache and one beside it, both with all that is in the log; the command works through the client. */
  async function bothFilled(client: RedisClient = redis.client): Promise<Beside<CacheEffects>> {
    const beside = cacheBeside(client, redis.keys);
    await beside.begin();
    await beside.clear();
    await fold(liveCache(redis));
    await fold(beside.store);
    return beside;
  }

  /** A client that does something else first whenever a page of keys is asked for. */
  function scanning(first: (command: 'scan' | 'sscan', key: string) => Promise<void>): RedisClient {
    return new Proxy(redis.client, {
      get(client, name) {
        const found: unknown = Reflect.get(client, name);
        if (name === 'scan')
          return async (...args: [string, 'MATCH', string, 'COUNT', number]) => {
            await first(name, args[2]);
            return client.scan(...args);
          };
        if (name === 'sscan')
          return async (...args: [string, string, 'COUNT', number]) => {
            await first(name, args[0]);
            return client.sscan(...args);
          };
        return typeof found === 'function' ? (found.bind(client) as unknown) : found;
      },
    });
  }

  const rowKey = (id: number): string => `${redis.keys.prefix}:row:${table}:${id}`;

  /** Marks rows of the live cache, so that it can be told which of them have been exchanged. */
  async function mark(count: number): Promise<() => Promise<number>> {
    const ids = Array.from({ length: count }, (_, id) => id);
    await Promise.all(ids.map((id) => redis.client.hset(rowKey(id), 'mark', 1)));
    return async () => {
      const marked = await Promise.all(ids.map((id) => redis.client.hexists(rowKey(id), 'mark')));
      return marked.filter((isMarked) => isMarked === 0).length;
    };
  }

  async function spoilRow(id: number): Promise<void> {
    const event = await redis.client.hget(rowKey(id), 'event');
    await redis.client.hset(rowKey(id), 'event', event!.replace(/"n":\d+/, '"n":-1'));
  }

  async function requireRight(rows: number): Promise<void> {
    const found = new Map<string, number>();
    for await (const page of cacheRows().rows(table)) {
      for (const { event } of page) {
        const { key, after } = JSON.parse(Buffer.from(event).toString()) as { key: { id: string }; after: { n: number } };
        found.set(key.id, after.n);
      }
    }
    expect(found.size).to.equal(rows);
    // The log ends with one change of each row, in their order.
    const wrong = [...found].filter(([id, n]) => n !== log.head - rows + 1 + Number(id));
    expect(wrong).to.deep.equal([]);
  }

  it('exchanges no row that both have in the same way again, however many have changed during the comparison', async () => {
    await appendRows(6_000, 'insert');
    let written = false;
    const beside = await bothFilled(
      scanning(async (_, key) => {
        if (written || key.includes('rebuild')) return;
        written = true;
        await appendRows(6_000);
        await fold(beside.store);
        await fold(liveCache(redis));
        await spoilRow(7);
      }),
    );
    const exchanged = await mark(6_000);
    const { compared, differences, moving, changing, pauseMs } = await beside.compare(steering);
    expect({ compared, differences, moving, changing, pauseMs }).to.deep.equal({
      compared: 6_000,
      differences: 1,
      moving: 0,
      changing: 1,
      pauseMs: 0,
    });
    expect(said.join('; ')).to.match(/100 %, 6,000 rows compared.* % of the live rows.* % of 6,000 rows that have changed/);
    expect(await beside.flip(steering)).to.equal('flipped');
    expect(await exchanged()).to.equal(1);
    await requireRight(6_000);
  });

  it('exchanges none of them either when they have changed while it waited for the flip', async () => {
    await appendRows(6_000, 'insert');
    const beside = await bothFilled();
    await beside.compare(steering);
    await appendRows(6_000);
    await fold(beside.store);
    await fold(liveCache(redis), log.head - 10);
    const exchanged = await mark(6_000);
    await spoilRow(7);
    expect(await beside.flip(steering)).to.equal('flipped');
    // The spoiled one, and those that the live one had not come to yet.
    expect(await exchanged()).to.equal(11);
    expect(pauses).to.deep.equal([]);
    await requireRight(6_000);
  });

  it('tells right before the flip how many rows change places, when they are many more than the comparison has told of', async () => {
    await appendRows(6_000, 'insert');
    const beside = await bothFilled();
    expect(await beside.compare(steering)).to.include({ changing: 0, pauseMs: 0 });
    await appendRows(6_000);
    await fold(beside.store);
    expect(await beside.flip(steering)).to.equal('flipped');
    expect(pauses).to.deep.equal([{ rows: 6_000, ms: 150 }]);
    await requireRight(6_000);
  });

  it('leaves no wrong row when Redis loses the last of its writes while rows are looked at again', async () => {
    await appendRows(6_000, 'insert');
    let [lose, scans]: [(() => Promise<void>) | undefined, number] = [undefined, 0];
    const beside = await bothFilled(
      scanning(async (command, key) => {
        if (command === 'sscan' && key.includes(':touched:') && ++scans === 9) await lose?.();
      }),
    );
    await spoilRow(7);
    await beside.compare(steering);
    await appendRows(6_000);
    await fold(beside.store);
    const dumps = await dumped();
    lose = async () => {
      const all = await redis.client.keys(`${redis.keys.prefix}:*`);
      const transaction = redis.client.multi().unlink(...all);
      for (const [key, dump] of dumps) transaction.restore(key, 0, dump);
      await transaction.exec();
    };
    await fold(liveCache(redis));
    expect(await beside.flip(steering)).to.equal('flipped');
    expect(scans).to.be.at.least(9);
    await requireRight(6_000);
  });

  const dumped = async (): Promise<readonly (readonly [string, Buffer])[]> => {
    const all = await redis.client.keys(`${redis.keys.prefix}:*`);
    return Promise.all(all.map(async (key) => [key, await redis.client.dumpBuffer(key)] as const));
  };

  it('does not keep a row that is gone beside, and that the live one, which is behind, has only just had inserted', async () => {
    await appendRows(500, 'insert');
    const beside = await bothFilled();
    await log.append([price(log.head + 1, 777, 'insert'), price(log.head + 2, 777, 'delete')], log.head);
    await fold(beside.store);
    await beside.compare(steering);
    await fold(liveCache(redis), log.head - 1);
    expect((await cacheRows().row(table, '777')).known).to.equal('row');
    expect(await beside.flip(steering)).to.equal('flipped');
    expect((await cacheRows().row(table, '777')).known).to.equal('absent');
  });

  it('compares nothing any more once another command has taken over', async () => {
    await appendRows(500, 'insert');
    const comparison = `${redis.keys.prefix}:rebuild:cache:comparison`;
    let pages: string | null | undefined;
    const asleep = await bothFilled(
      scanning(async (_, key) => {
        if (pages !== undefined || key.includes('rebuild')) return;
        const other = cacheBeside(redis.client, redis.keys);
        await other.claim((await other.status())!);
        await other.compare(steering);
        pages = await redis.client.hget(comparison, 'pages');
      }),
    );
    expect(await asleep.compare(steering).catch((error: unknown) => error)).to.have.property('code', 'rebuild_overtaken');
    expect(Number(pages)).to.be.greaterThan(0);
    expect(await redis.client.hget(comparison, 'pages')).to.equal(pages);
  });

  it('does not say that something has happened when another command goes on with what one has left', async () => {
    await appendRows(500, 'insert');
    await fold(liveCache(redis));
    const details: string[] = [];
    const rebuild = async (flip: boolean): Promise<void> => {
      const parts = { eventLog: log, deadLetters: noLetters, beside: cacheBeside(redis.client, redis.keys) };
      const made = rebuildable(roleContext(stop.signal), { ...parts, processor: cacheProcessor(catalog) });
      await made.rebuild({ flip, onProgress: ({ detail = '' }) => details.push(detail) });
    };
    await rebuild(false);
    await appendRows(500);
    await fold(liveCache(redis));
    await rebuild(true);
    expect(details.join('; ')).to.contain('500 rows compared').and.not.contain('again');
    await requireRight(500);
  });

  it('looks for nothing that is left where nothing can be, and removes what an earlier one has left', async () => {
    const { client, keys } = redis;
    await appendRows(500, 'insert');
    let scans = 0;
    const counting = scanning(() => Promise.resolve(void scans++));
    const fresh = await bothFilled(counting);
    expect(scans, 'in a place that it has begun').to.equal(0);
    const litter = `${keys.prefix}:rebuild:cache:row:${table}:ghost`;
    // A record that somebody has removed by hand, and a beginning that was killed before it had emptied its place.
    for (const begin of [
      async () => {
        await client.del(`${keys.prefix}:rebuild:cache`);
        await fresh.begin();
      },
      async () => {
        await client.del(`${keys.prefix}:rebuild:cache`, `${keys.prefix}:rebuild:cache:offset:cache`);
        await cacheBeside(client, keys).begin();
        await fresh.claim((await fresh.status())!);
      },
    ]) {
      await client.hset(litter, { seq: 1, event: '{}' });
      await begin();
      const told: string[] = [];
      await fresh.clear(undefined, (text) => told.push(text));
      expect(await client.exists(litter)).to.equal(0);
      expect(told.at(-1)).to.match(/^emptying its place: \d+ %/);
    }
  });

  it('looks at little more than a megabyte in one call, which Redis answers nobody else during', async () => {
    const tables = ['prices', 'tokens'];
    const large = 'x'.repeat(300_000);
    for (let id = 0; id < 60; id++)
      await log.append([rowEvent(log.head + 1, 'insert', { table: tables[id % 2]!, key: { id }, after: { id, large } })], log.head);
    let calls = 0;
    const beside = await bothFilled(
      new Proxy(redis.client, {
        get(client, name) {
          const found: unknown = Reflect.get(client, name);
          if (name === 'callBuffer') calls++;
          return typeof found === 'function' ? (found.bind(client) as unknown) : found;
        },
      }),
    );
    const wrong = [3, 10, 57].map((id) => `public.${tables[id % 2]!}:${id}`);
    for (const row of wrong) await redis.client.hset(`${redis.keys.prefix}:row:${row}`, 'event', '{}');
    calls = 0;
    const { compared, differences, listed } = await beside.compare(steering);
    expect({ compared, differences }).to.deep.equal({ compared: 60, differences: 3 });
    expect(listed.map(({ what }) => what.replace('/', ':'))).to.have.members(wrong);
    expect(calls, 'calls for 36 megabytes').to.be.within(29, 45);
  });

  it('begins the comparison again when Redis has been started anew meanwhile, and counts each difference once', async () => {
    await appendRows(500, 'insert');
    let asked = 0;
    // Its keys are in another order then, and cursors of before pass over some of them.
    const beside = await bothFilled(
      new Proxy(redis.client, {
        get(client, name) {
          const found: unknown = Reflect.get(client, name);
          if (name === 'info')
            return async (section: string) => (await client.info(section)).replace(/^run_id:/m, ++asked === 1 ? 'run_id:former' : '$&');
          return typeof found === 'function' ? (found.bind(client) as unknown) : found;
        },
      }),
    );
    for (const id of [7, 8, 9]) await spoilRow(id);
    expect(await beside.compare(steering)).to.include({ compared: 500, differences: 3, changing: 3 });
    expect(said.filter((text) => text.includes('100 %, 500 rows compared'))).to.have.lengthOf(2);
    expect(await beside.flip(steering)).to.equal('flipped');
    await requireRight(500);
  });
});
