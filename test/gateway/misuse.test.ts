import { expect } from 'chai';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { once } from 'node:events';
import { memoryHarness, price, event, until, TestClient, type Harness } from './support/harness.ts';
import type { MemoryLog } from '../support/memory-log.ts';

describe('gateway, misuse and limits', () => {
  let at: Harness & { log: MemoryLog };
  const start = async (env: Record<string, string> = {}): Promise<void> => void (at = await memoryHarness({ env }));
  const statusOf = async (path: string, options: object = {}): Promise<number | undefined> => {
    const client = new TestClient(at.gateway.url.replace('http', 'ws') + path, options);
    const outcome = await Promise.race([once(client.ws, 'unexpected-response'), once(client.ws, 'open')]);
    client.ws.terminate();
    return (outcome[1] as { statusCode?: number } | undefined)?.statusCode;
  };
  afterEach(() => at.stop());

  it('asks for a key on the route, however its path is written', async () => {
    at = await memoryHarness({ parts: { routes: [(app) => void app.get('/v2/mine', () => ({}))] } });
    for (const path of ['/v2/mine', '/%762/mine', '/v%32/mine', '/v2/%6dine'])
      expect((await fetch(at.gateway.url + path)).status).to.equal(401);
  });

  it('closes with the code that fits, after an error frame', async () => {
    await start();
    at.keys.add('old', { expiresAt: Date.now() - 1 });
    at.keys.add('gone', { revokedAt: Date.now() - 1 });
    const cases: [string, string | Buffer, number][] = [
      ['unknown key', JSON.stringify({ type: 'connect', auth: { apiKey: 'nope' } }), 4401],
      ['expired key', JSON.stringify({ type: 'connect', auth: { apiKey: 'old' } }), 4401],
      ['revoked key', JSON.stringify({ type: 'connect', auth: { apiKey: 'gone' } }), 4401],
      ['jwt', JSON.stringify({ type: 'connect', auth: { jwt: 'a.b.c' } }), 4401],
      ['subscribe first', JSON.stringify({ type: 'subscribe', id: 1, sub: 'a', channel: 'prices' }), 4400],
      ['not JSON', '{', 4400],
      ['too big', `"${'x'.repeat(65 * 1024)}"`, 1009],
      ['binary', Buffer.from('{}'), 4400],
    ];
    for (const [name, data, code] of cases) {
      const client = await TestClient.open(at.gateway, null);
      client.ws.send(data);
      expect(await client.closed, name).to.equal(code);
      if (code >= 4000)
        expect(
          client.frames.map(({ code: c }) => c),
          name,
        ).to.have.length(1);
    }
    const silent = await TestClient.open(at.gateway, null);
    expect(await silent.closed).to.equal(4402);
  });

  it('answers what it does not understand, and lives on', async () => {
    await start();
    const client = await TestClient.open(at.gateway);
    const texts = [
      '{',
      '[]',
      'null',
      '['.repeat(30_000),
      `${'['.repeat(30_000)}${']'.repeat(30_000)}`,
      '{"type":"nope","id":7}',
      '{"type":"subscribe","id":2,"sub":"x"}',
      '{"__proto__":{"x":1},"constructor":{"prototype":{"y":1}}}',
    ];
    for (const text of texts) client.send(text);
    client.ws.send(Buffer.from([1, 2, 3]));
    for (let i = 0; i <= texts.length; i++) expect(await client.next('error')).to.include({ code: 'bad_request' });
    for (const filter of [
      { nope: [1] },
      { minValue: 'abc' },
      { tokenIds: 'eth' },
      { tokenIds: [{}] },
      { ['__proto__']: 1, constructor: [1] },
    ]) {
      expect(await client.subscribe({ sub: 's', channel: 'prices', filter }), JSON.stringify(filter)).to.include({
        code: 'bad_filter',
        sub: 's',
      });
    }
    expect(await client.subscribe({ sub: 's', channel: '__proto__' })).to.include({ code: 'unknown_channel' });
    expect(({} as { x?: unknown }).x).to.equal(undefined);
    client.send({ type: 'ping', id: 'p' });
    expect(await client.next('pong')).to.include({ id: 'p' });
  });

  it('closes 1007 for invalid UTF-8, and survives broken frames and handshakes', async () => {
    await start();
    const client = await TestClient.open(at.gateway);
    const { port, hostname } = new URL(at.gateway.url);
    for (const bytes of [
      Buffer.from([0xc1, 0x80, 0, 0, 0, 0]),
      Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28]),
      Buffer.from([0x81, 0x05]),
    ]) {
      const socket = net.connect(Number(port), hostname);
      socket.on('error', () => undefined);
      socket.write(
        'GET /v2/realtime HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n',
      );
      await once(socket, 'data');
      socket.write(bytes);
      await Promise.race([once(socket, 'data'), sleep(200)]);
      socket.destroy();
    }
    client.send({ type: 'ping', id: 1 });
    await client.next('pong');
  });

  it('refuses upgrades: another path, a key in the URL, a foreign origin, too many at once', async () => {
    await start({ HEADWATER_ORIGINS: 'https://app.example', HEADWATER_LIMIT_CONNECTS: '5' });
    expect(await statusOf('/v2/nothing')).to.equal(404);
    for (const name of ['apiKey', 'token', 'access_token', 'key']) expect(await statusOf(`/v2/realtime?${name}=secret`)).to.equal(400);
    expect(await statusOf('/v2/realtime', { headers: { origin: 'https://evil.example' } })).to.equal(403);
    expect(await statusOf('/v2/realtime', { headers: { origin: 'https://app.example' } })).to.equal(undefined);
    const outcomes = await Promise.all(
      Array.from({ length: 12 }, (_, i) => statusOf('/v2/realtime', { headers: { 'x-forwarded-for': `9.9.9.${i}` } })),
    );
    expect(outcomes.filter((status) => status === 429)).to.have.length.within(6, 8);
  });

  it('counts X-Forwarded-For only from trusted proxies', async () => {
    await start({ HEADWATER_TRUSTED_PROXIES: '127.0.0.1', HEADWATER_LIMIT_CONNECTS: '2' });
    const outcomes = await Promise.all(
      Array.from({ length: 12 }, (_, i) => statusOf('/v2/realtime', { headers: { 'x-forwarded-for': `9.9.9.${i}` } })),
    );
    expect(outcomes).to.deep.equal(outcomes.map(() => undefined));
  });

  it('limits connections, subscriptions, filter values and commands of a key', async () => {
    await start({
      HEADWATER_LIMIT_FILTER_VALUES: '3',
      HEADWATER_LIMIT_SUBSCRIPTIONS: '1',
      HEADWATER_LIMIT_COMMANDS: '5',
      HEADWATER_LIMIT_COMMANDS_BURST: '20',
    });
    at.keys.add('one', { limits: { connections: 1 } });
    const first = await TestClient.open(at.gateway, 'one');
    const second = await TestClient.open(at.gateway, null);
    second.send({ type: 'connect', auth: { apiKey: 'one' } });
    expect(await second.closed).to.equal(4404);
    first.ws.close();
    await first.closed;
    const client = await TestClient.open(at.gateway, 'one');
    expect(await client.subscribe({ sub: 'a', channel: 'prices', filter: { tokenIds: ['1', '2', '3', '4'] } })).to.include({
      code: 'bad_filter',
    });
    expect(await client.subscribe({ sub: 'a', channel: 'prices' })).to.include({ type: 'subscribed' });
    expect(await client.subscribe({ sub: 'b', channel: 'prices' }))
      .to.include({ code: 'rate_limited' })
      .and.to.have.property('retryAfterMs');
    for (let i = 0; i < 30; i++) client.send({ type: 'ping', id: i });
    expect(await client.next('error'))
      .to.include({ code: 'rate_limited' })
      .and.to.have.property('id');
    await sleep(600);
    client.send({ type: 'ping', id: 'later' });
    await client.next((frame) => frame.type === 'pong' && frame['id'] === 'later');
  });

  it('answers HTTP with the contract’s errors', async () => {
    await at?.stop();
    at = await memoryHarness({ parts: { routes: [(app) => void app.get('/v2/who', (request) => ({ owner: request.principal.owner }))] } });
    const get = async (path: string, headers: Record<string, string> = {}): Promise<[number, unknown]> => {
      const answer = await fetch(at.gateway.url + path, { headers });
      return [answer.status, await answer.json()];
    };
    const bearer = { authorization: 'Bearer secret' };
    expect(await get('/v2/who', bearer)).to.deep.equal([200, { owner: 'ann' }]);
    for (const path of ['/v2/who', '/v2/nothing', '/v2/rows/public.prices/x']) expect((await get(path))[0], path).to.equal(401);
    expect((await get('/v2/who', { authorization: 'Bearer wrong' }))[0]).to.equal(401);
    expect((await get('/v2/who?access_token=secret', bearer))[0]).to.equal(400);
    expect(await get('/v2/nothing', bearer)).to.deep.equal([404, { error: { code: 'not_found', message: 'there is no /v2/nothing' } }]);
    expect((await get('/v2/realtime'))[0]).to.equal(426);
    at.keys.down = true;
    expect((await get('/v2/who', bearer))[0], 'a cached key').to.equal(200);
    expect((await get('/v2/who', { authorization: 'Bearer other' }))[0]).to.equal(503);
  });

  it('answers connected unasked to a Bearer upgrade, and forgets a key as soon as the log shows a change of it', async () => {
    await start();
    const client = await TestClient.open(at.gateway, null, { headers: { authorization: 'Bearer secret' } });
    expect(await client.next('connected'))
      .to.include({ epoch: 'epoch-1', head: 0, pingMs: 25_000 })
      .and.not.to.have.property('id');
    const bad = await TestClient.open(at.gateway, null, { headers: { authorization: 'Bearer nope' } });
    expect(await bad.closed).to.equal(4401);
    await TestClient.open(at.gateway);
    const { lookups } = at.keys;
    at.keys.add('secret', { revokedAt: 1 });
    await TestClient.open(at.gateway);
    expect(at.keys.lookups).to.equal(lookups);
    await at.log.append(
      [event('headwater.api_keys', 'update', { type: 'row', key: { id: 'id-of-secret' }, after: { id: 'id-of-secret' } })],
      at.log.head,
    );
    await sleep(20);
    const late = await TestClient.open(at.gateway, null);
    late.send({ type: 'connect', auth: { apiKey: 'secret' } });
    expect(await late.closed).to.equal(4401);
  });

  it('closes with internal when a key cannot be judged, instead of never answering', async () => {
    await start();
    at.keys.add('odd');
    const find = at.keys.find.bind(at.keys);
    // A fault in the middle of a step, and one before it.
    for (const member of ['scopes', 'limits']) {
      at.keys.find = async (hash) => {
        const key = await find(hash);
        return (
          key && {
            ...key,
            get [member](): never {
              throw new Error('a defect');
            },
          }
        );
      };
      const client = await TestClient.open(at.gateway, null);
      client.send({ type: 'connect', id: 1, auth: { apiKey: 'odd' } });
      expect(await client.next('error')).to.include({ code: 'internal' });
      expect(await client.closed, member).to.equal(1011);
    }
  });

  it('shows a key only its owner’s alerts', async () => {
    await start();
    at.keys.add('bob', { owner: 'bob', scopes: ['alerts'] });
    const client = await TestClient.open(at.gateway, 'bob');
    expect(await client.subscribe({ sub: 'p', channel: 'prices' })).to.include({ code: 'forbidden' });
    await client.subscribe({ sub: 'a', channel: 'alerts', filter: { userId: 'ann' } });
    await client.next('caught_up');
    const alert = (user: string) => event('headwater.alert_history', 'insert', { type: 'alert', after: { user_id: user } });
    await at.log.append([alert('ann'), alert('bob'), alert('ann')], 0);
    await until(() => client.seqs().length > 0);
    await sleep(20);
    expect(client.seqs()).to.deep.equal([2]);
  });

  it('cuts off a slow reader, and nobody else; it resumes without a loss', async () => {
    await start();
    const slow = await TestClient.open(at.gateway);
    const quick = await TestClient.open(at.gateway);
    for (const client of [slow, quick]) {
      await client.subscribe({ sub: 'a', channel: 'prices' });
      await client.next('caught_up');
    }
    slow.ws.pause();
    const count = 3_000;
    for (let i = 0; i < count; i += 10) {
      await at.log.append(
        Array.from({ length: 10 }, (_, k) => price('eth:1', `${i + k}.${'0'.repeat(5_000)}`)),
        at.log.head,
      );
      await until(() => quick.seqs().at(-1) === at.log.head);
    }
    slow.ws.resume();
    expect(await slow.closed).to.equal(4001);
    expect(slow.frames.at(-1)).to.include({ type: 'error', code: 'slow_consumer' });
    const got = slow.seqs();
    expect(got.length).to.be.lessThan(count);
    expect(got).to.deep.equal(got.map((_, i) => i + 1));
    const again = await TestClient.open(at.gateway);
    await again.subscribe({ sub: 'a', channel: 'prices', from: { after: got.length } });
    await again.next('caught_up');
    expect([...got, ...again.seqs()]).to.deep.equal(Array.from({ length: count }, (_, i) => i + 1));
  });
});
