import { expect } from 'chai';
import type { RedisClient } from '../../../pipeline/clients/redis.ts';
import type { NewEvent } from '../../../pipeline/log/event-log.ts';
import type { Beside, Comparison, Rebuildable } from '../../../pipeline/runner/rebuild/model.ts';
import { rebuildable } from '../../../pipeline/runner/rebuild/rebuild.ts';
import { RedisStateStore } from '../../../pipeline/runner/redis-state-store.ts';
import { startRunner } from '../../../pipeline/runner/runner.ts';
import { HeadwaterError } from '../../../pipeline/runtime/errors.ts';
import type { Role, RoleContext } from '../../../pipeline/runtime/lifecycle.ts';
import { cacheProcessor, type CacheEffects } from '../../../processors/cache/fold.ts';
import { cacheBeside } from '../../../processors/cache/rebuild.ts';
import { redisCache } from '../../../processors/cache/redis-cache.ts';
import { RedisRows } from '../../../processors/cache/redis-rows.ts';
import { defaultCatalog } from '../../../schemas/catalog.ts';
import { Random } from '../../pipeline/capture/support/random.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { redisNamespace, type RedisNamespace } from '../../support/redis-namespace.ts';
import { roleContext, until } from '../../support/role-context.ts';
import { rowEvent, tickEvent } from '../../support/row-events.ts';
import { unsteered } from '../../support/unsteered.ts';

const catalog = defaultCatalog();
const noLetters = { publish: () => Promise.reject(new Error('no event of this test is poison')) };

const price = (n: number, id: number, op = 'update'): NewEvent =>
  op === 'delete'
    ? rowEvent(n, op, { key: { id: `${id}` }, before: { id: `${id}` } })
    : rowEvent(n, op, { key: { id: `${id}` }, after: { id: `${id}`, n } });

