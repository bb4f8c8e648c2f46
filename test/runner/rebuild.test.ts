import { expect } from 'chai';
import { migrate } from '../../deploy/migrate.ts';
import { createPool, type PgPool } from '../../pipeline/clients/postgres.ts';
import type { Bounds, NewEvent } from '../../pipeline/log/event-log.ts';
import type { DeadLetter, DeadLetters } from '../../pipeline/runner/dead-letters.ts';
import { PostgresStateStore, type PostgresEffects } from '../../pipeline/runner/postgres-state-store.ts';
import type { Processor } from '../../pipeline/runner/processor.ts';
import type { Beside, Rebuildable } from '../../pipeline/runner/rebuild/model.ts';
import { rebuildable } from '../../pipeline/runner/rebuild/rebuild.ts';
import { postgresBeside } from '../../pipeline/runner/rebuild/postgres.ts';
import { livePrefix, redisBeside } from '../../pipeline/runner/rebuild/redis.ts';
import { RedisStateStore, type RedisEffects } from '../../pipeline/runner/redis-state-store.ts';
import { startRunner } from '../../pipeline/runner/runner.ts';
import type { StateStore } from '../../pipeline/runner/state-store.ts';
import type { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import type { Role } from '../../pipeline/runtime/lifecycle.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { MemoryLog } from '../support/memory-log.ts';
import { redisNamespace, type RedisNamespace } from '../support/redis-namespace.ts';
import { roleContext, until } from '../support/role-context.ts';
import { tickEvent } from '../support/row-events.ts';
import { freshDatabase, type FreshDatabase } from '../support/servers.ts';

type Counts = Map<string, number>;
const noLetters = { publish: () => Promise.reject(new Error('no event of this test is poison')) };

/** Somebody's own processor: counts the events of each subject. */
const counter = (): Processor<Counts> => ({
  name: 'counter',
  begin: () => new Map(),
  apply: ({ subject }, counts) => void counts.set(subject, (counts.get(subject) ?? 0) + 1),
});

const inRedis: RedisEffects<Counts> = {
  lua: `for n = first, #ARGV, 2 do redis.call('HINCRBY', prefix .. ':counts', ARGV[n], ARGV[n + 1]) end`,
  encode: (counts) => [...counts].flat(),
};

const inPostgres: PostgresEffects<Counts> = {
  isEmpty: (counts) => counts.size === 0,
  async write(client, counts, namespace) {
    for (const [subject, count] of counts)
      await client.query(
        `INSERT INTO counts AS c VALUES ($1, $2, $3) ON CONFLICT (processor, subject) DO UPDATE SET count = c.count + excluded.count`,
        [namespace, subject, count],
      );
  },
};

interface Place {
  readonly live: StateStore<Counts>;
  beside(): Beside<Counts>;
  /** The live counts as a reader finds them. */
  read(): Promise<Record<string, number>>;
  spoil(): Promise<unknown>;
  /** How many keys or rows of state there are altogether. */
  size(): Promise<number>;
  /** An offset beside that nobody knows of, with state where the next one will be made. */
  litter(): Promise<unknown>;
}

interface Gated {
  readonly beside: Beside<Counts>;
  open(): void;
}

/** A process that does not get the lease until it is let, as if it were asleep, or another one had it. */
function gated(beside: Beside<Counts>): Gated {
  let isOpen = false;
  const lease = (owner: string, ttlMs: number): Promise<boolean> => (isOpen ? beside.store.lease(owner, ttlMs) : Promise.resolve(false));
  const store = new Proxy(beside.store, {
    get(target, key) {
      if (key === 'lease') return lease;
      const value: unknown = Reflect.get(target, key);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
  return { beside: { ...beside, store }, open: () => void (isOpen = true) };
}

const codeOf = (error: unknown): string => (error as HeadwaterError).code;

describe('rebuild of a processor of one’s own', () => {
  let redis: RedisNamespace;
  let database: FreshDatabase;
  let pool: PgPool;
  before(async () => {
    redis = await redisNamespace();
    database = await freshDatabase();
    await migrate(database.url, { demo: false, log: silentLogger() });
    pool = createPool(database.url, 'test', silentLogger(), 12);
    await pool.query('CREATE TABLE counts (processor text, subject text, count int, PRIMARY KEY (processor, subject))');
  });
  after(async () => {
    await redis.close();
    await pool.end();
    await database.drop();
  });

  const places: Readonly<Record<string, () => Place>> = {
    Redis: () => {
      const { client, keys } = redis;
      const prefix = (): Promise<string> => livePrefix(client, 'counter', keys);
      return {
        live: new RedisStateStore(client, 'counter', keys, inRedis),
        beside: () => redisBeside({ client, processor: 'counter', keys, effects: inRedis, patterns: ['counts'] }),
        read: async () =>
          Object.fromEntries(Object.entries(await client.hgetall(`${await prefix()}:counts`)).map(([name, n]) => [name, Number(n)])),
        spoil: async () => client.hset(`${await prefix()}:counts`, 'a', 999),
        size: async () => (await client.keys(`${keys.prefix}:*counts`)).length,
        litter: async () => {
          const place = `${keys.prefix}:rebuild:counter`;
          await client.hset(`${place}:offset:counter`, { seq: 4, epoch: 'epoch-1', 'hole:2': '' });
          await client.hset(`${place}:counts`, 'ghost', 3);
        },
      };
    },
    PostgreSQL: () => {
      const live = `(SELECT coalesce(namespace, processor) FROM headwater.processor_offsets WHERE processor = 'counter')`;
      return {
        live: new PostgresStateStore(pool, 'counter', inPostgres),
        beside: () => postgresBeside({ pool, processor: 'counter', effects: inPostgres, tables: ['counts'] }),
        read: async () => {
          const { rows } = await pool.query<{ subject: string; count: number }>(
            `SELECT subject, count FROM counts WHERE processor = ${live}`,
          );
          return Object.fromEntries(rows.map(({ subject, count }) => [subject, count]));
        },
        spoil: () => pool.query(`UPDATE counts SET count = 999 WHERE subject = 'a' AND processor = ${live}`),
        litter: async () => {
          await pool.query(
            `INSERT INTO headwater.processor_offsets (processor, seq, epoch, holes) VALUES ('counter~rebuild', 4, 'epoch-1', '{2}')`,
          );
          await pool.query(`INSERT INTO counts VALUES ('counter~rebuild', 'ghost', 3)`);
        },
        size: async () => Number((await pool.query<{ n: string }>('SELECT count(DISTINCT processor) AS n FROM counts')).rows[0]!.n),
      };
    },
  };

  for (const [name, make] of Object.entries(places)) {
    describe(`in ${name}`, () => {
      let log: MemoryLog;
      let place: Place;
      let live: Role | undefined;
      let stop: AbortController;
      beforeEach(async () => {
        await redis.empty();
        await pool.query('TRUNCATE counts, headwater.processor_offsets, headwater.processor_rebuilds');
        log = new MemoryLog();
        place = make();
        stop = new AbortController();
      });
      afterEach(async () => {
        stop.abort();
        await live?.stop();
      });

      const append = (...events: NewEvent[]): Promise<number> => log.append(events, log.head);
      const event = (subject: string): NewEvent => ({ subject, data: tickEvent(log.head + 1).data });
      const total = async (): Promise<number> => Object.values(await place.read()).reduce((sum, n) => sum + n, 0);
      const rebuildOf = (beside = place.beside(), deadLetters: DeadLetters = noLetters, processor = counter()): Rebuildable =>
        rebuildable(roleContext(stop.signal), { eventLog: log, deadLetters, processor, beside });
      async function startLive(events: number): Promise<void> {
        for (let n = 0; n < events; n++) await append(event('abc'[n % 3]!));
        live = startRunner(roleContext(stop.signal), { eventLog: log, deadLetters: noLetters, store: place.live, processor: counter() });
        await until(async () => (await place.live.offset())?.seq === log.head, 20_000);
      }

      it('fills, lists what differs, flips under a live one that goes on, goes back, and drops', async () => {
        for (let n = 0; n < 500; n++) await append(event('abc'[n % 3]!));
        live = startRunner(roleContext(stop.signal), { eventLog: log, deadLetters: noLetters, store: place.live, processor: counter() });
        await until(async () => (await place.live.offset())?.seq === log.head);
        await place.spoil();
        let done = false;
        let older = 0;
        const load = (async () => {
          for (let n = 0; !done; n++) {
            await append(event('abc'[n % 3]!));
            await new Promise((resolve) => setTimeout(resolve, 5));
          }
        })();
        const reading = (async () => {
          for (let last = 0; !done;) {
            const { b = 0 } = await place.read();
            if (b < last) older++;
            last = b;
          }
        })();
        let outcome;
        try {
          outcome = await rebuildOf().rebuild({ flip: true });
          await new Promise((resolve) => setTimeout(resolve, 100));
        } finally {
          done = true;
          await load;
        }
        await reading;
        expect(older).to.equal(0);
        expect(outcome.comparison.differences + outcome.comparison.moving).to.be.at.least(1);
        await until(async () => (await place.live.offset())?.seq === log.head);
        expect(await total()).to.equal(log.head);
        const at = (await place.live.offset())!;
        expect(at.namespace).to.be.a('string');

        // At rest both are seen at the same offset, and what is kept is the spoiled one.
        const back = await rebuildOf().rebuild({ flip: false, back: true });
        expect(back.comparison).to.include({ differences: 1, moving: 0 });
        expect(back.comparison.listed[0]!.beside).to.match(/999|1\d\d\d/);
        expect(await rebuildOf().remove('kept')).to.equal(true);
        expect(await place.size()).to.equal(1);
        expect(await total()).to.equal(log.head);
      });

      it('leaves the live one alone when it is interrupted, and begins anew after an end in the middle of the removal', async () => {
        live = startRunner(roleContext(stop.signal), { eventLog: log, deadLetters: noLetters, store: place.live, processor: counter() });
        for (let n = 0; n < 5_000; n++) await append(event('abc'[n % 3]!));
        await until(async () => (await place.live.offset())?.seq === log.head, 20_000);
        const before = await place.read();
        const ended = new AbortController();
        const interrupted = rebuildable(roleContext(ended.signal), {
          eventLog: log,
          deadLetters: noLetters,
          processor: counter(),
          beside: place.beside(),
        });
        const failure = await interrupted
          .rebuild({ flip: true, onProgress: () => ended.abort(new Error('Ctrl-C')) })
          .catch((error: unknown) => (error as Error).message);
        expect(failure).to.equal('Ctrl-C');
        expect(await place.read()).to.deep.equal(before);
        const left = await rebuildOf().status();
        expect(left?.state).to.equal('filling');
        expect(left?.since).to.match(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
        // The removal has begun, and was killed.
        if (name === 'Redis') await redis.client.hset(`${redis.keys.prefix}:rebuild:counter`, 'state', 'dropping');
        else await pool.query(`UPDATE headwater.processor_rebuilds SET state = 'dropping' WHERE processor = 'counter'`);
        const outcome = await rebuildOf().rebuild({ flip: false });
        expect(outcome.comparison).to.include({ differences: 0, moving: 0 });
        expect(outcome.comparison.compared).to.be.greaterThan(0);
        expect(await rebuildOf().remove('filling')).to.equal(true);
        expect(await place.read()).to.deep.equal(before);
      });

      it('never writes into the live state when it has waited while another one flipped and dropped', async () => {
        await startLive(300);
        await rebuildOf().rebuild({ flip: false });
        const waiting = gated(place.beside());
        const second = rebuildOf(waiting.beside).rebuild({ flip: true }).catch(codeOf);
        await new Promise((resolve) => setTimeout(resolve, 200));
        await rebuildOf().rebuild({ flip: true });
        await until(async () => (await place.live.offset())?.seq === log.head);
        expect(await rebuildOf().remove('kept')).to.equal(true);
        const before = await place.read();
        waiting.open();
        expect(await second).to.equal('rebuild_overtaken');
        expect(await place.read()).to.deep.equal(before);
        // And nothing is left that the next one would take for its own.
        const next = await rebuildOf().rebuild({ flip: true });
        expect(next.comparison).to.include({ differences: 0, moving: 0 });
        expect(await place.read()).to.deep.equal(before);
      });

      it('changes nothing any more once another one has taken over what it works on', async () => {
        await startLive(300);
        const asleep = place.beside();
        await asleep.begin();
        await asleep.clear();
        await asleep.store.commit(new Map([['a', 1]]), undefined, { seq: 1, epoch: 'epoch-1' });
        const at = await asleep.store.offset();
        await rebuildOf().rebuild({ flip: true });
        await until(async () => (await place.live.offset())?.seq === log.head);
        const before = await place.read();
        expect(await asleep.store.commit(new Map([['a', 7]]), at, { ...at!, seq: 2 })).to.equal('lost');
        // Not even where the offset of what stands there now is the one that it expects.
        const kept = (await asleep.store.offset())!;
        expect(await asleep.store.commit(new Map([['a', 7]]), kept, { ...kept, seq: kept.seq + 1 })).to.equal('lost');
        expect(await asleep.store.commit(new Map([['a', 7]]), undefined, { seq: 2, epoch: 'epoch-1' })).to.equal('lost');
        expect(await asleep.clear().catch(codeOf)).to.equal('rebuild_overtaken');
        expect(await asleep.remove(stop.signal).catch(codeOf)).to.equal('rebuild_overtaken');
        expect(await place.read()).to.deep.equal(before);
        expect((await rebuildOf().status())?.state).to.equal('kept');
      });

      it('begins with nothing, whatever an earlier one has left behind', async () => {
        await startLive(9);
        await place.litter();
        const { comparison, events } = await rebuildOf().rebuild({ flip: true });
        expect(comparison).to.include({ differences: 0, moving: 0 });
        expect(events).to.equal(9);
        expect(await place.read()).to.deep.equal({ a: 3, b: 3, c: 3 });
      });

      it('does not remove what has been flipped while it waited to abort', async () => {
        await startLive(300);
        await rebuildOf().rebuild({ flip: false });
        const waiting = gated(place.beside());
        const aborting = rebuildOf(waiting.beside).remove('filling').catch(codeOf);
        await new Promise((resolve) => setTimeout(resolve, 100));
        await rebuildOf().rebuild({ flip: true });
        waiting.open();
        expect(await aborting).to.equal('rebuild_kept');
        expect((await rebuildOf().status())?.state).to.equal('kept');
        expect(await place.size()).to.equal(2);
      });

      it('flips once when the answer to a flip is lost', async () => {
        await startLive(300);
        await place.spoil();
        const beside = place.beside();
        let asked = 0;
        const lossy: Beside<Counts> = {
          ...beside,
          async flip(steering) {
            const outcome = await beside.flip(steering);
            if (outcome === 'flipped' && asked++ === 0) throw new Error('the connection is gone');
            return outcome;
          },
        };
        expect((await rebuildOf(lossy).rebuild({ flip: true })).flipped).to.equal(true);
        expect(asked).to.equal(2);
        expect(await total()).to.equal(log.head);
        // The same going back: twice would be not at all.
        asked = 0;
        await rebuildOf({ ...lossy }).rebuild({ flip: true, back: true });
        expect(await total()).to.not.equal(log.head);
      });

      it('has the log refilled before it fills anew what has fallen behind the oldest event', async () => {
        await startLive(300);
        await rebuildOf().rebuild({ flip: false });
        for (let n = 0; n < 100; n++) await append(event('abc'[n % 3]!));
        await until(async () => (await place.live.offset())?.seq === log.head);
        log.trim(350);
        let asked = 0;
        const refill = async ({ first }: Bounds): Promise<number> => {
          asked++;
          expect(first).to.equal(350);
          for (let n = 0; n < 30; n++) await append(event('d'));
          return log.head - 29;
        };
        await rebuildOf().rebuild({ flip: true, onTrimmed: refill });
        expect(asked).to.equal(1);
        expect((await place.read())['d']).to.equal(30);
        expect(await total()).to.equal(log.head - 349);
      });

      it('gives every event that the new state lacks a letter before it flips, also those of a run before', async () => {
        await startLive(300);
        let letters: DeadLetter[] = [];
        const deadLetters: DeadLetters = {
          publish: async (letter) => void (letters.some(({ seq }) => seq === letter.seq) || letters.push(letter)),
        };
        const { apply, ...rest } = counter();
        const faulty: Processor<Counts> = {
          ...rest,
          apply(at, counts) {
            if (at.seq === 7) throw new Error('a bug');
            apply(at, counts);
          },
        };
        await rebuildOf(place.beside(), deadLetters, faulty).rebuild({ flip: false });
        expect(letters.map(({ seq }) => seq)).to.deep.equal([7]);
        // Redriven meanwhile: the live state does not need it.
        letters = [];
        await rebuildOf(place.beside(), deadLetters).rebuild({ flip: true });
        expect(letters).to.have.length(1);
        expect(letters[0]).to.include({ processor: 'counter', seq: 7, code: 'rebuild_hole', subject: 'a', epoch: 'epoch-1' });
        expect(await total()).to.equal(299);
      });

      it('refuses to flip what is being removed, or is not there', async () => {
        await startLive(9);
        expect(await rebuildOf().rebuild({ flip: true, existing: true }).catch(codeOf)).to.equal('rebuild_missing');
        await rebuildOf().rebuild({ flip: false });
        if (name === 'Redis') await redis.client.hset(`${redis.keys.prefix}:rebuild:counter`, 'state', 'dropping');
        else await pool.query(`UPDATE headwater.processor_rebuilds SET state = 'dropping' WHERE processor = 'counter'`);
        expect(await rebuildOf().rebuild({ flip: true, existing: true }).catch(codeOf)).to.equal('rebuild_missing');
        expect((await rebuildOf().status())?.state).to.equal('dropping');
      });
    });
  }
});
