import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { memoryHarness, price, event, until, TestClient, type Harness } from './support/harness.ts';
import type { MemoryLog } from '../support/memory-log.ts';

describe('gateway, live and replay', () => {
  let at: Harness & { log: MemoryLog };
  beforeEach(async () => {
    at = await memoryHarness({
      events: Array.from({ length: 1_500 }, (_, i) => price(`eth:${i % 10}`, i)),
      env: { HEADWATER_RECENT_WINDOW: '100KB' },
    });
  });
  afterEach(() => at.stop());
  const append = (...events: ReturnType<typeof price>[]): Promise<number> => at.log.append(events, at.log.head);

  it('gives a live subscription the events that match, with the log’s own bytes', async () => {
    const client = await TestClient.open(at.gateway);
    const raw: string[] = [];
    client.ws.on('message', (data: Buffer) => raw.push(data.toString()));
    const subscribed = await client.subscribe({ sub: 'a', channel: 'prices', filter: { tokenIds: ['eth:1'] } });
    expect(subscribed).to.include({ sub: 'a', channel: 'prices', start: 1_501, head: 1_500, oldest: 1, epoch: 'epoch-1' });
    await client.next('caught_up');
    const wanted = price('eth:1', '1.10');
    await append(price('eth:2', 1), wanted, price('eth:3', 1));
    const got = await client.next('event');
    expect(got).to.include({ seq: 1_502, channel: 'prices' });
    expect(got).not.to.have.property('sub');
    expect(raw.find((text) => text.includes('"event","seq":1502'))).to.equal(
      `{"type":"event","seq":1502,"channel":"prices","event":${Buffer.from(wanted.data).toString()}}`,
    );
    await append(price('eth:1', 2));
    await until(() => client.seqs().length === 2);
    expect(client.seqs()).to.deep.equal([1_502, 1_504]);
  });

  it('sends an event once to a connection with several live subscriptions', async () => {
    const client = await TestClient.open(at.gateway);
    for (const sub of ['a', 'b', 'c']) {
      await client.subscribe({ sub, channel: 'prices', ...(sub === 'c' ? {} : { filter: { chains: ['eth'] } }) });
      await client.next('caught_up');
    }
    await append(price('eth:1', 1), price('eth:1', 2));
    await until(() => client.seqs().length >= 2);
    await sleep(30);
    expect(client.seqs()).to.deep.equal([1_501, 1_502]);
  });

  it('shows a row that leaves the filter leaving, and truncates to everyone', async () => {
    const client = await TestClient.open(at.gateway);
    await client.subscribe({ sub: 'a', channel: 'prices', filter: { minValue: '100' } });
    await client.next('caught_up');
    await append(
      price('eth:1', 50, { before: { token_id: 'eth:1', price: '150' } }),
      price('eth:1', 51, { before: { token_id: 'eth:1', price: '50' } }),
      event('public.prices', 'truncate', { type: 'price_update' }),
    );
    await until(() => client.seqs().length === 2);
    expect(client.seqs()).to.deep.equal([1_501, 1_503]);
  });

  for (const [name, from, first] of [
    ['a sequence in memory', { seq: 1_450 }, 1_450],
    ['a sequence in the log', { seq: 3 }, 3],
    ['the beginning', { after: 0 }, 1],
    ['the newest matching', { last: 5 }, 1_451],
    ['the newest matching, further back than memory', { last: 140 }, 101],
  ] as const) {
    it(`replays from ${name} and goes on live, exactly once`, async () => {
      const client = await TestClient.open(at.gateway);
      const subscribed = await client.subscribe({ sub: 'r', channel: 'prices', filter: { tokenIds: ['eth:0'] }, from });
      expect(subscribed['start']).to.equal(first);
      const caughtUp = await client.next('caught_up');
      await append(price('eth:0', 1));
      await until(() => client.seqs().at(-1) === 1_501);
      const expected = Array.from({ length: 1_500 }, (_, i) => i + 1).filter((seq) => seq >= first && (seq - 1) % 10 === 0);
      expect(client.seqs()).to.deep.equal([...expected, 1_501]);
      expect(client.events().filter(({ sub }) => sub === 'r')).to.have.length(expected.length);
      expect(caughtUp).to.include({ sub: 'r', seq: 1_500 });
      expect(client.frames.filter(({ type }) => type === 'caught_up')).to.have.length(1);
    });
  }

  it('does not touch the log for a replay that the recent window covers', async () => {
    const reads = at.log.reads.length;
    const client = await TestClient.open(at.gateway);
    await client.subscribe({ sub: 'r', channel: 'prices', from: { seq: 1_400 } });
    await client.next('caught_up');
    expect(at.log.reads).to.have.length(reads);
  });

  it('starts at a commit time', async () => {
    const client = await TestClient.open(at.gateway);
    await sleep(20);
    const time = new Date().toISOString();
    await append(price('eth:1', 1), price('eth:1', 2));
    const subscribed = await client.subscribe({ sub: 't', channel: 'prices', from: { time } });
    expect(subscribed['start']).to.equal(1_501);
    const old = await client.subscribe({ sub: 'old', channel: 'prices', from: { time: '2001-01-01T00:00:00Z' } });
    expect(old['start']).to.equal(1);
    const later = await client.subscribe({ sub: 'later', channel: 'prices', from: { time: '2099-01-01T00:00:00Z' } });
    expect(later['start']).to.equal(1_503);
  });

  it('loses and repeats nothing between replay and live while events keep coming', async () => {
    let writing = true;
    const writer = (async () => {
      while (writing) {
        await append(...Array.from({ length: 20 }, (_, i) => price(`eth:${i}`, i)));
        await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    const client = await TestClient.open(at.gateway);
    for (const [i, from] of [{ seq: 1 }, { last: 50 }, 'now', { seq: 700 }].entries()) {
      await client.subscribe({ sub: `s${i}`, channel: 'prices', from });
      await client.next((frame) => frame.type === 'caught_up' && frame['sub'] === `s${i}`);
      client.send({ type: 'unsubscribe', id: 2, sub: `s${i}` });
      await client.next('unsubscribed');
      const seqs = client.seqs();
      expect(seqs).to.deep.equal(
        Array.from({ length: seqs.length }, (_, k) => seqs[0]! + k),
        `s${i}`,
      );
      client.frames.length = 0;
    }
    writing = false;
    await writer;
  });

  it('gives cursors: of a replay, and of the live subscriptions after a burst, though nothing matched', async () => {
    const client = await TestClient.open(at.gateway);
    await client.subscribe({ sub: 'quiet', channel: 'prices', filter: { tokenIds: ['none'] } });
    const { seq } = await client.next('caught_up');
    expect(seq).to.equal(1_500);
    await client.subscribe({ sub: 'all', channel: 'prices' });
    await client.next((frame) => frame.type === 'caught_up');
    await append(price('eth:1', 1));
    const cursor = await client.next('cursor', 4_000);
    expect(cursor).to.include({ seq: 1_501 });
    expect(cursor).not.to.have.property('sub');
    await append(price('eth:5', 1));
    const resumed = await client.subscribe({ sub: 'again', channel: 'prices', from: { token: cursor['token'] } });
    expect(resumed['start']).to.equal(1_502);
  });

  it('refuses positions that the log does not hold, and says what it holds', async () => {
    const client = await TestClient.open(at.gateway);
    const { token } = await client.subscribe({ sub: 'x', channel: 'prices', from: { after: 10 } });
    expect(await client.subscribe({ sub: 'a', channel: 'prices', from: { seq: 1_502 } })).to.include({
      code: 'position_ahead',
      head: 1_500,
      oldest: 1,
      sub: 'a',
      id: 1,
    });
    expect(await client.subscribe({ sub: 'a', channel: 'prices', from: { token: `${String(token).slice(0, -2)}xx` } })).to.include({
      code: 'bad_token',
    });
    at.log.trim(100);
    expect(await client.subscribe({ sub: 'a', channel: 'prices', from: { token } })).to.include({
      code: 'resume_expired',
      oldest: 100,
      head: 1_500,
    });
    expect(await client.subscribe({ sub: 'a', channel: 'prices', from: { token, after: 150 } })).to.include({
      type: 'subscribed',
      start: 151,
    });
  });

  it('ends a replay that the log’s trimming overtakes, with resume_expired', async () => {
    const client = await TestClient.open(at.gateway);
    client.ws.on('message', () => at.log.trim(900));
    await client.subscribe({ sub: 'a', channel: 'prices', from: { seq: 1 } });
    const outcome = await client.next((frame) => frame.type === 'error' || frame.type === 'caught_up');
    // The whole replay may have been quicker than the trimming; what may not be is a hole.
    if (outcome.type === 'error') {
      expect(outcome).to.include({ code: 'resume_expired', sub: 'a', oldest: 900 });
      expect(await client.next('unsubscribed')).to.include({ sub: 'a', reason: 'resume_expired' });
    }
    const seqs = client.seqs();
    expect(seqs).to.deep.equal(seqs.map((_, i) => i + 1));
  });

  it('closes everyone with 4004 when another history begins, and refuses tokens of the old one', async () => {
    const client = await TestClient.open(at.gateway);
    const { token } = await client.subscribe({ sub: 'x', channel: 'prices' });
    at.log.epoch = 'epoch-2';
    await append(event('_mark', 'x', { type: 'mark' }));
    await client.next((frame) => frame['code'] === 'position_lost');
    expect(await client.closed).to.equal(4004);
    await sleep(50);
    const again = await TestClient.open(at.gateway);
    expect(await again.subscribe({ sub: 'x', channel: 'prices', from: { token } })).to.include({ code: 'epoch_changed' });
  });

  it('knows a table that is not in the catalogue from its schema event on', async () => {
    const client = await TestClient.open(at.gateway);
    expect(await client.subscribe({ sub: 'o', channel: 'shop.orders' })).to.include({ code: 'unknown_channel' });
    await at.log.append([{ subject: 'ev._schema.shop.orders', data: Buffer.from('{}') }], at.log.head);
    await until(() => at.log.head === 1_501);
    await sleep(20);
    expect(await client.subscribe({ sub: 'o', channel: 'shop.orders' })).to.include({ type: 'subscribed' });
    await append(event('shop.orders', 'insert', { type: 'row', after: { id: 1 } }));
    expect(await client.next('event')).to.include({ channel: 'shop.orders', seq: 1_502 });
  });

  it('says replay_busy when all readers are taken, and serves the recent window all the same', async () => {
    await at.stop();
    at = await memoryHarness({
      events: Array.from({ length: 30_000 }, (_, i) => price('eth:1', `${i}.${'0'.repeat(500)}`)),
      env: { HEADWATER_RECENT_WINDOW: '100KB', HEADWATER_REPLAY_READERS: '1' },
    });
    const slow = await TestClient.open(at.gateway);
    slow.ws.pause();
    slow.send({ type: 'subscribe', id: 1, sub: 's', channel: 'prices', from: { seq: 1 } });
    await sleep(100);
    const client = await TestClient.open(at.gateway);
    expect(await client.subscribe({ sub: 'b', channel: 'prices', from: { seq: 1 } }))
      .to.include({ code: 'replay_busy' })
      .and.to.have.property('retryAfterMs');
    expect(await client.subscribe({ sub: 'c', channel: 'prices', from: { seq: 29_990 } })).to.include({ type: 'subscribed' });
    slow.ws.resume();
    await slow.next('caught_up', 10_000);
    expect(slow.seqs()).to.have.length(30_000);
  });

  it('stops with 1012, and a client resumes elsewhere with its token', async () => {
    const client = await TestClient.open(at.gateway);
    const { token } = await client.subscribe({ sub: 'x', channel: 'prices' });
    await at.stop();
    expect(await client.closed).to.equal(1012);
    expect(client.frames.at(-1)).to.include({ type: 'error', code: 'restart' });
    await append(price('eth:1', 1), price('eth:2', 1));
    const { startHarness } = await import('./support/harness.ts');
    at = await startHarness(at.log);
    const again = await TestClient.open(at.gateway);
    await again.subscribe({ sub: 'x', channel: 'prices', from: { token } });
    await again.next('caught_up');
    expect(again.seqs()).to.deep.equal([1_501, 1_502]);
  });
});
