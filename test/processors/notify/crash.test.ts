import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { tcpProxy } from '../../support/tcp-proxy.ts';
import { runTestProgram, type TestProgram } from '../../support/programs.ts';
import { until } from '../../support/role-context.ts';
import { notifyWorld, type NotifyWorld } from './support/notify-world.ts';
import { answers, startReceiver, type Receiver } from './support/receiver.ts';

const fast = { webhook: { inFlight: 8, perSecond: 10_000 }, email: { inFlight: 1, perSecond: 1 }, push: { inFlight: 1, perSecond: 1 } };
const all = { perUserMinute: 1_000_000, perRuleMinute: 1_000_000, endpoints: fast };

describe('notify, when something breaks', () => {
  let world: NotifyWorld;
  let receiver: Receiver;
  let programs: TestProgram[];
  const unsettled = async (): Promise<number> => {
    const { rows } = await world.pool.query<{ n: number }>(
      `SELECT (SELECT count(*) FROM headwater.alert_outbox)::int
            + (SELECT count(*) FROM headwater.notification_jobs WHERE state <> 'delivered')::int AS n`,
    );
    return rows[0]!.n;
  };
  beforeEach(async () => {
    world = await notifyWorld();
    receiver = await startReceiver();
    programs = [];
  });
  afterEach(async () => {
    for (const { child, ended } of programs) {
      child.kill('SIGKILL');
      await ended;
    }
    await receiver.close();
    await world.close();
  });

  async function run(leaseMs = 1_000): Promise<TestProgram> {
    const args = [world.databaseUrl, world.redis.url, `${world.redis.keys.prefix}:bull`, String(leaseMs)];
    const program = runTestProgram('run-notify', args);
    programs.push(program);
    await program.nextLine();
    return program;
  }

  /** Puts `count` alerts of one rule into the outbox, in small transactions. */
  async function fireMany(count: number, channels: readonly object[]): Promise<Set<string>> {
    const rule = await world.rule({ channels });
    const alerts = new Set<string>();
    while (alerts.size < count) {
      const firings = Array.from({ length: Math.min(10, count - alerts.size) }, (_, i) => ({ rule, entity: { id: alerts.size + i } }));
      for (const alert of await world.fire(...firings)) alerts.add(alert);
    }
    return alerts;
  }

  function expectEachTold(alerts: ReadonlySet<string>): void {
    const told = new Map([...receiver.ids()].map((id) => [id.slice(0, 36), id]));
    expect(new Set(told.keys())).to.deep.equal(alerts);
    expect(receiver.ids().size).to.equal(alerts.size);
  }

  it('killed between the sending and its record, it sends the same id again', async () => {
    const program = await run();
    receiver.answer = () => void program.child.kill('SIGKILL');
    const alerts = await fireMany(1, [{ type: 'webhook', url: receiver.url }]);
    await program.ended;
    receiver.answer = answers(200);
    world.start({ leaseMs: 1_000 });
    await until(async () => (await unsettled()) === 0);
    expect(receiver.received.length).to.equal(2);
    expectEachTold(alerts);
    const { rows } = await world.pool.query('SELECT attempt, status FROM headwater.notification_logs ORDER BY attempt');
    expect(rows).to.deep.equal([
      { attempt: 1, status: 'unknown' },
      { attempt: 2, status: 'delivered' },
    ]);
  });

  it('killed again and again under load, it tells of every alert under one id', async () => {
    receiver.answer = (response) => void setTimeout(() => response.writeHead(200).end(), 5 * Math.random());
    let firing = true;
    const alerts = fireMany(800, [{ type: 'webhook', url: receiver.url }]).finally(() => (firing = false));
    for (let kills = 0; kills < 5 || firing; kills++) {
      const program = await run(500);
      await sleep(50 + 250 * Math.random());
      program.child.kill('SIGKILL');
      await program.ended;
    }
    world.start({ ...all, leaseMs: 500 });
    await until(async () => (await unsettled()) === 0, 30_000);
    expectEachTold(await alerts);
  });

  it('loses nothing when Redis is emptied, and does not wait for it', async () => {
    receiver.answer = (response) => void setTimeout(() => response.writeHead(200).end(), 20);
    world.start(all);
    let firing = true;
    const alerts = fireMany(1_000, [{ type: 'webhook', url: receiver.url }]).finally(() => (firing = false));
    for (let n = 0; n < 5 || firing; n++) {
      await sleep(100);
      await world.redis.empty();
    }
    await until(async () => (await unsettled()) === 0, 30_000);
    expectEachTold(await alerts);
    expect(receiver.received.length).to.equal(1_000);
  });

  it('goes on without Redis, whether it is gone or does not answer, and stops in time without it', async () => {
    const url = new URL(world.redis.url);
    const proxy = await tcpProxy(Number(url.port));
    url.port = String(proxy.port);
    const channels = [{ type: 'webhook', url: receiver.url }];
    const told = new Set<string>();
    proxy.cut();
    const role = world.start(all, { redisUrl: url.toString() });
    for (const trouble of ['cut', 'none', 'stall', 'cut', 'none'] as const) {
      if (trouble !== 'none') proxy[trouble]();
      else {
        proxy.restore();
        for (const queued = await world.queuedJobs(); (await world.queuedJobs()) === queued;) {
          for (const alert of await fireMany(1, channels)) told.add(alert);
          await sleep(100);
        }
      }
      for (const alert of await fireMany(20, channels)) told.add(alert);
      await until(async () => (await unsettled()) === 0, 10_000, `delivery with Redis: ${trouble}`);
    }
    const began = performance.now();
    await role.stop();
    expect(performance.now() - began).to.be.lessThan(10_000);
    expectEachTold(told);
    expect(receiver.received.length).to.equal(told.size);
    await proxy.close();
  });

  it('loses nothing, and repeats nothing, when connections to PostgreSQL break', async () => {
    receiver.answer = (response) => void setTimeout(() => response.writeHead(200).end(), 5);
    const alerts = await fireMany(300, [{ type: 'webhook', url: receiver.url }]);
    world.start({ ...all, leaseMs: 3_000 });
    for (let n = 0; n < 5; n++) {
      await sleep(30);
      await world.pool.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%notify%'`,
      );
    }
    await until(async () => (await unsettled()) === 0, 30_000);
    expectEachTold(alerts);
    expect(receiver.received.length).to.equal(300);
  });

  it('sends each notification once when two instances share the work', async () => {
    receiver.answer = (response) => void setTimeout(() => response.writeHead(200).end(), 5);
    world.start(all);
    world.start(all);
    const alerts = await fireMany(500, [{ type: 'webhook', url: receiver.url }]);
    await until(async () => (await unsettled()) === 0, 30_000);
    expectEachTold(alerts);
    expect(receiver.received.length).to.equal(500);
  });

  it('stops within its time, and leaves what it could not finish to the next', async () => {
    receiver.answer = () => undefined;
    const role = world.start({ stopMs: 300 });
    const alerts = await fireMany(1, [{ type: 'webhook', url: receiver.url }]);
    await until(() => receiver.received.length === 1);
    const began = performance.now();
    await role.stop();
    expect(performance.now() - began).to.be.within(290, 2_000);
    receiver.answer = answers(200);
    world.start();
    await until(async () => (await unsettled()) === 0);
    expectEachTold(alerts);
  });
});
