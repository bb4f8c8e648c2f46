import { expect } from 'chai';
import { RedisStateStore } from '../../../../pipeline/runner/redis-state-store.ts';
import { definitionsOf } from '../../../../processors/aggregates/definition.ts';
import type { AggregateEffects, PointsChange, SealedEffects, WindowChange } from '../../../../processors/aggregates/engine/effects.ts';
import type { Loaded, Needs } from '../../../../processors/aggregates/engine/needs.ts';
import type { Definition, WindowRecord } from '../../../../processors/aggregates/model.ts';
import { redisAggregates } from '../../../../processors/aggregates/store/commit.ts';
import { aggregateKeys } from '../../../../processors/aggregates/store/keys.ts';
import { loadMeta, loadNeeds } from '../../../../processors/aggregates/store/load.ts';
import { forgetChanges, removeNamespace, skipLost, statePatterns } from '../../../../processors/aggregates/store/mend.ts';
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
    store = new RedisStateStore(redis.client, 'aggregates', redis.keys, redisAggregates(definition), { listed: false });
    seq = 0;
    await store.commit(effectsOf({}), undefined, { seq, epoch: 'e' });
  });
  afterEach(() => redis.close());

  function effectsOf(sealed: Partial<SealedEffects>): AggregateEffects {
    const meta = { logTime: 0, numbers: [], oldest: [-120, -2] };
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
    // A scan may tell of a key twice.
    const found = new Set<string>();
    for await (const keys of redis.client.scanStream({ match: `${redis.keys.prefix}:*` }) as AsyncIterable<string[]>)
      for (const key of keys) found.add(key);
    return [...found].map((key) => key.slice(redis.keys.prefix.length + 1)).sort();
  };

  it('are read back as they were stored, at the sequence they were stored with', async () => {
    const contribution = { group: a, at: 5, id: 'p1', value: '1.10' };
    await commit({
      meta: { logTime: 9, numbers: ['id'], oldest: [-119, -1] },
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
    expect(await loadMeta(redis.client, redis.keys)).to.deep.equal({ logTime: 9, numbers: ['id'], oldest: [-119, -1] });
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

  describe('of a large group', () => {
    const size = 3_000;
    const all = Array.from({ length: size }, (_, i) => i);
    const values = new Map([['1', 2]]);
    const fill = (): Promise<void> =>
      commit({
        windows: all.map((index) => windowOf(a, 0, index, { values })),
        points: all.map((index) => pointOf(a, index, `r${index}`)),
        rows: new Map(all.map((index) => [`r${index}`, { group: a, at: index * minute, id: `pr${index}`, value: '3' }])),
      });
    /** Commits until no more keys go, and says how many went with a commit at most. */
    const mostGone = async (): Promise<number> => {
      let most = 0;
      for (let before = (await keysLeft()).length, quiet = 0; quiet < 2;) {
        await commit();
        const now = (await keysLeft()).length;
        most = Math.max(most, before - now);
        quiet = now < before ? 0 : quiet + 1;
        before = now;
      }
      return most;
    };

    it('go bit by bit after a truncate, also when it is written to', async () => {
      await fill();
      await commit({ cleared: 2 });
      const before = (await keysLeft()).length;
      await commit({ windows: [windowOf(a, 0, 2, { record: recordOf(1), values: new Map([['5', 1]]) })], points: [pointOf(a, 2, 'r9')] });
      expect(before - (await keysLeft()).length).to.be.within(500, 2_200);
      expect(await mostGone()).to.be.within(500, 2_200);
      expect(await keysLeft()).to.have.members([
        ...['clock', 'forgotten', 'groups', 'meta', 'offset:aggregates'],
        ...[`i:1m:${a}`, `p:2:${a}`, `v:1m:2:${a}`, `w:${a}`],
      ]);
    });

    it('show nothing of before while they go, however often they are truncated', async () => {
      const last = size - 1;
      const contents = async (): Promise<unknown> => {
        const loaded = await load({ points: [{ group: a, index: last }], values: [{ level: 0, group: a, index: last }], newest: [a] });
        return [loaded.newest[0]![0], [...loaded.points[0]!.keys()], [...loaded.values[0]!]];
      };
      for (let n = 1; n <= 3; n++) {
        await fill();
        expect(await contents()).to.deep.equal([last, [`pr${last}`], [['1', 2]]]);
        await commit({ cleared: seq + 1 });
        expect(await contents()).to.deep.equal([undefined, [], []]);
        await commit({ windows: [windowOf(a, 0, 7)] });
        expect(await contents()).to.deep.equal([7, [], []]);
        if (n === 3) break;
        await commit({ windows: [windowOf(a, 0, last, { values: new Map([['5', n]]) })], points: [pointOf(a, last, 'r9')] });
        expect(await contents()).to.deep.equal([last, ['pr9'], [['5', n]]]);
        await commit({ cleared: seq + 1 });
      }
      await commit({ cleared: seq + 1 });
      await mostGone();
      expect(await keysLeft()).to.deep.equal(['clock', 'forgotten', 'meta', 'offset:aggregates']);
    });

    it('are there as they should be when many groups are emptied again before all of the first have gone', async () => {
      const many = (n: number): string[] => Array.from({ length: 1_500 }, (_, i) => `["${n}.${i}"]`);
      for (let n = 0; n < 3; n++) {
        await commit({ windows: [...many(n), a].map((group) => windowOf(group, 0, n, { values })) });
        await commit({ cleared: seq + 1 });
      }
      await commit({ windows: [windowOf(a, 0, 9), windowOf(many(0)[1_499]!, 0, 9)] });
      await mostGone();
      expect(await groups()).to.have.members([a, many(0)[1_499]]);
      expect(await countsOf(a, 0, [0, 1, 2, 9])).to.deep.equal([undefined, undefined, undefined, 2]);
      expect((await keysLeft()).length).to.equal(5 + 2 * 2);
    });

    it('go bit by bit when they are old, with their rows, and without those that are elsewhere by then', async () => {
      const row = (n: number): string => `r${n}`;
      await commit({
        windows: [windowOf(a, 0, 3, { values }), windowOf(a, 0, 9)],
        points: [
          { group: a, index: 3, points: new Map(all.map((n) => [row(n), { at: 3 * minute, id: row(n), value: '3', row: row(n) }])) },
          { group: a, index: 9, points: new Map([['x', { at: 9 * minute, id: 'x', value: '3', row: 'x' }]]) },
        ],
        rows: new Map([...all.map(row), 'x'].map((name) => [name, { group: a, at: 3 * minute, id: name, value: '3' }])),
      });
      const meta = { logTime: 0, numbers: [], oldest: [9, 0] };
      const left = (): Promise<number> => redis.client.hlen(`${redis.keys.prefix}:rows`);
      await commit({ meta });
      expect(await left()).to.be.within(1, size);
      const [still] = await redis.client.hkeys(aggregateKeys.points(redis.keys.prefix, 3, a));
      const moved = { group: a, at: 9 * minute, id: still!, value: '4' };
      await commit({
        meta,
        rows: new Map([[still!, moved]]),
        points: [
          { group: a, index: 3, points: new Map([[still!, undefined]]) },
          { group: a, index: 9, points: new Map([[still!, { ...moved, row: still! }]]) },
        ],
      });
      for (let n = 0; n < 3; n++) await commit({ meta });
      expect(await redis.client.hkeys(`${redis.keys.prefix}:rows`)).to.have.members([still, 'x']);
      expect(await countsOf(a, 0, [3, 9])).to.deep.equal([undefined, 2]);
      expect((await keysLeft()).filter((key) => /^[vbp]:/.test(key))).to.deep.equal([`p:9:${a}`]);
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
    for (let i = 0; i < 5; i++) await commit({ meta: { logTime: 0, numbers: [], oldest: [3, 1] } });
    expect(await countsOf(many[0]!, 0, [3])).to.deep.equal([2]);
    for (let i = 0; i < 5; i++) await commit({ meta: { logTime: 0, numbers: [], oldest: [4, 1] } });
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

  it('never forget less than before, whatever is emptied or too much meanwhile', async () => {
    const { prefix } = redis.keys;
    await forgetChanges(redis.client, redis.keys, 9);
    await commit({ cleared: 1 });
    await commit({ changed: Array.from({ length: 100_001 }, (_, i) => ({ group: a, index: i, seq: 2 })) });
    expect(await redis.client.get(aggregateKeys.forgotten(prefix))).to.equal('10');
  });

  it('remember from when to when events are missing that they had to skip', async () => {
    await commit({
      meta: { logTime: 5 * minute, numbers: [], oldest: [-115, -1] },
      windows: [windowOf(a, 0, 3)],
      changed: [{ group: a, index: 3, seq: 1 }],
    });
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
    expect(await store.wipe(statePatterns, (await store.offset())!)).to.equal(true);
    expect(await keysLeft()).to.deep.equal(['forgotten', 'lease:aggregates', 'offset:aggregates']);
    expect(await store.offset()).to.equal(undefined);
    await store.commit(effectsOf({ windows: [windowOf(a, 0, 3)] }), undefined, { seq: 1, epoch: 'e' });
    await removeNamespace(redis.client, redis.keys, new AbortController().signal);
    expect(await keysLeft()).to.deep.equal([]);
  });
});
