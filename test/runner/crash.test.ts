import { expect } from 'chai';
import { startLocalServices, type LocalServices } from '../../deploy/local/services.ts';
import { closeRedis, connectRedis, type RedisClient } from '../../pipeline/clients/redis.ts';
import { RedisStateStore } from '../../pipeline/runner/redis-state-store.ts';
import { RedisKeys } from '../../pipeline/runner/redis-keys.ts';
import { startRunner } from '../../pipeline/runner/runner.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { runTestProgram, type TestProgram } from '../support/programs.ts';
import { FaultyLog } from '../support/faulty-log.ts';
import { redisNamespace, type RedisNamespace } from '../support/redis-namespace.ts';
import { roleContext, until } from '../support/role-context.ts';
import { rowEvent } from '../support/row-events.ts';
import { removeData, temporaryDirectory } from '../support/servers.ts';
import { tcpProxy } from '../support/tcp-proxy.ts';

const lua = `for i = first, #ARGV do redis.call('RPUSH', prefix .. ':ledger', ARGV[i]) end`;
const encode = (effects: number[]): number[] => effects;
const ledger = {
  name: 'ledger',
  begin: (): number[] => [],
  apply: ({ seq }: { seq: number }, effects: number[]): void => void effects.push(seq),
};
const noLetters = { publish: () => Promise.reject(new Error('none expected')) };

/** Every sequence from 1 on once, in order. */
async function expectExactlyOnce(client: RedisClient, keys: RedisKeys, count: number): Promise<void> {
  const done = (await client.lrange(`${keys.prefix}:ledger`, 0, -1)).map(Number);
  expect(done.length).to.equal(count);
  expect(done.every((seq, i) => seq === i + 1)).to.equal(true);
}

describe('runner under kills', function () {
  this.timeout(120_000);
  let redis: RedisNamespace;
  const programs: TestProgram[] = [];
  before(async () => {
    redis = await redisNamespace();
  });
  after(async () => {
    for (const { child, ended } of programs) {
      child.kill('SIGKILL');
      await ended;
    }
    await redis.close();
  });

  it('makes every effect exactly once while the working one of two processes is killed again and again', async () => {
    const count = 40_000;
    const kills = 4;
    const start = async (): Promise<TestProgram> => {
      const program = runTestProgram('run-ledger', [redis.url, redis.keys.prefix, String(count)]);
      programs.push(program);
      await program.nextLine();
      return program;
    };
    const seqNow = async (): Promise<number> => Number((await redis.client.hget(redis.keys.offset('ledger'), 'seq')) ?? 0);
    const pidNow = async (): Promise<number> => Number((await redis.client.get(redis.keys.lease('ledger')))?.split(':').at(-2) ?? 0);
    let running: TestProgram[] = await Promise.all([start(), start()]);
    let reached = 0;
    for (let kill = 0; kill < kills; kill++) {
      const goal = reached + 200 + Math.floor(Math.random() * 3_000);
      await until(async () => (await seqNow()) >= goal, 20_000, `sequence ${goal}`);
      const pid = await pidNow();
      const victim = running.find(({ child }) => child.pid === pid) ?? running[0]!;
      victim.child.kill('SIGKILL');
      await victim.ended;
      reached = await seqNow();
      expect(reached, 'killed while it was working').to.be.lessThan(count);
      running = [...running.filter((program) => program !== victim), await start()];
    }
    await until(async () => (await seqNow()) === count, 60_000, 'the end of the log');
    await expectExactlyOnce(redis.client, redis.keys, count);
  });
});

describe('runner and a Redis that goes away', function () {
  this.timeout(120_000);
  const data = temporaryDirectory();
  const log = silentLogger();
  const startServer = async (): Promise<LocalServices> =>
    startLocalServices({ data, need: { postgres: false, nats: false, redis: true }, install: true, log });
  let services: LocalServices;
  before(async () => {
    services = await startServer();
  });
  after(async () => {
    await services.stop();
    await removeData(data);
  });

  it('waits, goes on exactly where it was, and refills what Redis lost: network cuts, stalls, a killed server', async () => {
    const portOf = ({ redisUrl }: LocalServices): number => Number(new URL(redisUrl!).port);
    const proxy = await tcpProxy(portOf(services));
    const url = new URL(services.redisUrl!);
    url.port = String(proxy.port);
    const client = await connectRedis(url.toString(), log, { commandTimeoutMs: 300 });
    const direct = await connectRedis(services.redisUrl!, log);
    const eventLog = new FaultyLog();
    const context = roleContext();
    const store = new RedisStateStore<number[]>(client, 'ledger', new RedisKeys(), { lua, encode });
    let loads = 0;
    const role = startRunner(context, {
      eventLog,
      processor: ledger,
      load: () => Promise.resolve(void loads++),
      store,
      deadLetters: noLetters,
      leaseMs: 1_000,
      limits: { events: 50 },
    });
    let count = 0;
    const add = (events: number): void =>
      eventLog.add(...Array.from({ length: events }, () => rowEvent(++count, 'insert', { key: { id: count }, after: { id: count } })));
    const caughtUp = (): Promise<void> =>
      until(async () => (await store.offset().catch(() => undefined))?.seq === count, 30_000, `sequence ${count}`);

    for (const fault of ['cut', 'stall', 'cut', 'stall'] as const) {
      add(2_000);
      await until(async () => ((await direct.hget('{hw}:offset:ledger', 'seq')) ?? '0') !== '0');
      proxy[fault]();
      add(500);
      await until(() => !context.health.ready, 10_000, 'not being ready');
      proxy.restore();
      await caughtUp();
      expect(context.health.ready).to.equal(true);
    }
    await expectExactlyOnce(direct, new RedisKeys(), count);
    expect(loads, 'what it has in memory is right all the while').to.equal(1);
    closeRedis(direct);

    process.kill(services.pids.redis!, 'SIGKILL');
    add(500);
    await until(() => !context.health.ready, 10_000, 'not being ready');
    await services.stop();
    services = await startServer();
    proxy.restore(portOf(services));
    await caughtUp();
    const again = await connectRedis(services.redisUrl!, log);
    await expectExactlyOnce(again, new RedisKeys(), count);

    await role.stop();
    closeRedis(again);
    closeRedis(client);
    await proxy.close();
  });
});
