import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import type { NewEvent } from '../../../pipeline/log/event-log.ts';
import type { Rebuildable } from '../../../pipeline/runner/rebuild/model.ts';
import type { Role } from '../../../pipeline/runtime/lifecycle.ts';
import { definitionsOf } from '../../../processors/aggregates/definition.ts';
import { AggregateReader } from '../../../processors/aggregates/read/reader.ts';
import { aggregateRebuilds } from '../../../processors/aggregates/rebuild.ts';
import { aggregateKeys, namespaceOf } from '../../../processors/aggregates/store/keys.ts';
import { Registry } from '../../../processors/aggregates/store/registry.ts';
import { parseCatalog } from '../../../schemas/catalog-file.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { redisDatabase, type RedisDatabase } from '../../support/redis-database.ts';
import { roleContext, until } from '../../support/role-context.ts';
import { rowEvent, tickEvent } from '../../support/row-events.ts';
import { startAggregates, untilFolded } from './support/running.ts';
import { storedWindows } from './support/stored-windows.ts';

const catalog = parseCatalog(
  `aggregates:
  price: { table: public.prices, by: [chain], value: price, of: rows, windows: [1m, 1h], functions: [count, sum, p50] }
  moves: { table: public.prices, by: [chain], value: price, of: changes, windows: [1m], functions: [count, open, close] }
`,
  'c.yaml',
);
const definitions = definitionsOf(catalog);
const price = definitions.get('price')!;

