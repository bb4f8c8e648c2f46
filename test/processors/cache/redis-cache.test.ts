import { expect } from 'chai';
import fc from 'fast-check';
import type { NewEvent } from '../../../pipeline/log/event-log.ts';
import { RedisStateStore } from '../../../pipeline/runner/redis-state-store.ts';
import { startRunner } from '../../../pipeline/runner/runner.ts';
import { cacheProcessor, type CacheEffects } from '../../../processors/cache/fold.ts';
import { cacheKeys, cachePatterns, redisCache } from '../../../processors/cache/redis-cache.ts';
import { RedisRows } from '../../../processors/cache/redis-rows.ts';
import { defaultCatalog } from '../../../schemas/catalog.ts';
import { encodeRowKey } from '../../../schemas/row-key.ts';
import { FaultyLog } from '../../support/faulty-log.ts';
import { redisNamespace, type RedisNamespace } from '../../support/redis-namespace.ts';
import { roleContext, until } from '../../support/role-context.ts';
import { rowEvent } from '../../support/row-events.ts';

const catalog = defaultCatalog();
const noLetters = { publish: () => Promise.reject(new Error('no event of this test is poison')) };

/** A change of one of a few rows of two tables, so that they meet often. */
type Change =
  { op: 'set' | 'read' | 'delete' | 'truncate'; table: string; id: string } | { op: 'move'; table: string; id: string; to: string };

const table = fc.constantFrom('prices', 'odd: 100%');
const id = fc.constantFrom('a', 'b', 'c:d', 'é %', 'x/y', '');
const change: fc.Arbitrary<Change> = fc.oneof(
  { weight: 12, arbitrary: fc.record({ op: fc.constantFrom('set' as const, 'read' as const, 'delete' as const), table, id }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('move' as const), table, id, to: id }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('truncate' as const), table, id }) },
);

function toEvent(n: number, { op, table: name, id: key, ...rest }: Change): NewEvent {
  const row = (value: string): { key: { id: string }; after: { id: string; n: number } } => ({
    key: { id: value },
    after: { id: value, n },
  });
  if (op === 'truncate') return rowEvent(n, op, { table: name });
  if (op === 'delete') return rowEvent(n, op, { table: name, key: { id: key }, before: { id: key } });
  if ('to' in rest) return rowEvent(n, 'update', { table: name, ...row(rest.to), before: { id: key } });
  return rowEvent(n, op === 'read' ? op : 'insert', { table: name, ...row(key) });
}

/** The rows that exist after all changes: `<table>/<key>` → sequence. */
function model(changes: readonly Change[]): Map<string, number> {
  const rows = new Map<string, number>();
  changes.forEach(({ op, table: name, id: key, ...rest }, i) => {
    const path = (value: string): string => `public.${name}/${encodeRowKey([value])}`;
    if (op === 'truncate') for (const found of [...rows.keys()]) if (found.startsWith(`public.${name}/`)) rows.delete(found);
    if (op === 'delete' || op === 'move') rows.delete(path(key));
    if (op === 'set' || op === 'read') rows.set(path(key), i + 1);
    if ('to' in rest) rows.set(path(rest.to), i + 1);
  });
  return rows;
}

