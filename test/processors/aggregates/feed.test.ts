import { expect } from 'chai';
import fc from 'fast-check';
import { setTimeout as sleep } from 'node:timers/promises';
import { decodeToken } from '../../../gateway/token.ts';
import { createValidators } from '../../../schemas/validate.ts';
import { TestClient, type Frame } from '../../gateway/support/harness.ts';
import { startReading, trade, type Reading } from './support/reading.ts';

const yaml = `
tables:
  public.trades: { filters: { tokenIds: pair } }
aggregates:
  trades: { table: public.trades, by: [pair], value: price, time: traded_at, of: rows, windows: [1m, 5m], sliding: [3m], functions: [sum] }
others: true
exclude: []
`;

interface Told {
  readonly by: { readonly pair: string };
  readonly asOf: number;
  readonly windows: Readonly<Record<string, readonly Readonly<Record<string, unknown>>[]>>;
  readonly sliding: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}
const told = (frame: Frame): Told => frame['event'] as Told;
const channel = 'aggregates:trades';
const { serverFrame } = createValidators();

describe('the channels of aggregates', function () {
  this.timeout(60_000);
  let reading: Reading;
  let client: TestClient;
  beforeEach(async () => {
    reading = await startReading(yaml);
    await reading.append(trade('insert', 1, { price: '1' }, 1));
    client = await TestClient.open(reading.harness.gateway);
  });
  afterEach(async () => {
    for (const frame of client.frames) expect(serverFrame(frame), JSON.stringify(frame)).to.equal(undefined);
    client.ws.terminate();
    await reading.close();
  });

  it('tells of the windows that an event has changed, old and new', async () => {
    await client.subscribe({ sub: 't', channel });
    await client.next('caught_up');
    const seq = await reading.append(trade('insert', 2, { price: '2' }, 61));
    const frame = await client.next('event');
    expect(frame).to.deep.equal({
      type: 'event',
      seq,
      channel,
      event: {
        type: 'aggregate',
        name: 'trades',
        by: { pair: 'a' },
        asOf: seq,
        windows: {
          '1m': [{ start: '2026-11-22T00:01:00Z', end: '2026-11-22T00:02:00Z', revision: seq, count: 1, sum: '2' }],
          '5m': [{ start: '2026-11-22T00:00:00Z', end: '2026-11-22T00:05:00Z', revision: seq, count: 2, sum: '3' }],
        },
        sliding: { '3m': { start: '2026-11-21T23:59:00Z', end: '2026-11-22T00:02:00Z', revision: seq, count: 2, sum: '3' } },
      },
    });
    await reading.append(trade('update', 1, { price: '1' }, 62));
    const { windows } = told(await client.next('event'));
    expect(windows['1m']).to.deep.equal([
      { start: '2026-11-22T00:00:00Z', end: '2026-11-22T00:01:00Z', revision: seq + 1, count: 0, sum: null },
      { start: '2026-11-22T00:01:00Z', end: '2026-11-22T00:02:00Z', revision: seq + 1, count: 2, sum: '3' },
    ]);
  });

  it('tells of a group at most so often, and the last state always', async () => {
    await client.subscribe({ sub: 't', channel });
    await client.next('caught_up');
    for (let n = 0; n < 100; n++) {
      await reading.push(trade('update', 1, { price: String(n) }, 1));
      await sleep(5);
    }
    const begun = Date.now();
    await client.next((frame) => frame.type === 'event' && told(frame).windows['1m']![0]!['sum'] === '99');
    expect(Date.now() - begun).to.be.lessThan(2_000);
    // Each 200 ms here, for half a second and more.
    expect(client.events().length).to.be.within(2, 12);
  });

  it('goes on from a REST answer without a gap, whatever happens between the two', async () => {
    const { seq, items } = await reading.get('/trades?pair=a');
    expect(items[0]!['sum']).to.equal('1');
    await reading.append(trade('insert', 2, { price: '2' }, 2));
    await reading.push(trade('insert', 3, { price: '4' }, 3));
    await client.subscribe({ sub: 't', channel, from: { after: seq } });
    const frame = await client.next((one) => one.type === 'event' && told(one).windows['1m']![0]!['sum'] === '7');
    expect(told(frame).asOf).to.equal(seq + 2);
  });

  it('tells only what is new since a token, with frames that can be resumed after', async () => {
    const pairs = ['a', 'b', 'c', 'd'];
    const { token } = await client.subscribe({ sub: 't', channel });
    await client.next('caught_up');
    await reading.append(...pairs.map((pair, i) => trade('insert', 10 + i, { price: '1', pair }, 1)));
    client.send({ type: 'unsubscribe', id: 9, sub: 't' });
    await client.next('unsubscribed');
    client.frames.length = 0;
    await client.subscribe({ sub: 'u', channel, from: { token } });
    const { seq } = await client.next('caught_up');
    const frames = client.frames.filter(({ type }) => type === 'event');
    expect(frames.map((frame) => told(frame).by.pair)).to.have.members(pairs);
    expect(seq).to.equal(5);
    // Whoever has handled only the first of them and resumes after its sequence misses none of the others.
    for (const [n, frame] of frames.entries()) {
      const again = await TestClient.open(reading.harness.gateway);
      await again.subscribe({ sub: 'v', channel, from: { after: frame['seq'] } });
      await again.next('caught_up');
      const rest = again.frames.filter(({ type }) => type === 'event').map((one) => told(one).by.pair);
      expect(rest).to.include.members(frames.slice(n + 1).map((one) => told(one).by.pair));
      again.ws.terminate();
    }
  });

  it('never says more than it has told: cursors wait for what is held back', async () => {
    await client.subscribe({ sub: 't', channel });
    await client.subscribe({ sub: 'log', channel: 'public.trades', from: { seq: 1 } });
    await client.next(({ type, sub }) => type === 'caught_up' && sub === 't');
    await client.next(({ type, sub }) => type === 'caught_up' && sub === 'log');
    // Told at once, then held back for a while.
    for (let n = 2; n < 60; n++) {
      await reading.push(trade('insert', n, { price: '1', pair: n % 2 === 0 ? 'a' : 'b' }, 1));
      await sleep(40);
    }
    await client.next(({ type, sub }) => type === 'cursor' && sub === undefined, 20_000);
    const first = client.frames.findIndex(({ type, sub }) => type === 'cursor' && sub === undefined);
    const reached = client.frames[first]!['seq'] as number;
    const before = client.frames.slice(0, first).filter((frame) => frame.type === 'event' && frame['channel'] === channel);
    expect(decodeToken(client.frames[first]!['token'] as string)?.seq).to.equal(reached);
    // Of each group, the state at the cursor has been told.
    for (const [pair, parity] of [
      ['a', 0],
      ['b', 1],
    ] as const) {
      const counts = Array.from({ length: reached }, (_, i) => i + 1).filter((n) => (n === 1 ? pair === 'a' : n % 2 === parity)).length;
      const last = before.filter((frame) => told(frame).by.pair === pair).at(-1)!;
      expect(told(last).windows['1m']![0]!['count']).to.be.at.least(counts);
    }
  });

  it('brings everything to whoever resumes as the documentation says, wherever the connection breaks', async () => {
    const pairs = Array.from({ length: 12 }, (_, i) => `p${i}`);
    const seed = Date.now() % 1e6;
    const random = fc.sample(fc.array(fc.nat(1e6), { minLength: 3_000, maxLength: 3_000 }), { seed, numRuns: 1 })[0]!;
    const next = (n: number): number => random.pop()! % n;
    const state = new Map<string, unknown>();
    let writing = true;
    const writer = (async () => {
      for (let n = 0; n < 400; n++) {
        const id = 100 + next(60);
        await reading.push(
          next(5) === 0 ? trade('delete', id) : trade('insert', id, { pair: pairs[next(12)]!, price: String(next(50)) }, 60 * next(20)),
        );
        if (n % 3 === 0) await sleep(next(20));
      }
      writing = false;
    })();
    const position: { token?: unknown; after?: unknown } = { after: (await reading.get('/trades/latest')).seq };
    const handle = (frame: Frame): void => {
      if (frame['token'] !== undefined) position.token = frame['token'];
      if (frame.type !== 'event') return;
      const { by, windows } = told(frame);
      for (const window of windows['1m']!)
        state.set(`${by.pair} ${String(window['start'])}`, window['count'] === 0 ? undefined : window['sum']);
      position.after = frame['seq'];
    };
    for (let connections = 0; writing || connections === 0; connections++) {
      const one = await TestClient.open(reading.harness.gateway);
      await one.subscribe({ sub: 't', channel, from: position });
      await sleep(next(500));
      one.ws.terminate();
      // Not all that came was handled.
      one.frames
        .slice(0, one.frames.length - next(one.frames.length))
        .filter(({ type }) => type !== 'connected')
        .forEach(handle);
    }
    await writer;
    const last = await TestClient.open(reading.harness.gateway);
    await last.subscribe({ sub: 't', channel, from: position });
    const pages = await Promise.all(
      ['a', ...pairs].map(async (pair) =>
        (await reading.get(`/trades?pair=${pair}&limit=1000`)).items.map(({ start, sum }): [string, unknown] => [
          `${pair} ${String(start)}`,
          sum,
        ]),
      ),
    );
    const expected = new Map(pages.flat().filter(([name]) => !name.startsWith('a ')));
    await sleep(600);
    last.frames.filter(({ type }) => type !== 'connected').forEach(handle);
    const seen = new Map([...state].filter(([name, sum]) => sum !== undefined && !name.startsWith('a ')));
    expect(Object.fromEntries(seen), `seed ${seed}`).to.deep.equal(Object.fromEntries(expected));
    last.ws.terminate();
  });

  it('begins with the current state when asked to', async () => {
    await reading.append(trade('insert', 2, { price: '2', pair: 'b' }, 61));
    client.send({ type: 'subscribe', id: 1, sub: 't', channel, snapshot: true });
    const { start } = await client.next('subscribed');
    const snapshot = await client.next('snapshot');
    const items = snapshot['items'] as { seq: number; event: Told }[];
    expect([start, snapshot['asOf'], snapshot['more']]).to.deep.equal([3, 2, false]);
    expect(items.map(({ event }) => [event.by.pair, event.windows['5m']![0]!['sum']])).to.deep.equal([
      ['a', '1'],
      ['b', '2'],
    ]);
    await client.next('caught_up');
    await reading.append(trade('insert', 3, { price: '2', pair: 'b' }, 62));
    expect(told(await client.next('event')).windows['5m']![0]!['sum']).to.equal('4');
  });

  it('filters by the columns that make a group', async () => {
    await client.subscribe({ sub: 't', channel, filter: { tokenIds: ['b'] } });
    await client.next('caught_up');
    await reading.append(trade('insert', 2, { price: '2', pair: 'a' }, 2), trade('insert', 3, { price: '2', pair: 'b' }, 2));
    expect(told(await client.next('event')).by.pair).to.equal('b');
    expect(await client.subscribe({ sub: 'x', channel, filter: { chains: ['base'] } })).to.include({ type: 'error', code: 'bad_filter' });
    expect(await client.subscribe({ sub: 'x', channel, filter: { minValue: '1' } })).to.include({ type: 'error', code: 'bad_filter' });
  });

  it('gives several subscriptions of a connection the same frame once', async () => {
    await client.subscribe({ sub: 't', channel });
    await client.subscribe({ sub: 'u', channel, filter: { tokenIds: ['a'] } });
    await client.next(({ type, sub }) => type === 'caught_up' && sub === 't');
    await client.next(({ type, sub }) => type === 'caught_up' && sub === 'u');
    await reading.append(trade('insert', 2, { price: '2' }, 2));
    await client.next('event');
    await sleep(300);
    expect(client.events()).to.have.length(1);
    client.send({ type: 'unsubscribe', id: 9, sub: 't' });
    await client.next('unsubscribed');
    await reading.append(trade('insert', 3, { price: '2' }, 2));
    await client.next('event');
  });

  it('refuses channels that are not there or not for this key, and positions that it cannot know', async () => {
    expect(await client.subscribe({ sub: 'x', channel: 'aggregates:none' })).to.include({ type: 'error', code: 'unknown_channel' });
    expect(await client.subscribe({ sub: 'x', channel, from: { last: 5 } })).to.include({ type: 'error', code: 'bad_request' });
    expect(await client.subscribe({ sub: 'x', channel, from: { after: 99 } })).to.include({
      type: 'error',
      code: 'position_ahead',
      head: 1,
    });
    expect(await client.subscribe({ sub: 'x', channel, from: { token: 'x' } })).to.include({ type: 'error', code: 'bad_token' });
    const narrow = await TestClient.open(reading.harness.gateway, 'narrow');
    expect(await narrow.subscribe({ sub: 'x', channel })).to.include({ type: 'subscribed' });
    const other = await TestClient.open(reading.harness.gateway, 'other');
    expect(await other.subscribe({ sub: 'x', channel })).to.include({ type: 'error', code: 'forbidden' });
    for (const one of [narrow, other]) one.ws.terminate();
  });

  it('says so when what has changed is not known one by one: after a truncate', async () => {
    const { token } = await client.subscribe({ sub: 't', channel });
    await client.next('caught_up');
    await reading.append({ ...trade('delete', 1), subject: 'ev.public.trades.truncate' });
    expect(await client.next('error')).to.include({ sub: 't', code: 'resume_expired' });
    expect(await client.next('unsubscribed')).to.include({ sub: 't', reason: 'resume_expired' });
    expect(await client.subscribe({ sub: 't', channel, from: { token } })).to.include({ type: 'error', code: 'resume_expired' });
    client.send({ type: 'subscribe', id: 1, sub: 'u', channel, snapshot: true });
    expect((await client.next('snapshot'))['items']).to.deep.equal([]);
  });
});
