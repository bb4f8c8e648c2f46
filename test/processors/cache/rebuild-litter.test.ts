import { expect } from 'chai';
import type { NewEvent } from '../../../pipeline/log/event-log.ts';
import type { Beside, Steering } from '../../../pipeline/runner/rebuild/model.ts';
import type { CacheEffects } from '../../../processors/cache/fold.ts';
import { cacheBeside } from '../../../processors/cache/rebuild.ts';
import { RedisRows } from '../../../processors/cache/redis-rows.ts';
import { defaultCatalog } from '../../../schemas/catalog.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { redisNamespace, type RedisNamespace } from '../../support/redis-namespace.ts';
import { rowEvent, tickEvent } from '../../support/row-events.ts';
import { unsteered } from '../../support/unsteered.ts';
import { foldInto, liveCache } from './support/cache-folds.ts';

const inserted = (n: number, id: number, table = 'prices'): NewEvent =>
  rowEvent(n, 'insert', { table, key: { id: `${id}` }, after: { id: `${id}`, n } });
const rowsBefore = 1_500;
const rowsAfter = 150;

/** Rows of before a truncate are removed bit by bit, with the commits that follow: a flip may come while some of them are still there. */
describe('rebuild of the cache, with rows that are still to be removed', () => {
  let redis: RedisNamespace;
  let log: MemoryLog;
  let steering: Steering;
  before(async () => {
    redis = await redisNamespace();
  });
  beforeEach(async () => {
    await redis.empty();
    log = new MemoryLog();
    steering = unsteered(new AbortController().signal);
  });
  after(() => redis.close());

  const append = async (make: (n: number) => NewEvent): Promise<void> => void (await log.append([make(log.head + 1)], log.head));
  const hashes = async (of = redis.keys.prefix): Promise<number> => (await redis.client.keys(`${of}:row:public.prices:*`)).length;

  async function insertAll(): Promise<void> {
    for (let id = 0; id < rowsBefore; id++) await append((n) => inserted(n, id));
  }

  async function filledBeside(): Promise<Beside<CacheEffects>> {
    const beside = cacheBeside(redis.client, redis.keys);
    await beside.begin();
    await beside.clear();
    await foldInto(beside.store, log);
    return beside;
  }

  /** So many commits that nothing is left to be removed. */
  async function foldTicks(): Promise<void> {
    for (let n = 0; n < 20; n++) {
      await append(tickEvent);
      await foldInto(liveCache(redis), log);
    }
  }

  async function scanned(): Promise<number> {
    let seen = 0;
    for await (const page of new RedisRows(redis.client, defaultCatalog(), redis.keys).rows('public.prices')) seen += page.length;
    return seen;
  }

  /** Rows that come again later have to be in scans. */
  async function requireComingAgain(): Promise<void> {
    await foldTicks();
    expect(await hashes(), 'rows of before the truncate').to.equal(0);
    for (let id = 0; id < rowsAfter; id++) await append((n) => inserted(n, id * 10));
    await foldInto(liveCache(redis), log);
    expect(await scanned(), 'rows in a scan').to.equal(rowsAfter);
  }

  it('leaves them to the live cache where both hide the same of their table, and not of another one', async () => {
    await insertAll();
    await append((n) => inserted(n, 1, 'other'));
    // The live one has left the other table out.
    await foldInto(liveCache(redis), log, log.head, ({ uncached }) => uncached.set('public.other', log.head));
    await append((n) => rowEvent(n, 'truncate'));
    await foldInto(liveCache(redis), log);
    const beside = await filledBeside();
    await beside.compare(steering);
    expect(await hashes()).to.be.greaterThan(rowsBefore / 2);
    expect(await beside.flip(steering)).to.equal('flipped');
    await requireComingAgain();
  });

  it('lets none come to where nothing removes them, when the live one comes past the truncate after the comparison', async () => {
    await insertAll();
    await foldInto(liveCache(redis), log);
    const beside = await filledBeside();
    await append((n) => rowEvent(n, 'truncate'));
    for (let n = 0; n < 2; n++) await append(tickEvent);
    await foldInto(beside.store, log);
    expect(await beside.compare(steering)).to.include({ changing: rowsBefore });
    for (let to = log.head - 2; to <= log.head; to++) await foldInto(liveCache(redis), log, to);
    expect(await hashes()).to.be.greaterThan(rowsBefore / 2);
    expect(await beside.flip(steering)).to.equal('flipped');
    await requireComingAgain();
  });

  it('takes what is still to be removed along with the table that was left out', async () => {
    await insertAll();
    await foldInto(liveCache(redis), log);
    await append(tickEvent);
    await foldInto(liveCache(redis), log, log.head, ({ uncached }) => uncached.set('public.prices', log.head));
    const beside = await filledBeside();
    await beside.compare(steering);
    expect(await beside.flip(steering)).to.equal('flipped');
    await foldTicks();
    expect(await scanned(), 'rows in a scan').to.equal(rowsBefore);
    expect(await hashes(), 'rows').to.equal(rowsBefore);
  });
});
