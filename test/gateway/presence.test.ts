import { expect } from 'chai';
import { openRedis, closeRedis } from '../../pipeline/clients/redis.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { listedConnections, RedisPresence } from '../../gateway/redis-presence.ts';
import { redisNamespace, type RedisNamespace } from '../support/redis-namespace.ts';
import { until } from '../support/role-context.ts';
import { tcpProxy } from '../support/tcp-proxy.ts';
import { memoryHarness, TestClient, type Harness } from './support/harness.ts';

describe('gateway, presence in Redis', () => {
  let redis: RedisNamespace;
  const opened: RedisPresence[] = [];
  before(async () => {
    redis = await redisNamespace();
  });
  afterEach(async () => {
    for (const presence of opened.splice(0)) await presence.close();
    await redis.empty();
  });
  after(() => redis.close());

  function node(name: string, client = redis.client): RedisPresence {
    const presence = new RedisPresence({ client, node: name, log: silentLogger(), keys: redis.keys });
    opened.push(presence);
    return presence;
  }
  const record = (connection: string, keyId = 'k', subscriptions = 0) => ({ connection, keyId, since: 7, subscriptions });
  const listed = async (): Promise<string[]> =>
    (await listedConnections(redis.client, redis.keys)).map((each) => `${each.connection} ${each.keyId} ${each.subscriptions}`).sort();

  it('lists the connections of all nodes, as they change', async () => {
    const [a, b] = [node('a'), node('b')];
    a.set(record('a1'));
    a.set(record('a2'));
    b.set(record('b1', 'other', 2));
    await a.flush();
    await b.flush();
    expect(await listedConnections(redis.client, redis.keys)).to.deep.include({
      connection: 'b1',
      keyId: 'other',
      since: 7,
      subscriptions: 2,
    });
    expect(await listed()).to.deep.equal(['a1 k 0', 'a2 k 0', 'b1 other 2']);
    a.set(record('a1', 'other', 3));
    a.remove('a2');
    a.set(record('gone at once'));
    a.remove('gone at once');
    await a.flush();
    expect(await listed()).to.deep.equal(['a1 other 3', 'b1 other 2']);
    await a.close();
    expect(await listed()).to.deep.equal(['b1 other 2']);
  });

  it('tells each node how many connections a key has elsewhere', async () => {
    const [a, b, c] = [node('a'), node('b'), node('c')];
    for (const connection of ['1', '2', '3']) a.set(record(connection));
    b.set(record('4'));
    b.set(record('5', 'other'));
    for (const presence of [a, b, c, a]) await presence.flush();
    expect([a, b, c].map((presence) => presence.elsewhere('k'))).to.deep.equal([1, 3, 4]);
    expect(a.elsewhere('other')).to.equal(1);
    expect(a.elsewhere('unknown')).to.equal(0);
    a.set(record('1', 'other'));
    await a.flush();
    await c.flush();
    expect([c.elsewhere('k'), c.elsewhere('other')]).to.deep.equal([3, 2]);
  });

  it('lets the records of a node that died expire, and forgets the node', async () => {
    node('dead').set(record('1'));
    await opened[0]!.flush();
    for (const key of ['gateways:dead', 'gateways:dead:keys'])
      expect(await redis.client.pttl(`${redis.keys.prefix}:${key}`), key).to.be.within(10_000, 15_000);
    await redis.client.del(`${redis.keys.prefix}:gateways:dead`, `${redis.keys.prefix}:gateways:dead:keys`);
    const other = node('other');
    other.set(record('2'));
    await other.flush();
    expect(other.elsewhere('k')).to.equal(0);
    expect(await redis.client.smembers(`${redis.keys.prefix}:gateways`)).to.deep.equal(['other']);
  });

  it('writes everything again when Redis has lost it', async () => {
    const a = node('a');
    a.set(record('1'));
    a.set(record('2'));
    await a.flush();
    await redis.empty();
    a.set(record('3'));
    a.remove('1');
    await a.flush();
    expect(await listed()).to.deep.equal(['2 k 0', '3 k 0']);
  });

  it('goes on without Redis, waits for nothing, and has everything listed when it is back', async () => {
    const url = new URL(redis.url);
    const proxy = await tcpProxy(Number(url.port));
    url.port = String(proxy.port);
    const client = openRedis(url.toString(), silentLogger());
    try {
      const a = node('a', client);
      a.set(record('1'));
      await until(() => client.status === 'ready');
      await a.flush();
      proxy.cut();
      await until(() => client.status !== 'ready');
      a.set(record('2'));
      a.remove('1');
      await a.flush();
      expect(a.elsewhere('k')).to.equal(0);
      proxy.restore();
      await until(() => client.status === 'ready');
      await a.flush();
      expect(await listed()).to.deep.equal(['2 k 0']);
      proxy.stall();
      a.set(record('3'));
      const begun = performance.now();
      await a.close();
      expect(performance.now() - begun).to.be.lessThan(1_000);
    } finally {
      closeRedis(client);
      await proxy.close();
    }
  });

  describe('of a gateway', () => {
    let at: Harness;
    afterEach(() => at.stop());

    it('shows connections and their subscriptions, and limits a key over all nodes without turning it away for good', async () => {
      const [here, there] = [node('here'), node('there')];
      at = await memoryHarness({ parts: { presence: here } });
      at.keys.add('three', { limits: { connections: 3 } });
      const first = await TestClient.open(at.gateway, 'three');
      await first.subscribe({ sub: 'a', channel: 'prices' });
      await first.subscribe({ sub: 'b', channel: 'tvl' });
      // Behind any random name.
      there.set(record('~1', 'id-of-three'));
      there.set(record('~2', 'id-of-three'));
      await there.flush();
      await until(async () => (await here.flush(), (await listed()).length === 3));
      expect((await listed()).map((text) => text.split(' ').slice(1).join(' '))).to.deep.equal([
        'id-of-three 2',
        'id-of-three 0',
        'id-of-three 0',
      ]);
      const second = await TestClient.open(at.gateway, null);
      second.send({ type: 'connect', id: 9, auth: { apiKey: 'three' } });
      expect(await second.next('error')).to.include({ id: 9, code: 'rate_limited', retryAfterMs: 5_000 });
      expect(await second.closed).to.equal(4005);
      await there.close();
      await here.flush();
      const third = await TestClient.open(at.gateway, 'three');
      third.send({ type: 'ping', id: 1 });
      await third.next('pong');
      first.ws.close();
      await first.closed;
      await until(
        async () => (await here.flush(), (await listed()).join() === `${third.frames[0]!['connection'] as string} id-of-three 0`),
      );
    });
  });
});
