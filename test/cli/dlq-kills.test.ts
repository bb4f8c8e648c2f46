import { expect } from 'chai';
import { once } from 'node:events';
import { connectNats, jetstreamManager, type NatsConnection } from '../../pipeline/clients/nats.ts';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import { DeadLetterDesk } from '../../pipeline/runner/redrive/desk.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { ownServers } from '../pipeline/capture/support/fixture.ts';
import { Random } from '../pipeline/capture/support/random.ts';
import { inLog } from '../pipeline/replay/support/replay-log.ts';
import { fatalRoad, type FatalRoad } from '../support/fatal-road.ts';
import { runTestProgram, type TestProgram } from '../support/programs.ts';
import { redisNamespace, type RedisNamespace } from '../support/redis-namespace.ts';
import { until } from '../support/role-context.ts';
import { rowEvent, tickEvent } from '../support/row-events.ts';
import { startCli, type Ran } from './support/run-cli.ts';

const seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const kills = Number(process.env['TEST_KILLS'] ?? 3);
/** Every tenth is poison; the first half is of one table, the second of another. */
const count = 6_000;
const poison = count / 10;
/** Of the events that are poison: so that they are redriven in more than one request. */
const large = 'x'.repeat(8_000);
const signal = new AbortController().signal;

describe('dlq under kill -9', function () {
  this.timeout(300_000);
  const random = new Random(seed);
  const cleanups: (() => Promise<unknown> | void)[] = [];
  let connection: NatsConnection;
  let redis: RedisNamespace;
  let log: JetStreamLog;
  let road: FatalRoad;
  let desk: DeadLetterDesk;
  let natsUrl: string;
  let worker: TestProgram;

  before(async () => {
    const { services } = await ownServers({ nats: true }, (cleanup) => void cleanups.push(cleanup));
    natsUrl = services.nats!.operator;
    connection = await connectNats(natsUrl, 'test', silentLogger());
    cleanups.push(() => connection.close());
    redis = await redisNamespace();
    cleanups.push(() => redis.close());
    const settings = { stream: 'EVENTS', subject: 'EVENTS', replicas: 1, maxAgeMs: undefined, maxBytes: undefined };
    log = await JetStreamLog.create(connection, settings, silentLogger());
    cleanups.push(() => log.close());
    desk = await DeadLetterDesk.open(connection);
    road = await fatalRoad(natsUrl);
    cleanups.push(() => road.close());
    for (let from = 1; from <= count; from += 1_000)
      await log.append(
        Array.from({ length: 1_000 }, (_, i) => {
          const id = from + i;
          return inLog(
            'EVENTS',
            rowEvent(id, 'insert', {
              table: id <= count / 2 ? 'early' : 'late',
              key: { id },
              after: { id, note: id % 10 === 0 ? large : '' },
            }),
          );
        }),
        from - 1,
      );
    worker = await start('faulty');
    cleanups.push(() => end(worker));
    await until(async () => (await desk.counts()).get('ledger') === poison, 120_000, `${poison} letters`);
    await until(async () => (await redis.client.llen(`${redis.keys.prefix}:ledger`)) === count - poison, 30_000, 'the others');
    await end(worker);
    worker = await start('corrected');
    let [ticks, ticking] = [count, Promise.resolve()];
    const timer = setInterval(() => {
      ticking = ticking.then(async () => void (await log.append([inLog('EVENTS', tickEvent(ticks + 1))], ticks++)));
    }, 100);
    cleanups.push(() => {
      clearInterval(timer);
      return ticking;
    });
  });
  after(async () => {
    for (const cleanup of cleanups.toReversed()) await cleanup();
  });

  async function start(mode: string): Promise<TestProgram> {
    const program = runTestProgram('run-redrive', [natsUrl, redis.url, 'EVENTS', redis.keys.prefix, mode], {
      env: { TEST_LETTERS: 'usual' },
    });
    await program.nextLine();
    return program;
  }
  async function end({ child, ended }: TestProgram): Promise<void> {
    child.kill('SIGKILL');
    await ended;
  }

  const seqs = async (letters: AsyncIterable<{ readonly seq: number }>): Promise<number[]> => {
    const found: number[] = [];
    for await (const { seq } of letters) found.push(seq);
    return found.sort((a, b) => a - b);
  };
  /** The events that went to the dead letters, of all or of one table. */
  const poisonous = (from: number, to: number): number[] =>
    Array.from({ length: count }, (_, i) => i + 1).filter((id) => id % 10 === 0 && id > from && id <= to);

  /** Runs a command; killed when it has sent so much. */
  async function run(args: readonly string[], nth = Infinity, besides: () => void = () => undefined): Promise<Ran> {
    const child = startCli(['dlq', ...args], { NATS_URL: road.url });
    const passes = random.pick(['passes', 'lost'] as const);
    road.at(nth, () => {
      child.kill('SIGKILL');
      besides();
      return passes;
    });
    const said: Record<'stdout' | 'stderr', string> = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const) child[name]!.setEncoding('utf8').on('data', (text: string) => (said[name] += text));
    const [code, by] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
    return { code, signal: by, ...said };
  }

  it('drops every letter once that it is asked for, begun again and again, and no other', async () => {
    const late = poisonous(count / 2, count);
    const order = ['drop', '--processor', 'ledger', '--table', 'late', '--reason', 'nobody needs it', '--yes'];
    for (let kill = 1; kill <= kills; kill++) {
      const left = (await seqs(desk.list('ledger', signal))).length - poison / 2;
      // Two pieces for each letter that is dropped.
      await run(order, random.int(1, Math.max(10, Math.floor((2 * left) / (kills - kill + 2)))));
      const [listed, dropped] = [await seqs(desk.list('ledger', signal)), await seqs(desk.dropped('ledger', signal))];
      expect(new Set([...listed, ...dropped]).size, `letters there and dropped (seed ${seed})`).to.equal(poison);
      expect(new Set(dropped).size, `dropped once (seed ${seed})`).to.equal(dropped.length);
    }
    const last = await run(order);
    expect(last.code, last.stderr).to.equal(0);
    expect(await seqs(desk.dropped('ledger', signal))).to.deep.equal(late);
    expect(await seqs(desk.list('ledger', signal))).to.deep.equal(poisonous(0, count / 2));
  });

  it('redrives every letter once, begun again and again, and its processor killed, too', async () => {
    const early = poisonous(0, count / 2);
    for (let kill = 1; kill <= kills; kill++) {
      let replaced: Promise<unknown> = Promise.resolve();
      const takesWorker = random.chance(0.5);
      await run(['redrive', '--processor', 'ledger'], random.int(1, 25), () => {
        if (takesWorker) replaced = end(worker).then(async () => (worker = await start('corrected')));
      });
      await replaced;
    }
    const last = await run(['redrive', '--processor', 'ledger', '--json']);
    expect(last.code, last.stderr).to.equal(0);
    expect(await seqs(desk.list('ledger', signal)), `letters (seed ${seed})`).to.deep.equal([]);
    expect((await desk.asked(signal)).size, 'requests').to.equal(0);
    const done = (await redis.client.lrange(`${redis.keys.prefix}:ledger`, 0, -1)).map(Number).sort((a, b) => a - b);
    const dropped = new Set(poisonous(count / 2, count));
    const wanted = Array.from({ length: count }, (_, i) => i + 1).filter((seq) => !dropped.has(seq));
    expect(done.length, `effects (seed ${seed})`).to.equal(wanted.length);
    expect(done, `each effect once (seed ${seed})`).to.deep.equal(wanted);
    // They were redriven, and not applied by a new beginning.
    expect(done.filter((seq) => early.includes(seq))).to.have.length(early.length);
    const { state } = await (await jetstreamManager(connection)).streams.info('DEADLETTERS', { subjects_filter: 'dl._redriven.>' });
    expect(state.subjects?.['dl._redriven.ledger'], 'requests that were answered').to.be.greaterThan(0);
  });
});
