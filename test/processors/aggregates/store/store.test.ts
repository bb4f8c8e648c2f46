import { expect } from 'chai';
import { RedisStateStore } from '../../../../pipeline/runner/redis-state-store.ts';
import { definitionsOf } from '../../../../processors/aggregates/definition.ts';
import type { AggregateEffects, PointsChange, SealedEffects, WindowChange } from '../../../../processors/aggregates/engine/effects.ts';
import type { Loaded, Needs } from '../../../../processors/aggregates/engine/needs.ts';
import type { Definition, WindowRecord } from '../../../../processors/aggregates/model.ts';
import { redisAggregates } from '../../../../processors/aggregates/store/commit.ts';
import { aggregateKeys } from '../../../../processors/aggregates/store/keys.ts';
import { loadMeta, loadNeeds } from '../../../../processors/aggregates/store/load.ts';
import { removeNamespace, skipLost, statePatterns } from '../../../../processors/aggregates/store/mend.ts';
import { parseCatalog } from '../../../../schemas/catalog-file.ts';
import { redisNamespace, type RedisNamespace } from '../../../support/redis-namespace.ts';

const minute = 60_000_000;

const definition: Definition = definitionsOf(
  parseCatalog(
    `aggregates:
  trades: { table: public.trades, by: [pair], value: price, time: at, of: rows, windows: [1m, 1h], retention: { 1m: 2h, 1h: 2h }, functions: [max, p50] }`,
    'catalog.yaml',
  ),
).get('trades')!;

const [a, b] = ['["a"]', '["b"]'];

function recordOf(count: number, revision = 7): WindowRecord {
  const point = { at: 5, id: 'p1', value: '1.10' };
  return { count, sum: '2.20', min: '1.10', max: '1.1', open: point, close: { ...point, id: 'p"2' }, revision, sketched: false };
}

function windowOf(group: string, level: number, index: number, more: Partial<WindowChange> = {}): WindowChange {
  const none = { values: undefined, buckets: undefined, anew: false };
  return { level, group, index, record: recordOf(2), fresh: true, ...none, ...more };
}

/** A row in a pane, under an id made of its name. */
function pointOf(group: string, index: number, row: string): PointsChange {
  return { group, index, points: new Map([[`p${row}`, { at: index * minute, id: `p${row}`, value: '3', row }]]) };
}

function needsOf(more: Partial<Needs>): Needs {
  return { rows: [], windows: [], newest: [], points: [], values: [], ...more };
}

