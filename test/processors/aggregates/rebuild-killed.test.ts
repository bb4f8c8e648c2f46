import { expect } from 'chai';
import { aggregateRebuilds } from '../../../processors/aggregates/rebuild.ts';
import { definitionsOf } from '../../../processors/aggregates/definition.ts';
import { namespaceOf } from '../../../processors/aggregates/store/keys.ts';
import { processorName, Registry } from '../../../processors/aggregates/store/registry.ts';
import { parseCatalog } from '../../../schemas/catalog-file.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { redisDatabase, type RedisDatabase } from '../../support/redis-database.ts';
import { roleContext, until } from '../../support/role-context.ts';
import { rowEvent } from '../../support/row-events.ts';
import { startAggregates, untilFolded } from './support/running.ts';

const catalog = parseCatalog(
  `aggregates:
  price: { table: public.prices, by: [chain], value: price, of: rows, windows: [1m], functions: [count] }
`,
  'c.yaml',
);
const price = definitionsOf(catalog).get('price')!;

describe('rebuild of aggregates, killed', () => {
  let redis: RedisDatabase;
  let log: MemoryLog;
  const stop = new AbortController();
  beforeEach(async () => {
    redis = await redisDatabase(5);
    log = new MemoryLog();
  });
  afterEach(async () => {
    stop.abort();
    await redis.close();
  });

  it('leaves no lease that the role would have to wait for, right behind the flip', async () => {
    const change = (id: number): Promise<number> =>
      log.append([rowEvent(log.head + 1, 'update', { key: { id }, after: { id, chain: 'c', price: `${id}` } })], log.head);
    for (let id = 0; id < 20; id++) await change(id);
    const role = startAggregates({ redis, eventLog: log, catalog });
    await untilFolded(redis, [price], log.head);
    await until(async () => (await new Registry(redis.client).entries()).size === 1);
    await role.stop();
    const deadLetters = { publish: () => Promise.reject(new Error('no event of this test is poison')) };
    // From the flip on nothing reaches Redis any more: whatever the command would do then, it does not.
    let killed = false;
    const killing = new Proxy(redis.client, {
      get(target, key) {
        const value: unknown = Reflect.get(target, key);
        if (typeof value !== 'function') return value;
        return (...args: unknown[]): unknown => {
          if (killed) return Promise.reject(new Error('killed'));
          const answer = Reflect.apply(value, target, args) as unknown;
          if (!(answer instanceof Promise)) return answer;
          return answer.then((result: unknown) => {
            killed ||= Buffer.isBuffer(result) && result.toString() === 'flipped';
            return result;
          });
        };
      },
    });
    const [made] = await aggregateRebuilds(roleContext(stop.signal), { redis: killing, eventLog: log, deadLetters });
    await made!.rebuild({ flip: true }).catch(() => undefined);
    const { hash } = (await new Registry(redis.client).entries()).get('price')!;
    expect(killed && hash !== price.hash, 'it has been flipped').to.equal(true);
    expect(await redis.client.exists(namespaceOf('price', hash).lease(processorName)), 'a lease').to.equal(0);
  });
});
