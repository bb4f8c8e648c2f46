import { expect } from 'chai';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { closeRedis, connectRedis, type RedisClient } from '../../../pipeline/clients/redis.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { namespaceOf } from '../../../processors/aggregates/store/keys.ts';
import { TestClient } from '../../gateway/support/harness.ts';
import { tickEvent } from '../../support/row-events.ts';
import { until } from '../../support/role-context.ts';
import { tcpProxy, type TcpProxy } from '../../support/tcp-proxy.ts';
import { startReading, trade, type Reading } from './support/reading.ts';

const catalog = (functions: string, by = '[pair]'): string => `
aggregates:
  trades: { table: public.trades, by: ${by}, value: price, time: traded_at, of: rows, windows: [1m], functions: ${functions} }
others: true
exclude: []
`;
const channel = 'aggregates:trades';

describe('reading aggregates while Redis is away', function () {
  this.timeout(60_000);
  let reading: Reading;
  let proxy: TcpProxy;
  let client: RedisClient;
  before(async () => {
    reading = await startReading(catalog('[sum]'), {
      async readFrom(url) {
        proxy = await tcpProxy(Number(new URL(url).port));
        const proxied = Object.assign(new URL(url), { host: `127.0.0.1:${proxy.port}` });
        return (client = await connectRedis(proxied.toString(), silentLogger(), { commandTimeoutMs: 1_000 }));
      },
    });
    await reading.append(trade('insert', 1, { price: '1' }, 1));
  });
  after(async () => {
    await reading.close();
    closeRedis(client);
    await proxy.close();
  });

  it('answers 503 and overload, and live subscriptions go on once it is back, with what they have missed', async () => {
    const socket = await TestClient.open(reading.harness.gateway);
    await socket.subscribe({ sub: 't', channel });
    await socket.next('caught_up');
    proxy.cut();
    await reading.append(trade('insert', 2, { price: '2' }, 2));
    for (const path of ['', '/trades?pair=a', '/trades/latest', '/none']) {
      const { status, error, headers } = await reading.get(path);
      expect([status, error?.code, headers.get('retry-after')], path).to.deep.equal([503, 'unavailable', '1']);
    }
    const late = await socket.subscribe({ sub: 'u', channel });
    expect(late).to.include({ type: 'error', code: 'overload', retryAfterMs: 1_000 });
    proxy.restore();
    expect(await socket.next('event', 20_000)).to.have.nested.property('event.windows.1m[0].sum', '3');
    expect((await reading.get('/trades?pair=a')).items[0]!['sum']).to.equal('3');
    socket.ws.terminate();
  });
});

describe('aggregates whose definition changes', function () {
  this.timeout(60_000);
  let folder: string;
  let file: string;
  let reading: Reading;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'aggregates-'));
    file = join(folder, 'catalog.yaml');
    await writeFile(file, catalog('[sum]'));
    reading = await startReading(catalog('[sum]'), { file });
    await reading.append(trade('insert', 1, { price: '1', size: 5 }, 1));
  });
  afterEach(async () => {
    await reading.close();
    await rm(folder, { recursive: true });
  });

  it('are read by the new one as soon as it is served, and what was subscribed begins anew', async () => {
    const socket = await TestClient.open(reading.harness.gateway);
    await socket.subscribe({ sub: 't', channel });
    await socket.next('caught_up');
    await writeFile(file, catalog('[sum, p50]', '[pair, size]'));
    await until(async () => (await reading.get('/trades?pair=a&size=5')).status === 200);
    expect((await reading.get('/trades?pair=a&size=5')).items[0]).to.include({ sum: '1', p50: '1' });
    expect(await socket.next('error')).to.include({ sub: 't', code: 'resume_expired' });
    await socket.next('unsubscribed');
    // Who has read all of the former one is as far as who has read all of this one, until the log goes on.
    expect(await socket.subscribe({ sub: 'u', channel, snapshot: true })).to.include({ type: 'error', code: 'overload' });
    const seq = await reading.push(tickEvent(2));
    await until(async () => (await reading.get('/trades?pair=a&size=5')).seq === seq);
    expect(await socket.subscribe({ sub: 'v', channel, from: { after: seq - 1 } })).to.include({ type: 'error', code: 'resume_expired' });
    socket.send({ type: 'subscribe', id: 1, sub: 't', channel, snapshot: true });
    expect((await socket.next('snapshot'))['items']).to.have.nested.property('[0].event.by.size', 5);
    socket.ws.terminate();
  });

  it('show no windows in part when they are kept for longer again', async () => {
    const shown = async (path: string): Promise<unknown> =>
      (await reading.get(path)).items.map(({ start, sum }) => [String(start).slice(14, 16), sum]);
    await writeFile(file, catalog('[sum], retention: { 1m: 5m }'));
    await until(async () => (await reading.get('')).items.some(({ retention }) => (retention as { '1m': string })['1m'] === '5m'));
    await reading.append(trade('insert', 2, { price: '2' }, 600));
    await writeFile(file, catalog('[sum], sliding: [10m]'));
    await until(async () => (await reading.get('/trades/latest?sliding=10m')).status === 200);
    await reading.append(trade('insert', 3, { price: '4' }, 601), trade('update', 3, { price: '4' }, 200));
    expect(await shown('/trades?pair=a')).to.deep.equal([['10', '2']]);
    expect(await shown('/trades?pair=a&sliding=10m')).to.deep.equal([]);
    // What ends now begins in the first minute.
    expect(await shown('/trades/latest?sliding=10m')).to.deep.equal([]);
    await reading.append(trade('insert', 4, { price: '8' }, 960));
    expect(await shown('/trades?pair=a&sliding=10m')).to.deep.equal([
      ['06', '2'],
      ['07', '10'],
    ]);
    expect(await shown('/trades/latest?sliding=10m')).to.deep.equal([['07', '10']]);
  });

  it('tell their subscribers when they are made anew', async () => {
    const socket = await TestClient.open(reading.harness.gateway);
    await socket.subscribe({ sub: 't', channel });
    await socket.next('caught_up');
    const { name, hash } = reading.definitions.get('trades')!;
    await reading.redis.client.hset(namespaceOf(name, hash).offset('aggregates'), 'seq', 0);
    expect(await socket.next('error')).to.include({ sub: 't', code: 'resume_expired' });
    socket.ws.terminate();
  });

  it('are gone when they are defined no more', async () => {
    const socket = await TestClient.open(reading.harness.gateway);
    await socket.subscribe({ sub: 't', channel });
    await writeFile(file, 'others: true\n');
    await until(async () => (await reading.get('/trades?pair=a')).status === 404);
    expect(await socket.next('error')).to.include({ sub: 't', code: 'unknown_channel' });
    expect((await reading.get('')).items).to.deep.equal([]);
    socket.ws.terminate();
  });
});