describe('rebuild of aggregates', () => {
  let redis: RedisDatabase;
  let log: MemoryLog;
  let role: Role | undefined;
  let stop: AbortController;
  beforeEach(async () => {
    redis = await redisDatabase(5);
    log = new MemoryLog();
    stop = new AbortController();
  });
  afterEach(async () => {
    stop.abort();
    await role?.stop();
    role = undefined;
    await redis.close();
  });

  const deadLetters = { publish: () => Promise.reject(new Error('no event of this test is poison')) };
  const append = (...events: NewEvent[]): Promise<number> => log.append(events, log.head);
  const change = (id: number, value: string): Promise<number> =>
    append(rowEvent(log.head + 1, 'update', { key: { id }, after: { id, chain: `c${id % 3}`, price: value } }));
  const start = (): Role => (role = startAggregates({ redis, eventLog: log, catalog }));
  const rebuildOf = async (name: string): Promise<Rebuildable> => {
    const all = await aggregateRebuilds(roleContext(stop.signal), { redis: redis.client, eventLog: log, deadLetters });
    return all.find((one) => one.name === `aggregates.${name}`)!;
  };
  const served = async (): Promise<string> => (await new Registry(redis.client).entries()).get('price')!.hash;

  async function ticking<T>(work: Promise<T>): Promise<T> {
    let done = false;
    const ended = work.finally(() => (done = true));
    void ended.catch(() => undefined);
    while (!done) {
      await append(tickEvent(log.head + 1));
      await sleep(20);
    }
    return ended;
  }

  it('finds what a bug has spoiled, flips, lets the role go on there, keeps the former state, and goes back', async () => {
    for (let n = 0; n < 600; n++) await change(n % 40, `${n % 17}.5`);
    start();
    await untilFolded(redis, definitions.values(), log.head);
    await until(async () => (await new Registry(redis.client).entries()).size === 2);
    const right = await storedWindows(redis.client, price);
    const { prefix } = namespaceOf('price', price.hash);
    const [group] = await redis.client.zrange(aggregateKeys.groups(prefix), '0', '0');
    const windows = aggregateKeys.windows(prefix, group!);
    const [field] = await redis.client.hkeys(windows);
    await redis.client.hset(windows, field!, (await redis.client.hget(windows, field!))!.replace(/\d/, '9'));

    const first = await ticking((await rebuildOf('price')).rebuild({ flip: false }));
    expect(first.comparison).to.include({ differences: 1, moving: 0 });
    expect(first.comparison.listed[0]!.what).to.equal(`${group} ${field}`);
    expect(await served()).to.equal(price.hash);

    const { flipped } = await ticking((await rebuildOf('price')).rebuild({ flip: true }));
    expect(flipped).to.equal(true);
    const anew = { ...price, hash: await served() };
    expect(anew.hash).to.match(new RegExp(`^${price.hash}\\.`));
    expect(await storedWindows(redis.client, anew)).to.deep.equal(right);
    // The role goes on there, and leaves the former state alone for longer than what nobody wants is kept.
    await change(1, '7.5');
    await untilFolded(redis, [anew], log.head);
    await sleep(600);
    expect(await redis.client.exists(windows)).to.equal(1);
    expect(await (await rebuildOf('price')).status()).to.include({ state: 'kept' });

    await ticking((await rebuildOf('price')).rebuild({ flip: true, back: true }));
    expect(await served()).to.equal(price.hash);
    await change(2, '8.5');
    await untilFolded(redis, [price], log.head);
    expect(await (await rebuildOf('price')).remove('kept')).to.equal(true);
    expect(await redis.client.keys(`${namespaceOf('price', anew.hash).prefix}:*`)).to.deep.equal([]);
    expect((await storedWindows(redis.client, price)).length).to.be.greaterThan(0);
  });

  it('removes nothing that has been flipped while an abort waited, nor what another command has begun', async () => {
    for (let n = 0; n < 300; n++) await change(n % 40, `${n % 17}.5`);
    start();
    await untilFolded(redis, definitions.values(), log.head);
    await until(async () => (await new Registry(redis.client).entries()).size === 2);
    const right = await storedWindows(redis.client, price);
    const codeOf = (error: unknown): string => (error as { code: string }).code;
    const early = await rebuildOf('price');
    await (await rebuildOf('price')).rebuild({ flip: false });
    expect(await early.remove('filling').catch(codeOf)).to.equal('rebuild_overtaken');
    const aborting = await rebuildOf('price');
    let removal: Promise<boolean | string> | undefined;
    const flipping = (await rebuildOf('price')).rebuild({
      flip: true,
      // It has the lease, and what stands there is not flipped yet.
      onCompared: () => void (removal ??= aborting.remove('filling').catch(codeOf)),
    });
    expect((await ticking(flipping)).flipped).to.equal(true);
    expect(await removal).to.equal('rebuild_kept');
    const anew = { ...price, hash: await served() };
    expect(anew.hash).to.not.equal(price.hash);
    await change(1, '7.5');
    await untilFolded(redis, [anew], log.head);
    expect((await storedWindows(redis.client, anew)).length).to.be.at.least(right.length);
    expect(await (await rebuildOf('price')).status()).to.include({ state: 'kept' });
    expect(await (await rebuildOf('price')).remove('kept')).to.equal(true);
    expect(await redis.client.keys(`${namespaceOf('price', price.hash).prefix}:*`)).to.deep.equal([]);
  });

  it('never shows a reader an older state, and misses nothing, while changes go on', async () => {
    for (let n = 0; n < 100; n++) await change(n % 9, `${n}`);
    start();
    await untilFolded(redis, definitions.values(), log.head);
    await until(async () => (await new Registry(redis.client).entries()).size === 2);
    let done = false;
    const load = (async () => {
      while (!done) {
        await change(log.head % 9, `${log.head}`);
        await sleep(2);
      }
    })();
    const reader = new AggregateReader(redis.client);
    let readings = 0;
    const reading = (async () => {
      let last = 0;
      while (!done) {
        const page = await reader.use('moves', (view) => view.changes(0, 10));
        expect(page!.head.seq).to.be.at.least(last);
        last = page!.head.seq!;
        readings++;
      }
    })();
    try {
      const { comparison, flipped } = await (await rebuildOf('moves')).rebuild({ flip: true });
      expect(comparison.differences).to.equal(0);
      expect(flipped).to.equal(true);
      await sleep(300);
    } finally {
      done = true;
      await load;
    }
    await reading;
    expect(readings).to.be.greaterThan(50);
    const entry = (await new Registry(redis.client).entries()).get('moves')!;
    await untilFolded(redis, [entry.definition], log.head);
    const total = (await storedWindows(redis.client, entry.definition)).reduce((sum, { count }) => sum + count, 0);
    expect(total).to.equal(log.head);
  });
});