describe('aggregates in Redis', () => {
  let redis: RedisNamespace;
  let store: RedisStateStore<AggregateEffects>;
  let seq: number;
  beforeEach(async () => {
    redis = await redisNamespace();
    store = new RedisStateStore(redis.client, 'aggregates', redis.keys, redisAggregates(definition));
    seq = 0;
    await store.commit(effectsOf({}), undefined, { seq, epoch: 'e' });
  });
  afterEach(() => redis.close());

  function effectsOf(sealed: Partial<SealedEffects>): AggregateEffects {
    const meta = { logTime: 0, numbers: [] };
    return { seal: () => ({ cleared: undefined, meta, windows: [], rows: new Map(), points: [], changed: [], ...sealed }) };
  }
  async function commit(sealed: Partial<SealedEffects> = {}): Promise<void> {
    const next = seq + 1;
    expect(await store.commit(effectsOf(sealed), { seq, epoch: 'e' }, { seq: next, epoch: 'e' })).to.equal('committed');
    seq = next;
  }
  const load = (needs: Partial<Needs>): Promise<Loaded> => loadNeeds(redis.client, redis.keys, definition, needsOf(needs));
  const countsOf = async (group: string, level: number, indexes: readonly number[]): Promise<(number | undefined)[]> => {
    const { windows } = await load({ windows: [{ level, group, indexes }] });
    return windows[0]!.map((record) => record?.count);
  };
  const groups = (): Promise<string[]> => redis.client.zrange(aggregateKeys.groups(redis.keys.prefix), '0', '-1');
  const keysLeft = async (): Promise<string[]> => {
    const found: string[] = [];
    for await (const keys of redis.client.scanStream({ match: `${redis.keys.prefix}:*` }) as AsyncIterable<string[]>) found.push(...keys);
    return found.map((key) => key.slice(redis.keys.prefix.length + 1)).sort();
  };

  it('are read back as they were stored, at the sequence they were stored with', async () => {
    const contribution = { group: a, at: 5, id: 'p1', value: '1.10' };
    await commit({
      meta: { logTime: 9, numbers: ['id'] },
      windows: [windowOf(a, 0, 3, { values: new Map([['1.1', 2]]) }), windowOf(a, 0, -20), windowOf(a, 1, 0)],
      rows: new Map([['r1', contribution]]),
      points: [pointOf(a, 3, 'r1')],
    });
    const loaded = await load({
      rows: ['r1', 'r2'],
      windows: [
        { level: 0, group: a, indexes: [3, 4] },
        { level: 1, group: b, indexes: [0] },
      ],
      newest: [a, b],
      points: [{ group: a, index: 3 }],
      values: [{ level: 0, group: a, index: 3 }],
    });
    expect(loaded).to.deep.equal({
      seq: 1,
      rows: [contribution, undefined],
      windows: [[recordOf(2), undefined], [undefined]],
      newest: [
        [3, 0],
        [undefined, undefined],
      ],
      points: [new Map([['pr1', { at: 3 * minute, id: 'pr1', value: '3', row: 'r1' }]])],
      values: [new Map([['1.1', 2]])],
    });
    expect(await loadMeta(redis.client, redis.keys)).to.deep.equal({ logTime: 9, numbers: ['id'] });
    expect(await groups()).to.deep.equal([a]);
  });

  it('stay as they are when the stored offset is not the expected one', async () => {
    await commit({ windows: [windowOf(a, 0, 3)] });
    const lost = await store.commit(
      effectsOf({ windows: [windowOf(a, 0, 3, { record: undefined })] }),
      { seq: 0, epoch: 'e' },
      { seq: 9, epoch: 'e' },
    );
    expect(lost).to.equal('lost');
    expect(await countsOf(a, 0, [3])).to.deep.equal([2]);
  });

  it('count values up and down, leave out what comes to nothing, and become sketches', async () => {
    const values = async (): Promise<unknown> =>
      Object.fromEntries((await load({ values: [{ level: 0, group: a, index: 3 }] })).values[0]!);
    await commit({
      windows: [
        windowOf(a, 0, 3, {
          values: new Map([
            ['1', 2],
            ['2', 1],
          ]),
        }),
      ],
    });
    await commit({
      windows: [
        windowOf(a, 0, 3, {
          fresh: false,
          values: new Map([
            ['1', -1],
            ['2', -1],
          ]),
        }),
      ],
    });
    expect(await values()).to.deep.equal({ 1: 1 });
    await commit({ windows: [windowOf(a, 0, 3, { fresh: false, anew: true, buckets: new Map([['+5', 1_025]]) })] });
    expect(await values()).to.deep.equal({});
    expect(await redis.client.hgetall(aggregateKeys.buckets(redis.keys.prefix, '1m', 3, a))).to.deep.equal({ '+5': '1025' });
  });

  it('leave nothing behind when their windows are empty', async () => {
    const empty = await keysLeft();
    await commit({
      windows: [windowOf(a, 0, 3, { values: new Map([['1', 2]]) }), windowOf(a, 1, 0, { values: new Map([['1', 2]]) })],
      rows: new Map([['r1', { group: a, at: 5, id: 'p1', value: '1' }]]),
      points: [pointOf(a, 3, 'r1')],
    });
    await commit({
      windows: [windowOf(a, 0, 3, { record: undefined, fresh: false })],
      points: [{ group: a, index: 3, points: new Map([['pr1', undefined]]) }],
    });
    expect(await groups()).to.deep.equal([a]);
    await commit({ windows: [windowOf(a, 1, 0, { record: undefined, fresh: false })], rows: new Map([['r1', undefined]]) });
    expect(await keysLeft()).to.deep.equal(empty);
  });

  describe('truncated', () => {
    const indexes = Array.from({ length: 300 }, (_, i) => i);
    beforeEach(async () => {
      await commit({
        windows: [...indexes.map((index) => windowOf(a, 0, index, { values: new Map([['1', 2]]) })), windowOf(b, 0, 1)],
        rows: new Map([['r1', { group: a, at: 5, id: 'p1', value: '1' }]]),
        points: [pointOf(a, 3, 'r1')],
        changed: [{ group: a, index: 3, seq: 1 }],
      });
      await commit({ cleared: 2 });
    });

    it('are empty at once, and say that changes are forgotten', async () => {
      const { prefix } = redis.keys;
      const loaded = await load({
        rows: ['r1'],
        windows: [{ level: 0, group: a, indexes: [3] }],
        newest: [a],
        points: [{ group: a, index: 3 }],
        values: [{ level: 0, group: a, index: 3 }],
      });
      expect(loaded).to.deep.equal({
        seq: 2,
        rows: [undefined],
        windows: [[undefined]],
        newest: [[undefined, undefined]],
        points: [new Map()],
        values: [new Map()],
      });
      expect(await groups()).to.deep.equal([]);
      expect(await redis.client.zcard(aggregateKeys.changed(prefix))).to.equal(0);
      expect(await redis.client.get(aggregateKeys.forgotten(prefix))).to.equal('2');
    });

    it('begin anew, with nothing of before', async () => {
      await commit({ windows: [windowOf(a, 0, 3, { record: recordOf(1), values: new Map([['5', 1]]) })], points: [pointOf(a, 3, 'r9')] });
      const loaded = await load({ points: [{ group: a, index: 3 }], values: [{ level: 0, group: a, index: 3 }] });
      expect([...loaded.points[0]!.keys()]).to.deep.equal(['pr9']);
      expect(loaded.values[0]).to.deep.equal(new Map([['5', 1]]));
      expect(await countsOf(a, 0, [2, 3])).to.deep.equal([undefined, 1]);
      expect(await redis.client.zrange(aggregateKeys.indexes(redis.keys.prefix, '1m', a), '0', '-1')).to.deep.equal(['3']);
    });

    it('are removed bit by bit by the commits that follow', async () => {
      for (let i = 0; i < 10; i++) await commit();
      expect(await keysLeft()).to.deep.equal(['clock', 'forgotten', 'meta', 'offset:aggregates']);
    });
  });

  it('go with their rows when they are older than they are kept, in every group', async () => {
    const many = Array.from({ length: 50 }, (_, i) => `["${String(i).padStart(2, '0')}"]`);
    for (const group of many) {
      await commit({
        windows: [windowOf(group, 0, 3), windowOf(group, 0, 200), windowOf(group, 1, 0), windowOf(group, 1, 3)],
        rows: new Map([
          [`old ${group}`, { group, at: 5, id: 'o', value: '1' }],
          [`new ${group}`, { group, at: 5, id: 'n', value: '1' }],
        ]),
        points: [pointOf(group, 3, `old ${group}`), pointOf(group, 200, `new ${group}`)],
      });
    }
    await commit({ windows: [windowOf('["gone"]', 0, 3)] });
    // A window that began not quite two hours before is still kept.
    const logTime = 123 * minute - 1;
    for (let i = 0; i < 5; i++) await commit({ meta: { logTime, numbers: [] } });
    expect(await countsOf(many[0]!, 0, [3])).to.deep.equal([2]);
    for (let i = 0; i < 5; i++) await commit({ meta: { logTime: logTime + 1, numbers: [] } });
    for (const group of many) {
      expect(await countsOf(group, 0, [3, 200]), group).to.deep.equal([undefined, 2]);
      expect(await countsOf(group, 1, [0, 3]), group).to.deep.equal([undefined, 2]);
      const { rows, points } = await load({ rows: [`old ${group}`, `new ${group}`], points: [{ group, index: 3 }] });
      expect(rows.map((row) => row?.id)).to.deep.equal([undefined, 'n']);
      expect(points[0]!.size).to.equal(0);
    }
    expect(await groups()).to.deep.equal(many);
  });

  it('remember the newest hundred thousand changes, and from where on', async () => {
    const { prefix } = redis.keys;
    const changed = Array.from({ length: 100_003 }, (_, i) => ({ group: a, index: i, seq: Math.floor(i / 2) + 1 }));
    await commit({ changed });
    expect(await redis.client.zcard(aggregateKeys.changed(prefix))).to.equal(99_999);
    expect(await redis.client.get(aggregateKeys.forgotten(prefix))).to.equal('2');
    expect(await redis.client.zrange(aggregateKeys.changed(prefix), '0', '0', 'WITHSCORES')).to.deep.equal([`4:${a}`, '3']);
  });

  it('remember from when to when events are missing that they had to skip', async () => {
    await commit({ meta: { logTime: 5 * minute, numbers: [] }, windows: [windowOf(a, 0, 3)], changed: [{ group: a, index: 3, seq: 1 }] });
    const skip = { expected: { seq: 1, epoch: 'e' }, next: { seq: 40, epoch: 'f' }, end: 9 * minute };
    expect(await skipLost(redis.client, redis.keys, { ...skip, expected: { seq: 0, epoch: 'e' } })).to.equal(undefined);
    expect(await skipLost(redis.client, redis.keys, skip)).to.equal(5 * minute);
    expect(await store.offset()).to.deep.equal({ seq: 40, epoch: 'f' });
    expect(await redis.client.lrange(aggregateKeys.gaps(redis.keys.prefix), 0, -1)).to.deep.equal([`[${5 * minute},${9 * minute}]`]);
    expect(await countsOf(a, 0, [3])).to.deep.equal([2]);
    expect(await redis.client.get(aggregateKeys.forgotten(redis.keys.prefix))).to.equal('40');
  });

  it('are wiped but for the lease and what changes are forgotten, and removed with everything', async () => {
    await commit({ windows: [windowOf(a, 0, 3)], rows: new Map([['r', { group: a, at: 5, id: 'p1', value: '1' }]]), cleared: 1 });
    await store.lease('me', 10_000);
    await store.wipe(statePatterns);
    expect(await keysLeft()).to.deep.equal(['forgotten', 'lease:aggregates']);
    await store.commit(effectsOf({ windows: [windowOf(a, 0, 3)] }), undefined, { seq: 1, epoch: 'e' });
    await removeNamespace(redis.client, redis.keys, new AbortController().signal);
    expect(await keysLeft()).to.deep.equal([]);
  });
});
