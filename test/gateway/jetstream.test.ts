import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectNats, type NatsConnection } from '../../pipeline/clients/nats.ts';
import type { NewEvent } from '../../pipeline/log/event-log.ts';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { freshStreamName, testServers } from '../support/servers.ts';
import { tcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';
import { price, startHarness, TestClient, until, type Frame, type Harness } from './support/harness.ts';

describe('gateway on JetStream', () => {
  const seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  const random = generator(seed);
  const stream = freshStreamName();
  let direct: NatsConnection;
  let through: NatsConnection;
  let proxy: TcpProxy;
  let writer: JetStreamLog;
  let at: Harness;
  /** What a subscriber to eth:1 should get. */
  const wanted: number[] = [];
  let head = 0;

  before(async function () {
    this.timeout(120_000);
    const { natsUrl } = await testServers();
    proxy = await tcpProxy(Number(new URL(natsUrl).port));
    const proxied = new URL(natsUrl);
    proxied.port = String(proxy.port);
    direct = await connectNats(natsUrl, 'test', silentLogger());
    through = await connectNats(proxied.toString(), 'test', silentLogger());
    const settings = { stream, subject: stream, replicas: 1, maxAgeMs: undefined, maxBytes: undefined };
    writer = await JetStreamLog.create(direct, settings, silentLogger());
    await write(2_000);
    const reader = await JetStreamLog.open(through, settings, silentLogger());
    at = await startHarness(reader, { env: { HEADWATER_STREAM: stream, HEADWATER_SUBJECT: stream, HEADWATER_RECENT_WINDOW: '64KB' } });
  });
  after(async () => {
    await at?.stop();
    await through?.close();
    await direct?.close();
    await proxy?.close();
  });

  async function write(count: number): Promise<void> {
    for (let left = count; left > 0;) {
      const size = Math.min(left, 1 + Math.floor(random() * 100));
      const tokens = Array.from({ length: size }, () => Math.floor(random() * 3));
      const events = tokens.map((token, i): NewEvent => {
        const { subject, data } = price(`eth:${token}`, i);
        return { subject: subject.replace(/^ev/, stream), data };
      });
      tokens.forEach((token, i) => token === 1 && wanted.push(head + i + 1));
      head = await writer.append(events, head);
      left -= size;
    }
  }

  it(`resumes with tokens after cuts at random moments: every event once, in order (TEST_SEED=${seed})`, async function () {
    this.timeout(60_000);
    let writing = true;
    const writes = (async () => {
      while (writing) {
        await write(20);
        await sleep(random() * 4);
      }
    })();
    const got: number[] = [];
    let from: unknown = { seq: 1 };
    const attempt = async (last: boolean): Promise<void> => {
      const client = await TestClient.open(at.gateway);
      await client.subscribe({ sub: 'a', channel: 'prices', filter: { tokenIds: ['eth:1'] }, from });
      if (last)
        await client
          .next((frame) => frame.type === 'caught_up', 20_000)
          .then(() => until(() => client.seqs().includes(wanted.at(-1)!) || got.at(-1) === wanted.at(-1)));
      else await sleep(random() * 60);
      client.ws.terminate();
      await client.closed;
      got.push(...client.seqs());
      const told = client.frames.findLast((frame: Frame) => ['subscribed', 'cursor', 'caught_up'].includes(frame.type))!;
      from = { token: told['token'], ...(got.length > 0 && { after: got.at(-1) }) };
    };
    for (let cut = 0; cut < 40; cut++) await attempt(false);
    writing = false;
    await writes;
    await attempt(true);
    expect(got).to.deep.equal(wanted);
  });

  it('goes on where it was when NATS comes back, with every event once; the clients stay', async function () {
    this.timeout(60_000);
    const client = await TestClient.open(at.gateway);
    const { start } = await client.subscribe({ sub: 'a', channel: 'prices', filter: { tokenIds: ['eth:1'] } });
    await client.next('caught_up');
    for (let round = 0; round < 3; round++) {
      await write(50);
      proxy.cut();
      await write(50);
      await sleep(100 + random() * 400);
      proxy.restore();
      await write(50);
    }
    const expected = wanted.filter((seq) => seq >= (start as number));
    await until(() => client.seqs().length >= expected.length, 30_000);
    expect(client.seqs()).to.deep.equal(expected);
    client.ws.terminate();
  });

  it('finds a commit time, the newest matching and trimmed positions in a real log', async () => {
    const client = await TestClient.open(at.gateway);
    const time = new Date().toISOString();
    const before = head;
    await sleep(5);
    await write(10);
    expect(await client.subscribe({ sub: 't', channel: 'prices', from: { time } })).to.include({ start: before + 1 });
    expect(await client.subscribe({ sub: 'l', channel: 'prices', filter: { tokenIds: ['eth:1'] }, from: { last: 500 } })).to.include({
      start: wanted.at(-500),
    });
    expect(await client.subscribe({ sub: 'x', channel: 'prices', from: { seq: head + 2 } })).to.include({ code: 'position_ahead' });
    client.ws.terminate();
  });

  it('closes with position_lost when the log begins another history', async function () {
    this.timeout(20_000);
    const client = await TestClient.open(at.gateway);
    const { token } = await client.subscribe({ sub: 'a', channel: 'prices' });
    await writer.renewEpoch();
    expect(await client.closed).to.equal(4004);
    await sleep(300);
    const again = await TestClient.open(at.gateway);
    expect(await again.subscribe({ sub: 'a', channel: 'prices', from: { token } })).to.include({ code: 'epoch_changed' });
  });
});

/** Pseudo-random numbers in [0, 1) that a seed determines (mulberry32). */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