describe('rebuild of the cache', () => {
  let redis: RedisNamespace;
  let log: MemoryLog;
  let rows: RedisRows;
  let stop: AbortController;
  let context: RoleContext;
  let live: Role | undefined;
  before(async () => {
    redis = await redisNamespace();
    rows = new RedisRows(redis.client, catalog, redis.keys);
  });
  beforeEach(async () => {
    await redis.empty();
    log = new MemoryLog();
    stop = new AbortController();
    context = roleContext(stop.signal);
  });
  afterEach(async () => {
    stop.abort();
    await live?.stop();
    live = undefined;
  });
  after(() => redis.close());

  const liveStore = () => new RedisStateStore(redis.client, 'cache', redis.keys, redisCache);
  const append = (events: readonly NewEvent[]): Promise<number> => log.append(events, log.head);

  function startLive(): Role {
    return (live = startRunner(roleContext(stop.signal), {
      eventLog: log,
      deadLetters: noLetters,
      store: liveStore(),
      processor: cacheProcessor(catalog),
    }));
  }

  function rebuildOf(): Rebuildable {
    return rebuildable(context, {
      eventLog: log,
      deadLetters: noLetters,
      beside: cacheBeside(redis.client, redis.keys),
      processor: cacheProcessor(catalog),
    });
  }

  /** What stands beside, as a process has it that works there from now on. */
  async function claimed(client: RedisClient = redis.client): Promise<Beside<CacheEffects>> {
    const beside = cacheBeside(client, redis.keys);
    await beside.claim((await beside.status())!);
    return beside;
  }

  const liveAt = async (seq: number): Promise<boolean> => (await liveStore().offset())?.seq === seq;

  /** What readers see: `<key>` → the row's `n`. */
  async function seen(): Promise<Map<string, number>> {
    const found = new Map<string, number>();
    for await (const page of rows.rows('public.prices')) {
      for (const { event } of page) {
        const { key, after } = JSON.parse(Buffer.from(event).toString()) as { key: { id: string }; after: { n: number } };
        found.set(key.id, after.n);
      }
    }
    return found;
  }

  /** A bug of before: values that no event has, a row that should be gone, one that is missing, one that is not listed. */
  async function spoil(): Promise<void> {
    const { client, keys } = redis;
    const row = (id: string): string => `${keys.prefix}:row:public.prices:${id}`;
    const [seq, event] = await client.hmget(row('1'), 'seq', 'event');
    await client.hset(row('1'), { seq: seq!, event: event!.replace(/"n":\d+/, '"n":-1') });
    await client.hset(row('ghost'), { seq: 3, event: event!.replace('"1"', '"ghost"') });
    await client.sadd(`${keys.prefix}:keys:public.prices`, 'ghost');
    await client.del(row('2'));
    await client.srem(`${keys.prefix}:keys:public.prices`, '2', '3');
  }

  /** Ticks go on while something is under way. */
  async function ticking<T>(work: Promise<T>): Promise<T> {
    let done = false;
    const ended = work.finally(() => (done = true));
    void ended.catch(() => undefined);
    while (!done) {
      await append([tickEvent(log.head + 1)]);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return ended;
  }

  it('mends what a bug has spoiled, keeps the former state, goes back to it, and drops it', async () => {
    for (let id = 1; id <= 300; id++) await append([price(log.head + 1, id, 'insert')]);
    await append([price(log.head + 1, 300, 'delete'), price(log.head + 2, 299)]);
    startLive();
    await until(() => liveAt(log.head));
    const right = await seen();
    await spoil();
    const wrong = await seen();
    expect(wrong).to.not.deep.equal(right);

    const rebuild = rebuildOf();
    let compared: Comparison | undefined;
    const { flipped, comparison } = await ticking(rebuild.rebuild({ flip: false, onCompared: (found) => (compared = found) }));
    expect(flipped).to.equal(false);
    expect(comparison).to.equal(compared);
    expect(comparison).to.include({ differences: 4, moving: 0, pauseMs: 0 });
    expect(comparison.listed.map(({ what }) => what)).to.have.members(['1', '2', '3', 'ghost'].map((id) => `public.prices/${id}`));
    expect(comparison.listed.find(({ what }) => what.endsWith('/ghost'))).to.include({ beside: undefined });
    expect(comparison.listed.find(({ what }) => what.endsWith('/2'))).to.include({ live: undefined });
    expect(await seen()).to.deep.equal(wrong);
    expect((await rebuild.status())?.state).to.equal('filling');

    const second = await ticking(rebuildOf().rebuild({ flip: true }));
    expect(second).to.include({ flipped: true });
    expect(second.comparison.differences).to.equal(4);
    expect(await seen()).to.deep.equal(right);
    expect((await rebuild.status())?.state).to.equal('kept');
    // The live one goes on where the new state is.
    await append([price(log.head + 1, 7)]);
    await until(() => liveAt(log.head));
    expect((await seen()).get('7')).to.equal(log.head);

    const refusal = await rebuildOf()
      .rebuild({ flip: true })
      .catch((error: unknown) => error);
    expect(refusal).to.include({ code: 'rebuild_kept' });
    await ticking(rebuildOf().rebuild({ flip: true, back: true }));
    const back = await seen();
    expect(back.get('ghost')).to.equal(wrong.get('ghost'));
    expect(back.has('2')).to.equal(false);
    await ticking(rebuildOf().rebuild({ flip: true, back: true }));
    expect((await seen()).get('2')).to.equal(right.get('2'));

    expect(await rebuildOf().remove('kept')).to.equal(true);
    expect(await rebuild.status()).to.equal(undefined);
    expect(await redis.client.keys(`${redis.keys.prefix}:rebuild:*`)).to.deep.equal([]);
    expect((await seen()).size).to.equal(right.size);
  });

  it('may be what snapshots are taken of after a trim, if a backfill brought back what the log no longer held', async () => {
    for (let id = 1; id <= 50; id++) await append([price(log.head + 1, id, 'insert')]);
    startLive();
    await until(() => liveAt(50));
    expect((await rows.position())?.from).to.equal(1);
    log.trim(40);
    const right = await seen();
    const backfill = async (): Promise<number> => {
      const by = log.head + 1;
      for (const [id, n] of right) {
        const key = { id };
        await append([rowEvent(log.head + 1, 'read', { key, after: { id, n } })]);
      }
      return by;
    };
    const rebuilt = async (onTrimmed: () => Promise<number | undefined>): Promise<number | undefined> => {
      await ticking(rebuildOf().rebuild({ flip: true, onTrimmed }));
      return (await rows.position())?.from;
    };
    expect(await rebuilt(backfill), 'after a backfill').to.equal(1);
    expect(await seen()).to.deep.equal(right);
    await rebuildOf().remove('kept');
    // Without one, rows are missing, and no later backfill of nobody's makes up for it: then the state of before is whole.
    expect(await rebuilt(() => Promise.resolve(undefined)), 'without a backfill').to.equal(40);
    await ticking(rebuildOf().rebuild({ flip: true, back: true }));
    expect((await rows.position())?.from, 'back again').to.equal(1);
    await rebuildOf().remove('kept');
    // A part of the backfill is trimmed, too, before the fold has begun.
    const late = async (): Promise<number> => {
      const by = await backfill();
      log.trim(by + 7);
      return by;
    };
    const refusal = await rebuilt(late).catch((error: unknown) => error);
    expect(refusal, 'when a part of the backfill is gone').to.have.property('code', 'rebuild_incomplete');
    expect((await rows.position())?.from, 'the live one').to.equal(1);
    expect(await seen()).to.deep.equal(right);
  });

  it('flips while a table without primary key is written and truncated, which no cache holds', async () => {
    for (let id = 1; id <= 300; id++) await append([price(log.head + 1, id, 'insert')]);
    const keyless = (n: number, op: string): NewEvent => rowEvent(n, op, { table: 'history', ...(op === 'insert' && { after: { n } }) });
    await append([keyless(log.head + 1, 'insert')]);
    startLive();
    await until(() => liveAt(log.head));
    await spoil();
    let done = false;
    const load = (async () => {
      while (!done) {
        const n = log.head;
        await append([keyless(n + 1, 'insert'), price(n + 2, (n % 300) + 1), keyless(n + 3, 'truncate'), tickEvent(n + 4)]);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    })();
    const giveUp = setTimeout(() => stop.abort(new Error('no flip in all this time')), 8_000);
    try {
      expect((await rebuildOf().rebuild({ flip: true })).flipped).to.equal(true);
    } finally {
      clearTimeout(giveUp);
      done = true;
      await load;
    }
    await until(() => liveAt(log.head));
    expect((await seen()).size).to.equal(300);
    expect(await rows.holds('public.history')).to.equal(false);
  });

  it('compares again, and says why, when a table is truncated or turns out to have no primary key after the comparison', async () => {
    const { signal } = stop;
    for (const event of [rowEvent(21, 'truncate'), rowEvent(21, 'insert', { after: { n: 1 } })]) {
      await redis.empty();
      log = new MemoryLog();
      for (let id = 1; id <= 20; id++) await append([price(log.head + 1, id, 'insert')]);
      startLive();
      await until(() => liveAt(20));
      await rebuildOf().rebuild({ flip: false });
      const beside = await claimed();
      const said = new Set<string>();
      const steering = { ...unsteered(signal), progress: (text: string) => said.add(text) };
      await beside.compare(steering);
      expect([...said].join('; ')).to.not.contain('again');
      const processor = cacheProcessor(catalog);
      const effects = processor.begin();
      processor.apply({ ...event, seq: 21 }, effects);
      const stored = (await beside.store.offset())!;
      expect(await beside.store.commit(effects, stored, { ...stored, seq: 21 })).to.equal('committed');
      expect(await beside.flip(steering), 'rows are hidden that the comparison saw').to.equal('compare');
      await beside.compare(steering);
      expect([...said].join('; ')).to.contain('again, since a table has been truncated');
      expect(await beside.flip(steering)).to.equal('flipped');
      expect(await seen().catch((error: { code?: string }) => error.code)).to.deep.equal(
        event.subject.endsWith('truncate') ? new Map() : 'rows_interrupted',
      );
      await live!.stop();
    }
  });

  it('leaves the comparison of another alone that has taken its turn over', async () => {
    for (let id = 1; id <= 300; id++) await append([price(log.head + 1, id, 'insert')]);
    startLive();
    await until(() => liveAt(log.head));
    await spoil();
    await rebuildOf().rebuild({ flip: false });
    const steering = unsteered(stop.signal);
    const [stale, beside] = [await claimed(), await claimed()];
    expect((await beside.compare(steering)).differences).to.equal(4);
    // It had been stopped for longer than a lease lasts, and wakes up.
    const failure = await stale.compare(steering).catch((error: unknown) => error);
    expect(failure).to.have.property('code', 'rebuild_overtaken');
    expect(await beside.flip(steering)).to.equal('flipped');
    expect((await seen()).get('2')).to.equal(2);
  });

  it('flips nothing on a comparison that was begun anew and came to no end', async () => {
    for (let id = 1; id <= 300; id++) await append([price(log.head + 1, id, 'insert')]);
    startLive();
    await until(() => liveAt(log.head));
    await spoil();
    const wrong = await seen();
    await rebuildOf().rebuild({ flip: false });
    let scans = 0;
    const dying = new Proxy(redis.client, {
      get(client, name) {
        const found: unknown = Reflect.get(client, name);
        if (name === 'scan' && ++scans > 1) throw new HeadwaterError('killed', 'killed');
        return typeof found === 'function' ? (found.bind(client) as unknown) : found;
      },
    });
    const [first, steering] = [await claimed(), unsteered(stop.signal)];
    await first.compare(steering);
    const second = await claimed(dying);
    expect(await second.compare(steering).catch((error: unknown) => error)).to.have.property('message', 'killed');
    const third = await claimed();
    expect(await third.flip(steering)).to.equal('compare');
    expect(await seen()).to.deep.equal(wrong);
  });

  it('tells who reads over several calls that it was flipped meanwhile', async () => {
    for (let n = 0; n < 3; n++) await append(Array.from({ length: 500 }, (_, i) => price(log.head + 1 + i, n * 500 + i, 'insert')));
    startLive();
    await until(() => liveAt(log.head));
    const begun = await rows.position();
    const reading = rows.rows('public.prices')[Symbol.asyncIterator]();
    expect((await reading.next()).done).to.equal(false);
    await ticking(rebuildOf().rebuild({ flip: true }));
    for (const late of [reading, rows.rows('public.prices', { of: begun })[Symbol.asyncIterator]()]) {
      const failure = await late.next().then(
        () => 'rows of before the flip and of after it',
        (error: unknown) => error,
      );
      expect(failure).to.have.property('code', 'rows_interrupted');
    }
    expect((await seen()).size).to.equal(1_500);
    // The number of the making stays while it is written.
    const flipped = await rows.position();
    await append([price(log.head + 1, 7)]);
    await until(() => liveAt(log.head));
    expect((await rows.position())?.making).to.equal(flipped!.making);
    expect(flipped!.making).to.not.equal(begun!.making);
  });

  it('is right after any mixture of changes and truncates under way, whatever was spoiled', async () => {
    const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 1e9));
    const random = new Random(seed);
    const change = (): NewEvent => {
      const [n, chance] = [log.head + 1, random.next()];
      if (chance < 0.004) return rowEvent(n, 'truncate');
      return price(n, random.int(1, 60), chance < 0.15 ? 'delete' : 'update');
    };
    const { client, keys } = redis;
    for (let round = 0; round < 6; round++) {
      for (let n = 0; n < 400; n++) await append([change()]);
      if (!live) startLive();
      await until(() => liveAt(log.head));
      // What no event has done: rows that are wrong, are gone, come back, are hidden.
      for (let n = 0; n < 8; n++) {
        const id = random.int(1, 60);
        const row = `${keys.prefix}:row:public.prices:${id}`;
        const chance = random.next();
        if (chance < 0.3) await client.del(row);
        else if (chance < 0.5) await client.srem(`${keys.prefix}:keys:public.prices`, `${id}`);
        else if (chance < 0.9) {
          await client.hset(row, { seq: random.int(1, log.head), event: Buffer.from(price(1, id).data) });
          await client.sadd(`${keys.prefix}:keys:public.prices`, `${id}`);
        } else await client.hset(`${keys.prefix}:truncated`, 'public.prices', log.head - random.int(0, 50));
      }
      let done = false;
      const load = (async () => {
        while (!done) {
          await append([change(), tickEvent(log.head + 2)]);
          await new Promise((resolve) => setTimeout(resolve, random.int(0, 6)));
        }
      })();
      try {
        expect((await rebuildOf().rebuild({ flip: true })).flipped, `seed ${seed}`).to.equal(true);
      } finally {
        done = true;
        await load;
      }
      await until(() => liveAt(log.head));
      const expected = new Map<string, number>();
      for (let seq = 1; seq <= log.head; seq++) {
        const { op, key } = JSON.parse(Buffer.from((await log.get(seq))!.data).toString()) as { op?: string; key: { id: string } };
        if (op === 'truncate') expected.clear();
        else if (op === 'delete') expected.delete(key.id);
        else if (op) expected.set(key.id, seq);
      }
      expect([...(await seen())], `seed ${seed}, round ${round}`).to.have.deep.members([...expected]);
      for (let id = 1; id <= 60; id++) {
        const answer = await rows.row('public.prices', `${id}`);
        expect(answer.known === 'row' ? answer.seq : undefined, `seed ${seed}, row ${id}`).to.equal(expected.get(`${id}`));
      }
      expect(await rebuildOf().remove('kept')).to.equal(true);
    }
  });
});