describe('cache in Redis', () => {
  let redis: RedisNamespace;
  let store: RedisStateStore<CacheEffects>;
  let rows: RedisRows;
  before(async () => {
    redis = await redisNamespace();
    store = new RedisStateStore(redis.client, 'cache', redis.keys, redisCache);
    rows = new RedisRows(redis.client, catalog, redis.keys);
  });
  beforeEach(() => redis.empty());
  after(() => redis.close());

  /** Folds events into the store in batches of the given sizes. */
  async function fold(events: readonly NewEvent[], sizes: readonly number[] = [events.length], after = 0): Promise<void> {
    const processor = cacheProcessor(catalog);
    let stored = await store.offset();
    for (let at = 0, i = 0; at < events.length; i++) {
      const batch = events.slice(at, at + sizes[i % sizes.length]!);
      const effects = processor.begin();
      batch.forEach((event, n) => processor.apply({ ...event, seq: after + at + n + 1 }, effects));
      at += batch.length;
      if (!stored) {
        stored = { seq: 0, epoch: 'e' };
        await store.commit(processor.begin(), undefined, stored);
      }
      const next = { seq: after + at, epoch: 'e' };
      expect(await store.commit(effects, stored, next)).to.equal('committed');
      stored = next;
    }
  }

  async function scan(name: string): Promise<Map<string, number>> {
    const found = new Map<string, number>();
    for await (const page of rows.rows(name)) {
      for (const { seq, event } of page) {
        const { key } = JSON.parse(Buffer.from(event).toString()) as { key: { id: string } };
        found.set(`${name}/${encodeRowKey([key.id])}`, seq);
      }
    }
    return found;
  }

  it('equals a model after any history, in whatever batches it comes', async () => {
    const property = fc.asyncProperty(
      fc.array(change, { minLength: 1, maxLength: 60 }),
      fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 5 }),
      async (changes, sizes) => {
        await redis.empty();
        const events = changes.map((one, i) => toEvent(i + 1, one));
        await fold(events, sizes);
        const expected = model(changes);
        const scanned = new Map([...(await scan('public.prices')), ...(await scan('public.odd: 100%'))]);
        expect(Object.fromEntries(scanned)).to.deep.equal(Object.fromEntries(expected));
        for (const name of ['prices', 'odd: 100%']) {
          for (const value of ['a', 'b', 'c:d', 'é %', 'x/y', '']) {
            const answer = await rows.row(`public.${name}`, encodeRowKey([value]));
            const seq = expected.get(`public.${name}/${encodeRowKey([value])}`);
            expect(answer.asOf).to.equal(changes.length);
            expect(answer.known === 'row' ? answer.seq : undefined, `${name}/${value}: ${answer.known}`).to.equal(seq);
            if (answer.known === 'row') expect(answer.event.equals(events[answer.seq - 1]!.data)).to.equal(true);
          }
        }
      },
    );
    await fc.assert(property, { numRuns: 150 });
  });

  it('remembers deleted rows for a day, and rows that come back for ever', async () => {
    const set = rowEvent(1, 'insert', { key: { id: 1 }, after: { id: 1 } });
    await fold([set, rowEvent(2, 'delete', { key: { id: 1 } })], [1]);
    const key = cacheKeys.row(redis.keys.prefix, 'public.prices', '1');
    expect(await redis.client.pttl(key)).to.be.within(23 * 3_600_000, 24 * 3_600_000);
    expect((await rows.row('public.prices', '1')).known).to.equal('absent');
    await fold([set], [1], 2);
    expect(await redis.client.pttl(key)).to.equal(-1);
    expect((await rows.row('public.prices', '1')).known).to.equal('row');
  });

  it('removes what a truncate left, bit by bit, but never a row of after it', async () => {
    const many = Array.from({ length: 450 }, (_, i) => rowEvent(i + 1, 'insert', { key: { id: i }, after: { id: i } }));
    await fold([...many, rowEvent(451, 'truncate'), rowEvent(452, 'insert', { key: { id: 7 }, after: { id: 7 } })]);
    expect((await rows.row('public.prices', '8')).known).to.be.oneOf(['absent', 'nothing']);
    const ticks = Array.from({ length: 5 }, () => ({ subject: 'ev._tick', data: Buffer.from('{}') }));
    await fold(ticks, [1], 452);
    const left = await redis.client.keys(`${redis.keys.prefix}:*`);
    expect(left.filter((key) => key.includes(':row:'))).to.deep.equal([cacheKeys.row(redis.keys.prefix, 'public.prices', '7')]);
    expect(left.filter((key) => key.includes(':dropped'))).to.deep.equal([]);
  });

  it('gives every row to a reader while rows change under it', async () => {
    const count = 3_000;
    await fold(
      Array.from({ length: count }, (_, i) => rowEvent(i + 1, 'insert', { key: { id: i }, after: { id: i } })),
      [1_000],
    );
    const seen = new Map<number, number>();
    let seq = count;
    for await (const page of rows.rows('public.prices')) {
      for (const row of page) seen.set((JSON.parse(Buffer.from(row.event).toString()) as { key: { id: number } }).key.id, row.seq);
      if (seq >= count + 600) continue;
      const again = Array.from({ length: 200 }, (_, i) => (i * 13 + seq) % count).map((id_, i) =>
        rowEvent(seq + i + 1, 'update', { key: { id: id_ }, after: { id: id_ } }),
      );
      await fold(again, [200], seq);
      seq += 200;
    }
    expect(seen.size).to.equal(count);
  });

  it('tells a reader when the cache was emptied under it', async () => {
    await fold(Array.from({ length: 1_200 }, (_, i) => rowEvent(i + 1, 'insert', { key: { id: i }, after: { id: i } })));
    const reading = rows.rows('public.prices')[Symbol.asyncIterator]();
    await reading.next();
    await redis.empty();
    await reading.next().then(
      () => expect.fail('the rest of the rows was silently left out'),
      (error: { code?: string }) => expect(error.code).to.equal('rows_interrupted'),
    );
  });

  it('tells a reader when the table stopped being held under it, in the end at the latest', async () => {
    await fold(Array.from({ length: 1_200 }, (_, i) => rowEvent(i + 1, 'insert', { key: { id: i }, after: { id: i } })));
    const data = { phase: 'begin', table: 'public.prices', large: true };
    const mark = { subject: 'ev._mark.backfill', data: Buffer.from(JSON.stringify({ mark: 'backfill', data })) };
    let failure: unknown;
    let given = 0;
    try {
      for await (const page of rows.rows('public.prices')) {
        if (given === 0) await fold([mark], [1], 1_200);
        given += page.length;
      }
    } catch (error) {
      failure = error;
    }
    expect(await rows.holds('public.prices')).to.equal(false);
    expect(failure, `${given} rows looked like all`).to.have.property('code', 'rows_interrupted');
  });

  it('has no position while it is empty, and says where it began', async () => {
    expect(await rows.position()).to.equal(undefined);
    const log = new FaultyLog();
    log.add(...Array.from({ length: 10 }, (_, i) => rowEvent(i + 1, 'insert', { key: { id: i }, after: { id: i } })));
    log.trim(5);
    const role = startRunner(roleContext(), { eventLog: log, processor: cacheProcessor(catalog), store, deadLetters: noLetters });
    await until(async () => (await store.offset())?.seq === 10);
    await role.stop();
    expect(await rows.position()).to.include({ seq: 10, from: 5 });
  });

  it('forgets the rows of another epoch and starts at the new one’s first event', async () => {
    await fold([rowEvent(1, 'insert', { key: { id: 'old' }, after: { id: 'old' } })]);
    const log = new FaultyLog();
    log.add(...Array.from({ length: 10 }, (_, i) => rowEvent(i + 1, 'insert', { key: { id: i }, after: { id: i } })));
    [log.epoch, log.epochStart] = ['epoch-2', 8];
    const mend = async (): Promise<boolean> => {
      return store.wipe(cachePatterns, (await store.offset())!);
    };
    const role = startRunner(roleContext(), { eventLog: log, processor: cacheProcessor(catalog), store, deadLetters: noLetters, mend });
    await until(async () => (await store.offset())?.seq === 10);
    await role.stop();
    const { making, ...position } = (await rows.position())!;
    expect(position).to.deep.equal({ seq: 10, epoch: 'epoch-2', from: 8 });
    expect(making, 'who reads over several calls sees that it is another one').to.be.a('string');
    const known = await Promise.all(['old', '5', '7', '9'].map(async (key) => (await rows.row('public.prices', key)).known));
    expect(known).to.deep.equal(['nothing', 'nothing', 'row', 'row']);
  });

  it('does not hold tables with rows that have no primary key, nor those the catalogue keeps out', async () => {
    await fold([rowEvent(1, 'insert', { table: 'keyless', after: { id: 1 } }), rowEvent(2, 'insert', { key: { id: 1 }, after: {} })]);
    expect(await rows.holds('public.prices')).to.equal(true);
    expect(await rows.holds('public.keyless')).to.equal(false);
    expect(await rows.holds('headwater.api_keys')).to.equal(false);
    expect(await rows.holds('pg_catalog.pg_authid')).to.equal(false);
  });

  it('forgets a table that turns out to be large, and takes nothing of it any more, in whatever batches it comes', async () => {
    const big = 'odd: 100%';
    const insert = (n: number, id_: string): NewEvent => rowEvent(n, 'insert', { table: big, key: { id: id_ }, after: { id: id_ } });
    const data = { phase: 'begin', table: `public.${big}`, large: true };
    const mark = { subject: 'ev._mark.backfill', data: Buffer.from(JSON.stringify({ mark: 'backfill', data })) };
    const history = [
      insert(1, 'a'),
      rowEvent(2, 'insert', { key: { id: 'a' }, after: { id: 'a' } }),
      mark,
      insert(4, 'b'),
      rowEvent(5, 'delete', { table: big, key: { id: 'a' } }),
      rowEvent(6, 'truncate', { table: big }),
      insert(7, 'a'),
      rowEvent(8, 'insert', { key: { id: 'b' }, after: { id: 'b' } }),
    ];
    for (const sizes of [[8], [1], [2, 3]]) {
      await redis.empty();
      await fold(history, sizes);
      expect(await rows.holds(`public.${big}`)).to.equal(false);
      for (const key of ['a', 'b']) {
        expect(await rows.row(`public.${big}`, key), key).to.deep.equal({ asOf: 8, known: 'nothing' });
        expect((await rows.row('public.prices', key)).known, key).to.equal('row');
      }
      await scan(`public.${big}`).then(
        () => expect.fail('no rows looked like all of them'),
        (error: { code?: string }) => expect(error.code).to.equal('rows_interrupted'),
      );
      expect([...(await scan('public.prices')).values()]).to.have.members([2, 8]);
      // The next commits remove what was there before.
      await fold(
        Array.from({ length: 4 }, () => ({ subject: 'ev._tick', data: Buffer.from('{}') })),
        [1],
        8,
      );
      const left = await redis.client.keys(`${redis.keys.prefix}:*`);
      expect(left.filter((key) => key.includes('odd')).map((key) => key.slice(redis.keys.prefix.length))).to.deep.equal([]);
    }
  });

  it('fills an emptied Redis again from the log, while it runs', async () => {
    const log = new FaultyLog();
    const insert = (n: number): NewEvent => rowEvent(n, 'insert', { key: { id: n }, after: { id: n } });
    log.add(...Array.from({ length: 500 }, (_, i) => insert(i + 1)));
    const role = startRunner(roleContext(), { eventLog: log, processor: cacheProcessor(catalog), store, deadLetters: noLetters });
    await until(async () => (await store.offset())?.seq === 500);
    await redis.empty();
    log.add(insert(501));
    await until(async () => (await store.offset())?.seq === 501);
    await role.stop();
    expect((await scan('public.prices')).size).to.equal(501);
  });
});
