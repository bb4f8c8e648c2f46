import { expect } from 'chai';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { cacheKey, RedisQueryCache, type CachedAnswer } from '../../../gateway/query/cache.ts';
import { readStanding, xidOf } from '../../../gateway/query/follower.ts';
import { SharedQuestion } from '../../../gateway/query/shared-question.ts';
import { connectPostgres } from '../../../pipeline/clients/postgres.ts';
import type { Bounds } from '../../../pipeline/log/event-log.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { redisNamespace, type RedisNamespace } from '../../support/redis-namespace.ts';
import { until } from '../../support/role-context.ts';
import { testServers } from '../../support/servers.ts';
import { prepared } from './support/node.ts';

/** Answers what it is sent, in a thread of its own. */
async function answeringServer(): Promise<{ socket: Socket; answered: Int32Array; close: () => Promise<void> }> {
  const answered = new Int32Array(new SharedArrayBuffer(4));
  const source = `
    const { parentPort, workerData } = require('node:worker_threads');
    const answered = () => (Atomics.store(workerData, 0, 1), Atomics.notify(workerData, 0));
    const server = require('node:net').createServer((socket) =>
      socket.on('data', () => socket.write('{"last":5,"epoch":"e"}', answered)));
    server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port));`;
  const worker = new Worker(source, { eval: true, workerData: answered });
  const [port] = (await once(worker, 'message')) as [number];
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  const close = async (): Promise<void> => {
    socket.destroy();
    await worker.terminate();
  };
  return { socket, answered, close };
}

