import { expect } from 'chai';
import type { NewEvent } from '../../../pipeline/log/event-log.ts';
import type { Role } from '../../../pipeline/runtime/lifecycle.ts';
import { definitionsOf } from '../../../processors/aggregates/definition.ts';
import { aggregateKeys, namespaceOf } from '../../../processors/aggregates/store/keys.ts';
import { parseCatalog } from '../../../schemas/catalog-file.ts';
import { redisDatabase, type RedisDatabase } from '../../support/redis-database.ts';
import { redriveWorld, type RedriveWorld } from '../../support/redrive-world.ts';
import { rowEvent, tickEvent } from '../../support/row-events.ts';
import { startAggregates, untilFolded } from './support/running.ts';
import { storedWindows } from './support/stored-windows.ts';

const catalog = parseCatalog(
  `aggregates:
  now: { table: public.prices, by: [chain], value: price, of: rows, windows: [1h], functions: [count, sum, max] }
  all: { table: public.prices, by: [chain], value: price, of: changes, windows: [1h], functions: [count, sum, max, close] }
`,
  'c.yaml',
);
const definitions = definitionsOf(catalog);
const price = (n: number, id: number, value: string): NewEvent =>
  rowEvent(n, 'insert', { key: { id }, after: { id, chain: 'c', price: value } });

describe('redriving in aggregates', function () {
  this.timeout(60_000);
  let redis: RedisDatabase;
  let world: RedriveWorld;
  let role: Role;
  beforeEach(async () => {
    redis = await redisDatabase(7);
    world = await redriveWorld();
  });
  afterEach(async () => {
    await role.stop();
    await world.close();
    await redis.close();
  });

  it('counts each observation once, and a row only as it is now; windows get a newer revision, and are told of', async () => {
    const { log } = world;
    const tick = (): void => log.add(tickEvent(log.head + 1));
    log.add(price(1, 1, '1'), price(2, 2, '20'), price(3, 3, '300'), price(4, 2, '5'), price(5, 4, '7'));
    for (const seq of [2, 3]) log.garbled.add(seq);
    role = startAggregates({ redis, eventLog: log, catalog, deadLetters: world.deadLetters });
    await world.buried('aggregates.now', 'aggregates.all');
    await untilFolded(redis, definitions.values(), 5);
    const windowOf = async (name: string): Promise<Record<string, unknown>> => {
      const [window] = await storedWindows(redis.client, definitions.get(name)!);
      const { count, sum, max, revision } = window!;
      return { count, sum, max, revision };
    };
    expect(await windowOf('now')).to.deep.equal({ count: 3, sum: '13', max: '7', revision: 5 });
    expect(await windowOf('all')).to.deep.equal({ count: 3, sum: '13', max: '7', revision: 5 });

    expect(await world.redrive('aggregates.now', tick)).to.deep.equal(['2 superseded', '3 applied']);
    expect(await world.redrive('aggregates.all', tick)).to.deep.equal(['2 applied', '3 applied']);
    const [now, all] = [await windowOf('now'), await windowOf('all')];
    expect(now).to.include({ count: 4, sum: '313', max: '300' });
    expect(all).to.include({ count: 5, sum: '333', max: '300' });
    for (const [name, { revision }] of Object.entries({ now, all })) {
      expect(revision).to.be.greaterThan(5);
      const { prefix } = namespaceOf(name, definitions.get(name)!.hash);
      const changed = await redis.client.zrange(aggregateKeys.changed(prefix), '0', '-1', 'WITHSCORES');
      expect(Number(changed.at(-1))).to.equal(revision);
    }
    // Of a row that came late, all that comes after it takes the right thing out.
    log.add(rowEvent(log.head + 1, 'delete', { key: { id: 3 }, before: { id: 3 } }));
    await untilFolded(redis, definitions.values(), log.head);
    expect(await windowOf('now')).to.include({ count: 3, sum: '13', max: '7' });
  });
});
