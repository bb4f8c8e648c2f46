import { expect } from 'chai';
import { PassThrough } from 'node:stream';
import { pino } from 'pino';
import { closeRedis, connectRedis, RedisScript, type RedisClient } from '../../pipeline/clients/redis.ts';
import type { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { until } from '../support/role-context.ts';
import { testServers } from '../support/servers.ts';
import { tcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

describe('Redis client', () => {
  let url: string;
  let proxied: string;
  let proxy: TcpProxy;
  const log = silentLogger();
  before(async () => {
    url = (await testServers()).redisUrl;
    proxy = await tcpProxy(Number(new URL(url).port));
    proxied = Object.assign(new URL(url), { port: String(proxy.port) }).toString();
  });
  after(() => proxy.close());

  const refusal = (connecting: Promise<RedisClient>): Promise<HeadwaterError> =>
    connecting.then(closeRedis, (error: unknown) => error as HeadwaterError) as Promise<HeadwaterError>;

  it('refuses a server that would drop keys, and takes it when its memory has no limit', async () => {
    const admin = await connectRedis(url, log);
    const [, limit] = (await admin.config('GET', 'maxmemory')) as [string, string];
    try {
      await admin.config('SET', 'maxmemory-policy', 'allkeys-lru');
      await admin.config('SET', 'maxmemory', '0');
      closeRedis(await connectRedis(url, log));
      await admin.config('SET', 'maxmemory', String(4 * 1024 ** 3));
      const error = await refusal(connectRedis(url, log));
      expect(error).to.include({ code: 'redis_evicts', reaction: 'refused' });
      expect(error.hint).to.include('noeviction');
      expect(error.message).not.to.include(new URL(url).password || '\0');
    } finally {
      await admin.config('SET', 'maxmemory', limit);
      await admin.config('SET', 'maxmemory-policy', 'noeviction');
      closeRedis(admin);
    }
  });

  it('says at once that the password is wrong, rather than to try for ever', async () => {
    const wrong = new URL(url);
    wrong.password = 'wrong';
    expect(await refusal(connectRedis(wrong.toString(), log))).to.include({ code: 'redis_unauthorized', reaction: 'usage' });
  });

  it('waits for a server that is not there yet, and gives up when told to', async () => {
    proxy.cut();
    const connecting = connectRedis(proxied, log);
    await new Promise((resolve) => setTimeout(resolve, 150));
    proxy.restore();
    closeRedis(await connecting);
    const reason = new Error('stopped');
    const error = await refusal(connectRedis('redis://127.0.0.1:1', log, { signal: AbortSignal.timeout(50) }));
    expect(error.name).to.equal('TimeoutError');
    expect(await refusal(connectRedis('redis://127.0.0.1:1', log, { signal: AbortSignal.abort(reason) }))).to.equal(reason);
  });

  it('fails commands at once while the server is away, says so once, and works again when it is back', async () => {
    const lines: string[] = [];
    const stream = new PassThrough().on('data', (line: Buffer) => lines.push(line.toString()));
    const client = await connectRedis(proxied, pino({}, stream));
    for (let i = 0; i < 2; i++) {
      proxy.cut();
      await until(() => client.status !== 'ready');
      const began = performance.now();
      await client.get('x').then(
        () => expect.fail('there was no server'),
        () => undefined,
      );
      expect(performance.now() - began).to.be.lessThan(50);
      await new Promise((resolve) => setTimeout(resolve, 300));
      proxy.restore();
      await until(async () => (await client.ping().catch(() => '')) === 'PONG');
    }
    closeRedis(client);
    expect(lines.filter((line) => line.includes('not available'))).to.have.length(2);
    expect(lines.filter((line) => line.includes('is back'))).to.have.length(2);
  });

  it('runs a script also after the server has forgotten it', async () => {
    const client = await connectRedis(url, log);
    const script = new RedisScript(`return {ARGV[1], #ARGV[1]} -- ${Math.random()}`);
    const bytes = Buffer.from([0, 255, 13, 10]);
    for (let i = 0; i < 2; i++) {
      expect(await script.run(client, [], [bytes])).to.deep.equal([bytes, 4]);
      await client.script('FLUSH');
    }
    closeRedis(client);
  });
});
