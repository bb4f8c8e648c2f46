import { expect } from 'chai';
import { closeRedis, connectRedis, type RedisClient } from '../../pipeline/clients/redis.ts';
import type { NewEvent } from '../../pipeline/log/event-log.ts';
import type { Comparison, Rebuildable } from '../../pipeline/runner/rebuild/model.ts';
import { rebuildable } from '../../pipeline/runner/rebuild/rebuild.ts';
import { redisBeside } from '../../pipeline/runner/rebuild/redis.ts';
import { RedisKeys } from '../../pipeline/runner/redis-keys.ts';
import type { Processor } from '../../pipeline/runner/processor.ts';
import { RedisStateStore, type RedisEffects } from '../../pipeline/runner/redis-state-store.ts';
import { startRunner } from '../../pipeline/runner/runner.ts';
import type { Role } from '../../pipeline/runtime/lifecycle.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { definitionsOf } from '../../processors/aggregates/definition.ts';
import { aggregateRebuilds } from '../../processors/aggregates/rebuild.ts';
import { Registry } from '../../processors/aggregates/store/registry.ts';
import { cacheProcessor } from '../../processors/cache/fold.ts';
import { cacheBeside } from '../../processors/cache/rebuild.ts';
import { redisCache } from '../../processors/cache/redis-cache.ts';
import { parseCatalog } from '../../schemas/catalog-file.ts';
import { defaultCatalog } from '../../schemas/catalog.ts';
import { startAggregates, untilFolded } from '../processors/aggregates/support/running.ts';
import { MemoryLog } from '../support/memory-log.ts';
import { redisDatabase, type RedisDatabase } from '../support/redis-database.ts';
import { roleContext, until } from '../support/role-context.ts';
import { rowEvent } from '../support/row-events.ts';
import { tcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

const keys = new RedisKeys();
type Counts = Map<string, number>;
const deadLetters = { publish: () => Promise.reject(new Error('no event of this test is poison')) };
const chains = 1_500;
const catalog = parseCatalog(
  `aggregates:
  price: { table: public.prices, by: [chain], value: price, of: changes, windows: [1h], functions: [count, sum] }
`,
  'c.yaml',
);

/** Counts the events of each chain, in a key for each. */
const counter = (): Processor<Counts> => ({
  name: 'counter',
  begin: () => new Map(),
  apply({ data }, counts) {
    const { chain } = (JSON.parse(Buffer.from(data).toString()) as { after: { chain: string } }).after;
    counts.set(chain, (counts.get(chain) ?? 0) + 1);
  },
});
const effects: RedisEffects<Counts> = {
  lua: `for n = first, #ARGV, 2 do redis.call('INCRBY', prefix .. ':counts:' .. ARGV[n], ARGV[n + 1]) end`,
  encode: (counts) => [...counts].flat(),
};

describe('comparison while the connection to Redis breaks', function () {
  this.timeout(60_000);
  let redis: RedisDatabase;
  let proxy: TcpProxy;
  let client: RedisClient;
  /** Called when the command has a script run. */
  let onCall: (() => void) | undefined;
  let log: MemoryLog;
  let stop: AbortController;
  let live: Role | undefined;
  beforeEach(async () => {
    redis = await redisDatabase(14);
    const url = new URL(redis.url);
    onCall = undefined;
    proxy = await tcpProxy(Number(url.port), (sent) => {
      if (sent.includes('EVALSHA')) onCall?.();
      return true;
    });
    url.port = `${proxy.port}`;
    client = await connectRedis(url.toString(), silentLogger());
    [log, stop] = [new MemoryLog(), new AbortController()];
    await log.append(
      Array.from({ length: chains }, (_, n) => change(n)),
      0,
    );
  });
  afterEach(async () => {
    stop.abort();
    await live?.stop();
    live = undefined;
    closeRedis(client);
    await proxy.close();
    await redis.close();
  });

  const change = (n: number): NewEvent =>
    rowEvent(n + 1, 'insert', { key: { id: `${n}` }, after: { id: `${n}`, chain: `c${n}`, price: '1' } });
  const atEnd = async (store: { offset(): Promise<{ seq: number } | undefined> }): Promise<boolean> =>
    (await store.offset())?.seq === log.head;

  /** The command's connection breaks, more than once, while pages are compared: Redis has the question, and nobody has the answer. */
  async function comparedMeanwhile(rebuild: Rebuildable): Promise<Comparison & { readonly cuts: number; readonly comparisons: number }> {
    const network = proxy;
    let [cuts, comparisons, away] = [0, 0, false];
    const cut = (): void => {
      onCall = undefined;
      cuts++;
      setImmediate(() => network.cut());
      setTimeout(() => {
        network.restore();
        away = false;
      }, 50);
    };
    const { comparison, flipped } = await rebuild.rebuild({
      flip: true,
      onCompared: () => void comparisons++,
      onProgress({ phase, detail }) {
        if (phase !== 'comparing' || detail === undefined || away || cuts === 3) return;
        away = true;
        onCall = cut;
      },
    });
    expect(flipped).to.equal(true);
    return { ...comparison, cuts, comparisons };
  }

  async function startCache(): Promise<void> {
    const store = new RedisStateStore(redis.client, 'cache', keys, redisCache);
    live = startRunner(roleContext(stop.signal), { eventLog: log, deadLetters, store, processor: cacheProcessor(defaultCatalog()) });
    await until(() => atEnd(store));
  }
  const cacheRebuild = (): Rebuildable =>
    rebuildable(roleContext(stop.signal), {
      eventLog: log,
      deadLetters,
      beside: cacheBeside(client),
      processor: cacheProcessor(defaultCatalog()),
    });

  it('goes on with the cache, and counts each difference once', async () => {
    await startCache();
    for (let n = 0; n < 300; n++) await redis.client.hset(`{hw}:row:public.prices:${n}`, 'event', '{}');
    const found = await comparedMeanwhile(cacheRebuild());
    expect(found).to.include({ compared: chains, differences: 300, moving: 0, changing: 300, cuts: 3, comparisons: 1 });
  });

  it('ends with what Redis has to say, when that is no matter of time', async () => {
    await startCache();
    await cacheRebuild().rebuild({ flip: false });
    await redis.client.set('{hw}:rebuild:cache:judged', 'not a set');
    const ended = await cacheRebuild()
      .rebuild({ flip: true })
      .catch((error: unknown) => error);
    expect(ended)
      .to.have.property('message')
      .match(/WRONGTYPE/);
  });

  it('goes on with a state of one’s own', async () => {
    const store = new RedisStateStore(redis.client, 'counter', keys, effects);
    live = startRunner(roleContext(stop.signal), { eventLog: log, deadLetters, store, processor: counter() });
    await until(() => atEnd(store));
    for (let n = 0; n < 300; n++) await redis.client.set(`{hw}:counts:c${n}`, 9);
    const beside = redisBeside({ client, processor: 'counter', effects, patterns: ['counts:*'] });
    const found = await comparedMeanwhile(
      rebuildable(roleContext(stop.signal), { eventLog: log, deadLetters, beside, processor: counter() }),
    );
    expect(found).to.include({ compared: chains, differences: 300, moving: 0, cuts: 3, comparisons: 1 });
  });

  it('goes on with aggregates', async () => {
    live = startAggregates({ redis, eventLog: log, catalog });
    await untilFolded(redis, definitionsOf(catalog).values(), log.head);
    await until(async () => (await new Registry(redis.client).entries()).size === 1);
    const [windows] = await redis.client.keys('{hw}:agg:price:*:w:*');
    const field = (await redis.client.hkeys(windows!))[0]!;
    await redis.client.hset(windows!, field, 'wrong');
    const [rebuild] = await aggregateRebuilds(roleContext(stop.signal), { redis: client, eventLog: log, deadLetters });
    expect(await comparedMeanwhile(rebuild!)).to.include({ compared: chains, differences: 1, moving: 0, cuts: 3, comparisons: 1 });
  });
});
