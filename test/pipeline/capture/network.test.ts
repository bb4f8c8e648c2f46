import { expect } from 'chai';
import { tcpProxy, type TcpProxy } from '../../support/tcp-proxy.ts';
import { captureFixture, type CaptureFixture } from './support/fixture.ts';
import { Random } from './support/random.ts';
import { expectWellFormed, fold } from './support/stored-events.ts';

const seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

/** The same URL by way of a proxy. */
async function byProxy(url: string): Promise<{ proxy: TcpProxy; url: string }> {
  const target = new URL(url);
  const proxy = await tcpProxy(Number(target.port));
  target.port = String(proxy.port);
  return { proxy, url: target.toString() };
}

describe('capture: a network that breaks and stalls', function () {
  this.timeout(90_000);
  let fixture: CaptureFixture;
  beforeEach(async () => {
    fixture = await captureFixture();
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
  });
  afterEach(() => fixture.close());

  it('to NATS and to PostgreSQL: every change is in the log once', async () => {
    const random = new Random(seed);
    const toNats = await byProxy(fixture.natsUrls.capture);
    const toPostgres = await byProxy(fixture.databaseUrl);
    fixture.onClose(() => toNats.proxy.close());
    fixture.onClose(() => toPostgres.proxy.close());
    await fixture.streaming({ env: { NATS_URL: toNats.url, DATABASE_URL: toPostgres.url, HEADWATER_TICK: '100ms' } });
    let writing = true;
    let inserted = 0;
    const application = await fixture.connect();
    const load = (async () => {
      while (writing) {
        const rows = random.chance(0.2) ? random.int(100, 2_500) : random.int(1, 10);
        await application.query(`INSERT INTO items SELECT i, 'v' || i FROM generate_series($1::int, $2::int) i`, [
          inserted + 1,
          inserted + rows,
        ]);
        inserted += rows;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    })();
    for (const [proxy, fault] of [
      [toNats.proxy, 'cut'],
      [toPostgres.proxy, 'cut'],
      [toNats.proxy, 'stall'],
      [toNats.proxy, 'cut'],
    ] as const) {
      await new Promise((resolve) => setTimeout(resolve, random.int(200, 1_000)));
      proxy[fault]();
      await new Promise((resolve) => setTimeout(resolve, random.int(50, 1_000)));
      proxy.restore();
    }
    writing = false;
    await load;
    const events = await fixture.settled(60_000);
    expectWellFormed(events);
    expect(
      events.filter((event) => event.op === 'insert').map((event) => event.key!['id']),
      `seed ${seed}`,
    ).to.deep.equal(Array.from({ length: inserted }, (_, i) => i + 1));
    expect(fold(events, 'public.items').size).to.equal(inserted);
  });
});