describe('queries: the end of the log', () => {
  /** A log that answers when it is told to, with what was true when it was asked. */
  class SlowLog {
    head = 1;
    asked = 0;
    #answers: (() => void)[] = [];

    bounds(): Promise<Bounds> {
      this.asked++;
      const { head } = this;
      return new Promise((resolve) => this.#answers.push(() => resolve({ last: head, epoch: 'e' } as Bounds)));
    }

    async answer(): Promise<void> {
      this.#answers.shift()!();
      await sleep(1);
    }
  }

  it('is asked after each has come, by one question at a time for all who wait', async () => {
    const log = new SlowLog();
    const probe = new SharedQuestion(() => log.bounds());
    const heads = (asks: readonly Promise<Bounds | undefined>[]): Promise<(number | undefined)[]> =>
      Promise.all(asks.map(async (ask) => (await ask)?.last));
    const first = [probe.ask()];
    log.head = 2;
    const second = Array.from({ length: 5 }, () => probe.ask());
    expect(log.asked).to.equal(1);
    log.head = 3;
    await log.answer();
    expect(await heads(first)).to.deep.equal([1]);
    log.head = 4;
    const third = [probe.ask(), probe.ask()];
    expect(log.asked).to.equal(2);
    await log.answer();
    expect(await heads(second)).to.deep.equal([3, 3, 3, 3, 3]);
    await log.answer();
    expect(await heads(third)).to.deep.equal([4, 4]);
    expect(log.asked).to.equal(3);
  });

  it('is unknown when the log does not answer; then nobody waits for a while', async () => {
    const log = new SlowLog();
    const probe = new SharedQuestion(() => log.bounds(), { patienceMs: 20, restMs: 50 });
    expect(await Promise.all([probe.ask(), probe.ask()])).to.deep.equal([undefined, undefined]);
    expect(await probe.ask()).to.equal(undefined);
    expect(log.asked).to.equal(1);
    await sleep(60);
    const ask = probe.ask();
    await log.answer();
    await log.answer();
    expect(await ask).to.include({ last: 1 });
  });

  it('is taken when it has come while the process was busy', async () => {
    const { socket, answered, close } = await answeringServer();
    const bounds = async (): Promise<Bounds> => {
      socket.write('?');
      const [answer] = (await once(socket, 'data')) as [Buffer];
      return JSON.parse(answer.toString()) as Bounds;
    };
    // After this turn the loop looks at its timers, then at its sockets.
    await nextTurn();
    const ask = new SharedQuestion(bounds, { patienceMs: 5 }).ask();
    Atomics.wait(answered, 0, 0, 10_000);
    for (const end = Date.now() + 20; Date.now() < end;);
    expect(await ask).to.deep.equal({ last: 5, epoch: 'e' });
    await close();
  });
});

describe('queries: the transaction of an event', () => {
  const xid = (text: string): number | undefined => xidOf(Buffer.from(text));

  it('is read from its end, whatever a row holds', () => {
    const at = '"at":"2026-11-22T12:00:00.123456Z"}';
    expect(xid(`{"v":1,"id":"x","after":{"a":"${'é'.repeat(500)}"},"tx":{"xid":4294967295,"idx":3,"last":true},${at}`)).to.equal(
      4294967295,
    );
    expect(xid(`{"v":1,"type":"tick","tx":{"xid":7,"idx":0},${at}`)).to.equal(7);
    // Copied rows have none, but json columns that look like one.
    for (const row of ['{"tx":{"xid":5,"idx":1}}', '{"a":{"tx":{"xid":5,"idx":1}}}', `{"a":1,"tx":{"xid":5,"idx":1},"b":{${at}}`])
      expect(xid(`{"v":1,"op":"read","after":${row},${at}`), row).to.equal(undefined);
    expect(xid('')).to.equal(undefined);
  });
});

describe('queries: what is under way in the database', () => {
  it('is below the number that the next transaction gets', async () => {
    const { databaseUrl } = await testServers();
    const client = await connectPostgres(databaseUrl, 'test', silentLogger());
    const { nextXid, synchronous } = await readStanding(client);
    const { rows } = await client.query<{ xid: string }>('SELECT pg_current_xact_id()::text AS xid');
    await client.end();
    expect(synchronous).to.equal(false);
    // Somebody else of this cluster may have got one in between.
    expect((Number(rows[0]!.xid) % 2 ** 32) - nextXid).to.be.within(0, 5);
  });
});

describe('queries: answers in Redis', () => {
  let redis: RedisNamespace;
  before(async () => (redis = await redisNamespace()));
  after(() => redis?.close());

  const answer = (items: readonly string[], more?: readonly (string | null)[]): CachedAnswer => ({
    epoch: 'e',
    asOf: 7,
    readAt: Date.now(),
    items,
    more,
  });
  const cacheWith = (limits: object = {}): RedisQueryCache =>
    new RedisQueryCache({ client: redis.client, log: silentLogger(), keys: redis.keys, ...limits });
  const put = async (cache: RedisQueryCache, key: string, value: CachedAnswer): Promise<void> => {
    cache.put(key, value);
    await until(async () => (await redis.client.exists(`${redis.keys.prefix}:query:${key}`)) === 1);
  };

  it('come back as they were put', async () => {
    const cache = cacheWith();
    const answers = [answer([]), answer(['{}']), answer(['{"a":\n"x\\u0000y"}', '{"b":"ü \\n"}'], ['1', null, '']), answer(['{}'], [])];
    for (const [i, each] of answers.entries()) {
      await put(cache, `key${i}`, each);
      expect(await cache.get(`key${i}`)).to.deep.equal(each);
    }
    expect(await cache.get('another')).to.equal(undefined);
    expect(await redis.client.pttl(`${redis.keys.prefix}:query:key1`)).to.be.within(1, 60_000);
  });

  it('are bounded: one by its size, and all of a node by theirs until they expire', async () => {
    const large = (): CachedAnswer => answer([JSON.stringify('x'.repeat(1_000))]);
    const cache = cacheWith({ mostBytes: 2_000, budgetBytes: 4_300, timeToLiveMs: 500 });
    const there = (key: string): Promise<number> => redis.client.exists(`${redis.keys.prefix}:query:${key}`);
    cache.put('too large', answer([JSON.stringify('x'.repeat(2_000))]));
    // The same one counts once.
    for (let i = 0; i < 5; i++) await put(cache, 'first', large());
    await put(cache, 'second', large());
    await put(cache, 'third', large());
    cache.put('fourth', large());
    await put(cache, 'small', answer([]));
    expect([await there('too large'), await there('fourth')]).to.deep.equal([0, 0]);
    await sleep(600);
    await put(cache, 'fourth', large());
  });

  it('are given for a minute from when they were read, whoever keeps them meanwhile', async () => {
    const limits = { timeToLiveMs: 600 };
    const [one, other] = [cacheWith(limits), cacheWith(limits)];
    await put(one, 'aging', answer(['{}']));
    await sleep(400);
    // From here on the other one has it in its own memory too.
    expect(await other.get('aging')).to.include({ asOf: 7 });
    expect(other.near('aging')).to.include({ asOf: 7 });
    await sleep(300);
    expect([one.near('aging'), other.near('aging'), await other.get('aging')]).to.deep.equal([undefined, undefined, undefined]);
    // What was read long ago, or by a clock that is ahead, is not kept, nor taken from Redis.
    for (const readAt of [Date.now() - 600, Date.now() + 5_000]) {
      one.put('strange', { ...answer([]), readAt });
      expect(one.near('strange')).to.equal(undefined);
      const text = JSON.stringify({ key: 'strange', epoch: 'e', asOf: 7, readAt, count: 0 });
      await redis.client.set(`${redis.keys.prefix}:query:strange`, `${text}\n`);
      expect(await other.get('strange')).to.equal(undefined);
    }
  });

  it('are of another name for another table, version or query', () => {
    const query = prepared('things', 'SELECT 1');
    const others = [
      prepared('others', 'SELECT 1'),
      prepared('things', 'SELECT 2'),
      { ...query, table: { ...query.table, version: '2' } },
      { ...query, canonical: `${query.canonical} ` },
    ];
    expect(new Set([query, ...others].map(cacheKey)).size).to.equal(5);
    expect(cacheKey({ ...query })).to.equal(cacheKey(query));
  });
});
