import { expect } from 'chai';
import { migrate } from '../../deploy/migrate.ts';
import { createPool, type PgPool } from '../../pipeline/clients/postgres.ts';
import type { NewEvent } from '../../pipeline/log/event-log.ts';
import { PostgresStateStore, type PostgresEffects } from '../../pipeline/runner/postgres-state-store.ts';
import type { Processor } from '../../pipeline/runner/processor.ts';
import { rebuildable, type Beside, type Rebuildable } from '../../pipeline/runner/rebuild.ts';
import { postgresBeside } from '../../pipeline/runner/rebuild-postgres.ts';
import { livePrefix, redisBeside } from '../../pipeline/runner/rebuild-redis.ts';
import { RedisStateStore, type RedisEffects } from '../../pipeline/runner/redis-state-store.ts';
import { startRunner } from '../../pipeline/runner/runner.ts';
import type { StateStore } from '../../pipeline/runner/state-store.ts';
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
}

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
      const rebuildOf = (): Rebuildable =>
        rebuildable(roleContext(stop.signal), { eventLog: log, deadLetters: noLetters, processor: counter(), beside: place.beside() });

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
        expect((await rebuildOf().status())?.state).to.equal('filling');
        // The removal has begun, and was killed.
        if (name === 'Redis') await redis.client.hset(`${redis.keys.prefix}:rebuild:counter`, 'state', 'dropping');
        else await pool.query(`UPDATE headwater.processor_rebuilds SET state = 'dropping' WHERE processor = 'counter'`);
        const outcome = await rebuildOf().rebuild({ flip: false });
        expect(outcome.comparison).to.include({ differences: 0, moving: 0 });
        expect(outcome.comparison.compared).to.be.greaterThan(0);
        expect(await rebuildOf().remove('filling')).to.equal(true);
        expect(await place.read()).to.deep.equal(before);
      });
    });
  }
});
