import { expect } from 'chai';
import type { NewEvent } from '../../../pipeline/log/event-log.ts';
import type { Comparison } from '../../../pipeline/runner/rebuild/model.ts';
import { definitionsOf } from '../../../processors/aggregates/definition.ts';
import { aggregateRebuilds } from '../../../processors/aggregates/rebuild.ts';
import { aggregateKeys, namespaceOf } from '../../../processors/aggregates/store/keys.ts';
import { Registry } from '../../../processors/aggregates/store/registry.ts';
import { parseCatalog } from '../../../schemas/catalog-file.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { redisDatabase, type RedisDatabase } from '../../support/redis-database.ts';
import { roleContext, until } from '../../support/role-context.ts';
import { rowEvent } from '../../support/row-events.ts';
import { startAggregates, untilFolded } from './support/running.ts';

const catalog = parseCatalog(
  `aggregates:
  price: { table: public.prices, by: [chain], value: price, of: changes, windows: [1s, 1m], functions: [count, sum, p50] }
`,
  'c.yaml',
);
const definitions = definitionsOf(catalog);
const { prefix } = namespaceOf('price', definitions.get('price')!.hash);
const deadLetters = { publish: () => Promise.reject(new Error('no event of this test is poison')) };

describe('comparison of aggregates with a role that has stopped', () => {
  let redis: RedisDatabase;
  let log: MemoryLog;
  let stop: AbortController;
  beforeEach(async () => {
    redis = await redisDatabase(5);
    log = new MemoryLog();
    stop = new AbortController();
  });
  afterEach(async () => {
    stop.abort();
    await redis.close();
  });

  /** Each event is a second after the one before, so that a group has about as many windows as events. */
  const change = (chain: string, value: string): NewEvent => {
    const n = (log.head + 1) * 1_000;
    return rowEvent(n, 'update', { key: { id: n }, after: { id: n, chain, price: value } });
  };

  it('ends, says so, and finds what differs in whichever of the two, also in a group of many windows', async () => {
    for (let n = 0; n < 600; n++) await log.append([change(n < 400 ? 'large' : `c${n % 100}`, `${n}`)], log.head);
    const role = startAggregates({ redis, eventLog: log, catalog });
    await untilFolded(redis, definitions.values(), log.head);
    await until(async () => (await new Registry(redis.client).entries()).size === 1);
    await role.stop();

    const groups = await redis.client.zrange(aggregateKeys.groups(prefix), '0', '-1');
    const large = groups.find((group) => group.includes('large'))!;
    const windows = aggregateKeys.windows(prefix, large);
    const [wrong, gone] = (await redis.client.hkeys(windows)).filter((field) => field.startsWith('1s:'));
    await redis.client.hset(windows, wrong!, (await redis.client.hget(windows, wrong!))!.replace(/\d/, '9'));
    const record = (await redis.client.hget(windows, gone!))!;
    await redis.client.hdel(windows, gone!);
    await redis.client.hset(windows, '1s:9999999999', record);
    const values = (await redis.client.keys(`${prefix}:v:1m:*:${large.replace(/[[\]]/g, '\\$&')}`))[0]!;
    await redis.client.hset(values, '123456', 7);
    const ghost = JSON.stringify(['ghost']);
    await redis.client.zadd(aggregateKeys.groups(prefix), 0, ghost);
    await redis.client.hset(aggregateKeys.windows(prefix, ghost), gone!, record);
    // More than one call looks at.
    const fill = "for n = 1, 12000 do redis.call('HSET', KEYS[1], '1m:' .. 90000000 + n, 'x') end";
    await redis.client.eval(fill, 1, aggregateKeys.windows(prefix, ghost));
    const total = (await Promise.all(groups.map((group) => redis.client.hlen(aggregateKeys.windows(prefix, group))))).reduce(
      (a, b) => a + b,
      0,
    );
    await log.append([change('late', '1')], log.head);

    let found: Comparison | undefined;
    const [rebuild] = await aggregateRebuilds(roleContext(stop.signal), { redis: redis.client, eventLog: log, deadLetters });
    await rebuild!.rebuild({ flip: false, onCompared: (comparison) => (found = comparison) });
    const { listed, apart, ...counts } = found!;
    // Besides the live ones two of what came later, one that is missing there, and the ghost's.
    expect(counts).to.deep.equal({ compared: total + 12_004, differences: 12_007, moving: 0 });
    expect(listed.filter(({ live }) => live === undefined).map(({ what }) => what.split(' ')[0])).to.have.members([
      large,
      '["late"]',
      '["late"]',
    ]);
    expect(listed.map(({ what }) => what)).to.include.members([
      `${large} ${wrong}`,
      `${large} ${values.split(':v:')[1]!.slice(0, -large.length - 1)}`,
    ]);
    expect(apart).to.match(/stands still at 600/);
  });

  it('searches Redis for nothing that is left in a namespace that it has only just begun', async () => {
    for (let n = 0; n < 10; n++) await log.append([change('c', `${n}`)], log.head);
    const role = startAggregates({ redis, eventLog: log, catalog });
    await untilFolded(redis, definitions.values(), log.head);
    await until(async () => (await new Registry(redis.client).entries()).size === 1);
    let scans = 0;
    const counting = new Proxy(redis.client, {
      get(client, name) {
        const found: unknown = Reflect.get(client, name);
        if (name === 'scan') scans++;
        return typeof found === 'function' ? (found.bind(client) as unknown) : found;
      },
    });
    const [rebuild] = await aggregateRebuilds(roleContext(stop.signal), { redis: counting, eventLog: log, deadLetters });
    await rebuild!.rebuild({ flip: false });
    await role.stop();
    expect(scans).to.equal(0);
  });
});
