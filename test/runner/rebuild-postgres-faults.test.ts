import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { migrate } from '../../deploy/migrate.ts';
import { createPool, type PgPool } from '../../pipeline/clients/postgres.ts';
import type { NewEvent } from '../../pipeline/log/event-log.ts';
import type { DeadLetter, DeadLetters } from '../../pipeline/runner/dead-letters.ts';
import { PostgresStateStore, type PostgresEffects } from '../../pipeline/runner/postgres-state-store.ts';
import type { Processor } from '../../pipeline/runner/processor.ts';
import type { Beside, Comparison, RebuildOptions, RebuildOutcome, Steering } from '../../pipeline/runner/rebuild/model.ts';
import { postgresBeside } from '../../pipeline/runner/rebuild/postgres.ts';
import { rebuildable } from '../../pipeline/runner/rebuild/rebuild.ts';
import { startRunner } from '../../pipeline/runner/runner.ts';
import type { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { inPostgres, type OwnInPostgres } from '../../processors/own-processor.ts';
import type { ProcessorConnections } from '../../processors/processor-factory.ts';
import { defaultCatalog } from '../../schemas/catalog.ts';
import { MemoryLog } from '../support/memory-log.ts';
import { roleContext, until } from '../support/role-context.ts';
import { tickEvent } from '../support/row-events.ts';
import { freshDatabase, type FreshDatabase } from '../support/servers.ts';

type Counts = Map<string, number>;
const noLetters: DeadLetters = { publish: () => Promise.reject(new Error('no event of this test is poison')) };

/** Counts the events of each subject. */
const counter = (): Processor<Counts> => ({
  name: 'counter',
  begin: () => new Map(),
  apply: ({ subject }, counts) => void counts.set(subject, (counts.get(subject) ?? 0) + 1),
});

const effects: PostgresEffects<Counts> = {
  isEmpty: (counts) => counts.size === 0,
  async write(client, counts, namespace) {
    for (const [subject, count] of counts)
      await client.query(
        `INSERT INTO counts AS c VALUES ($1, $2, $3) ON CONFLICT (processor, subject) DO UPDATE SET count = c.count + excluded.count`,
        [namespace, subject, count],
      );
  },
};

const codeOf = (error: unknown): string => (error as HeadwaterError).code ?? String(error);
/** What something does that must not take for ever. */
const within = <T>(ms: number, work: Promise<T>): Promise<T | 'still at work'> =>
  Promise.race([work, sleep(ms, 'still at work' as const, { ref: false })]);

describe('rebuild in PostgreSQL, when things go wrong', function () {
  this.timeout(120_000);
  let database: FreshDatabase;
  let pool: PgPool;
  /** As many connections as the command has. */
  let small: PgPool;
  let log: MemoryLog;
  let stop: AbortController;
  before(async () => {
    database = await freshDatabase();
    await migrate(database.url, { demo: false, log: silentLogger() });
    pool = createPool(database.url, 'test', silentLogger(), 8);
    await pool.query('CREATE TABLE counts (processor text, subject text, count int, PRIMARY KEY (processor, subject))');
  });
  after(async () => {
    await pool.end();
    await database.drop();
  });
  beforeEach(async () => {
    await pool.query('TRUNCATE counts, headwater.processor_offsets, headwater.processor_rebuilds');
    log = new MemoryLog();
    stop = new AbortController();
    small = createPool(database.url, 'rebuild', silentLogger(), 4);
  });
  afterEach(async () => {
    stop.abort();
    if (!small.ended) expect(await within(15_000, small.end())).to.not.equal('still at work');
  });

  async function append(count: number): Promise<void> {
    for (let n = 0; n < count; n++) {
      const event: NewEvent = { subject: 'abc'[n % 3]!, data: tickEvent(log.head + 1).data };
      await log.append([event], log.head);
    }
  }
  const store = (): PostgresStateStore<Counts> => new PostgresStateStore(pool, 'counter', effects);
  /** The live one comes to the log's end, and is stopped. */
  async function runLive(): Promise<void> {
    const live = startRunner(roleContext(stop.signal), { eventLog: log, deadLetters: noLetters, store: store(), processor: counter() });
    await until(async () => (await store().offset())?.seq === log.head, 20_000);
    await live.stop();
  }
  const beside = (): Beside<Counts> => postgresBeside({ pool: small, processor: 'counter', effects, tables: ['counts'] });
  function rebuild(
    options: Partial<RebuildOptions> = {},
    of = beside(),
    deadLetters = noLetters,
    signal = stop.signal,
  ): Promise<RebuildOutcome> {
    const made = rebuildable(roleContext(signal), { eventLog: log, deadLetters, processor: counter(), beside: of });
    return made.rebuild({ flip: true, ...options });
  }
  async function liveCounts(): Promise<Record<string, number>> {
    const { rows } = await pool.query<{ subject: string; count: number }>(
      `SELECT subject, count FROM counts WHERE processor = (SELECT coalesce(namespace, processor) FROM headwater.processor_offsets WHERE processor = 'counter')`,
    );
    return Object.fromEntries(rows.map(({ subject, count }) => [subject, count]));
  }
  const unmet = (of: Beside<Counts>): Beside<Counts> => ({
    ...of,
    compare: (steering) => of.compare({ ...steering, reach: () => Promise.resolve(false) }),
  });

  it('gives every connection back when the two do not meet, says that nothing was compared, and flips only when told to', async () => {
    await append(6);
    await runLive();
    let compared: Comparison | undefined;
    const refused = rebuild({ onCompared: (comparison) => (compared = comparison) }, unmet(beside())).catch(codeOf);
    expect(await within(60_000, refused)).to.equal('rebuild_uncompared');
    expect(compared).to.include({ compared: 0, differences: 0 });
    expect(compared!.uncompared).to.contain('did not come to the same offset');
    expect([small.totalCount - small.idleCount, small.waitingCount]).to.deep.equal([0, 0]);
    expect((await beside().status())?.state).to.equal('filling');

    const { flipped, comparison } = await rebuild({ existing: true, insist: true }, unmet(beside()));
    expect(flipped).to.equal(true);
    expect(comparison.uncompared).to.be.a('string');
    expect(await liveCounts()).to.deep.equal({ a: 2, b: 2, c: 2 });
  });

  const deadEnds: Record<string, { readonly end: () => Promise<void>; readonly why: string; readonly counts: Record<string, number> }> = {
    'the log no longer holds its next event': {
      end: async () => {
        await append(14);
        log.trim(10);
      },
      why: 'no longer holds sequence 7',
      counts: { a: 4, b: 4, c: 3 },
    },
    'the log has begun a new epoch': {
      end: async () => {
        log.epoch = 'epoch-2';
        log.epochStart = 7;
        await append(14);
      },
      why: 'epoch-2',
      counts: { a: 5, b: 5, c: 4 },
    },
    'the log has lost what it was made of': {
      end: async () => {
        log = new MemoryLog();
        await append(3);
      },
      why: 'ends at 3',
      counts: { a: 1, b: 1, c: 1 },
    },
  };
  for (const [name, { end, why, counts }] of Object.entries(deadEnds))
    it(`makes a state anew whose live one cannot go on, since ${name}`, async () => {
      await append(6);
      await runLive();
      await end();
      // The fold takes its time: it is compared, and flipped, when it is done.
      const { read } = log;
      log.read = async function* (...asked) {
        await sleep(300);
        yield* read.apply(this, asked);
      };
      const outcome = await within(30_000, rebuild());
      if (outcome === 'still at work') throw new Error(outcome);
      expect(outcome.comparison.listed.map((each) => each.beside)).to.have.members(
        Object.entries(counts).map(([subject, count]) => `(${subject},${count})`),
      );
      expect(outcome).to.deep.include({ flipped: true, offset: { ...outcome.offset, seq: log.head, epoch: log.epoch } });
      expect(outcome.comparison.apart).to.contain(why);
      expect(outcome.comparison).to.include({ compared: 3, moving: 0 });
      expect(await liveCounts()).to.deep.equal(counts);
      // And the live one goes on from there.
      await append(1);
      await runLive();
      expect(await liveCounts()).to.deep.equal({ ...counts, a: counts['a']! + 1 });
    });

  it('waits for a live one that is at work, though it has not begun in the new epoch', async () => {
    await append(6);
    await runLive();
    log.epoch = 'epoch-2';
    log.epochStart = 7;
    await append(14);
    await store().lease('somebody', 60_000);
    let compared = 0;
    const waiting = rebuild({ onCompared: () => compared++ });
    waiting.catch(() => undefined);
    expect(await within(4_000, waiting)).to.equal('still at work');
    expect(compared).to.equal(0);
    expect(await liveCounts()).to.deep.equal({ a: 2, b: 2, c: 2 });
    await store().release('somebody');
    expect(await within(20_000, waiting)).to.include({ flipped: true });
  });

  it('makes a live state where there is none, and its processor goes on from there', async () => {
    await append(20);
    const { comparison } = await rebuild();
    expect(comparison).to.include({ compared: 3, differences: 3 });
    expect(comparison.apart).to.contain('has not begun');
    expect(await store().offset()).to.include({ seq: 20, epoch: 'epoch-1' });
    expect(await liveCounts()).to.deep.equal({ a: 7, b: 7, c: 6 });
    await append(3);
    await runLive();
    expect(await liveCounts()).to.deep.equal({ a: 8, b: 8, c: 7 });
    const made = rebuildable(roleContext(stop.signal), { eventLog: log, deadLetters: noLetters, processor: counter(), beside: beside() });
    expect(await made.remove('kept')).to.equal(true);
    expect(await liveCounts()).to.deep.equal({ a: 8, b: 8, c: 7 });
  });

  it('ends where the log has lost the beginning of what it was refilled with, and does without when told to', async () => {
    await append(20);
    await runLive();
    log.trim(5);
    const short = async (): Promise<number> => {
      const by = log.head + 1;
      await append(10);
      log.trim(by + 5);
      return by;
    };
    expect(await within(30_000, rebuild({ onTrimmed: short }).catch(codeOf))).to.equal('rebuild_incomplete');
    expect(await liveCounts()).to.deep.equal({ a: 7, b: 7, c: 6 });
    // The same command again does not take what stands there for something whole.
    expect(await within(30_000, rebuild({ onTrimmed: short }).catch(codeOf))).to.equal('rebuild_incomplete');
    const { flipped } = await rebuild({ onTrimmed: () => Promise.resolve(undefined) });
    expect(flipped).to.equal(true);
    expect(Object.values(await liveCounts()).reduce((sum, n) => sum + n)).to.equal(5);
  });

  it('stays behind a live one that stands, from the first event on', async () => {
    await append(600);
    await runLive();
    await rebuild({ flip: false });
    await append(600);
    const of = beside();
    let asked = 0;
    // The first look at where the live one is, behind those for what stands there, takes its time.
    const blind: Beside<Counts> = {
      ...of,
      async status() {
        if (asked++ === 2) await sleep(1_500);
        return of.status();
      },
    };
    const { offset, comparison } = await rebuild({}, blind);
    expect(offset.seq).to.equal(600);
    expect(comparison).to.include({ differences: 0, moving: 0 });
    expect(comparison).to.not.have.any.keys('apart', 'uncompared');
  });

  it('comes to the end of its fill behind a live one that is never quite at the log’s end', async () => {
    await append(6);
    await runLive();
    const of = beside();
    const busy: Beside<Counts> = {
      ...of,
      async status() {
        await append(20);
        await pool.query(`UPDATE headwater.processor_offsets SET seq = $1 WHERE processor = 'counter'`, [log.head - 10]);
        return of.status();
      },
    };
    expect(await within(30_000, rebuild({ flip: false }, busy))).to.include({ flipped: false });
  });

  it('ends at once, without a flip, when it is interrupted while it waits for the live one', async () => {
    await append(6);
    await runLive();
    const ended = new AbortController();
    const attempts: number[] = [];
    let [flipping, after] = [false, 0];
    const of = beside();
    const never: Beside<Counts> = {
      ...of,
      flip: async (steering: Steering) => {
        attempts.push(performance.now());
        flipping = true;
        if (ended.signal.aborted) after++;
        return of.flip({ ...steering, reach: () => Promise.resolve(false) }).finally(() => (flipping = false));
      },
    };
    const waiting = rebuild({}, never, noLetters, ended.signal).catch((error: unknown) => (error as Error).message);
    await until(() => attempts.length > 15 && !flipping, 30_000);
    // Not as fast as the database can answer, either: ten waits of 125 ms, on average.
    expect(attempts.at(-1)! - attempts.at(-11)!).to.be.above(500);
    ended.abort(new Error('Ctrl-C'));
    expect(await within(10_000, waiting)).to.equal('Ctrl-C');
    await sleep(300);
    expect(after).to.equal(0);
    expect((await beside().status())?.state).to.equal('filling');
  });

  it('gives an event its letter again that was dropped between two attempts to flip', async () => {
    await append(9);
    await runLive();
    let letters: DeadLetter[] = [];
    const deadLetters: DeadLetters = {
      publish: async (letter) => void (letters.some(({ seq }) => seq === letter.seq) || letters.push(letter)),
    };
    const { apply, ...rest } = counter();
    const faulty: Processor<Counts> = {
      ...rest,
      apply(event, counts) {
        if (event.seq === 7) throw new Error('a bug');
        apply(event, counts);
      },
    };
    const of = beside();
    let flips = 0;
    const twice: Beside<Counts> = {
      ...of,
      flip: (steering) => {
        if (flips++ > 0) return of.flip(steering);
        letters = [];
        return Promise.resolve('compare');
      },
    };
    await rebuildable(roleContext(stop.signal), { eventLog: log, deadLetters, processor: faulty, beside: twice }).rebuild({ flip: true });
    expect(letters.map(({ seq }) => seq)).to.deep.equal([7]);
  });

  it('makes the tables that a corrected version asks for, before its role was started', async () => {
    await append(9);
    await runLive();
    const setup = `CREATE TABLE IF NOT EXISTS totals (processor text, total int, PRIMARY KEY (processor))`;
    const own: OwnInPostgres<Counts> = {
      ...counter(),
      ...effects,
      setup,
      tables: ['counts', 'totals'],
      async write(client, counts, namespace) {
        await effects.write(client, counts, namespace);
        const total = [...counts.values()].reduce((sum, n) => sum + n, 0);
        await client.query(
          'INSERT INTO totals AS t VALUES ($1, $2) ON CONFLICT (processor) DO UPDATE SET total = t.total + excluded.total',
          [namespace, total],
        );
      },
    };
    const connections: ProcessorConnections = {
      catalog: defaultCatalog(),
      log: () => Promise.resolve({ eventLog: log, deadLetters: noLetters }),
      redis: () => Promise.reject(new Error('it needs no Redis')),
      postgres: () => small,
    };
    const [made] = await inPostgres(own).rebuild!(roleContext(stop.signal), connections);
    // Looking makes nothing.
    await made!.status();
    expect((await pool.query(`SELECT to_regclass('totals') AS made`)).rows).to.deep.equal([{ made: null }]);
    expect(await made!.rebuild({ flip: true })).to.include({ flipped: true });
    expect((await pool.query('SELECT total FROM totals')).rows).to.deep.equal([{ total: 9 }]);
  });
});
