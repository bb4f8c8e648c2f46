import { expect } from 'chai';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { memoryHarness, price, TestClient, until, type Harness } from './support/harness.ts';
import { ReplayTurns } from '../../gateway/replay-turns.ts';

const count = 20_000;
const [highWater, slice] = [256 * 1024, 256 * 1024];

describe('gateway, replays whose sockets do not take them', () => {
  let at: Harness;
  const warnings: Error[] = [];
  const onWarning = (warning: Error): number => warnings.push(warning);
  beforeEach(async () => {
    process.on('warning', onWarning);
    warnings.length = 0;
    at = await memoryHarness({
      events: Array.from({ length: count }, (_, i) => price('eth:1', `${i}.${'0'.repeat(800)}`)),
      env: { HEADWATER_RECENT_WINDOW: '100KB', HEADWATER_REPLAY_READERS: '8' },
    });
  });
  afterEach(async () => {
    process.off('warning', onWarning);
    await at.stop();
  });

  async function paused(subs: number): Promise<TestClient> {
    const client = await TestClient.open(at.gateway);
    client.ws.pause();
    for (let i = 0; i < subs; i++) client.send({ type: 'subscribe', id: i, sub: `s${i}`, channel: 'prices', from: { seq: 1 } });
    return client;
  }

  it('gives their places to others, and goes on with every event once when they do', async function () {
    this.timeout(30_000);
    const stuck = await Promise.all(Array.from({ length: 8 }, () => paused(1)));
    await sleep(100);
    const other = await TestClient.open(at.gateway);
    expect(await other.subscribe({ sub: 'o', channel: 'prices', from: { seq: 1 } })).to.include({ code: 'replay_busy' });
    await sleep(1_500);
    expect(await other.subscribe({ sub: 'o', channel: 'prices', from: { seq: 1 } })).to.include({ type: 'subscribed' });
    await other.next('caught_up', 10_000);
    expect(other.seqs()).to.have.length(count);
    stuck[0]!.ws.resume();
    await stuck[0]!.next('caught_up', 10_000);
    expect(stuck[0]!.seqs()).to.deep.equal(Array.from({ length: count }, (_, i) => i + 1));
    for (const client of [other, ...stuck]) client.ws.terminate();
  });

  it('keeps places free of a replay that is unsubscribed while it waits', async function () {
    const stuck = await Promise.all(Array.from({ length: 8 }, () => paused(1)));
    await sleep(100);
    for (const client of stuck) client.send({ type: 'unsubscribe', id: 'u', sub: 's0' });
    await sleep(100);
    const other = await TestClient.open(at.gateway);
    expect(await other.subscribe({ sub: 'o', channel: 'prices', from: { seq: 1 } })).to.include({ type: 'subscribed' });
    for (const client of [other, ...stuck]) client.ws.terminate();
  });

  it('serves thirty replays on one socket in turn, each event once a replay, with few bytes unsent and no warning', async function () {
    this.timeout(60_000);
    const sockets: Socket[] = [];
    const onSocket = (message: unknown): number => sockets.push((message as { socket: Socket }).socket);
    subscribe('net.server.socket', onSocket);
    await at.stop();
    at = await memoryHarness({ events: Array.from({ length: 1_000 }, (_, i) => price('eth:1', `${i}.${'0'.repeat(3_000)}`)) });
    const client = await paused(30);
    unsubscribe('net.server.socket', onSocket);
    let unsent = 0;
    const sample = setInterval(() => (unsent = Math.max(unsent, ...sockets.map(({ writableLength }) => writableLength))), 1);
    await sleep(1_500);
    expect(unsent, 'the socket is not paused').to.be.greaterThan(highWater);
    client.ws.resume();
    const done = (): boolean => client.frames.filter(({ type }) => type === 'caught_up').length === 30;
    await until(done, 30_000).finally(() => clearInterval(sample));
    expect(unsent).to.be.at.most(highWater + slice + 100_000);
    for (let i = 0; i < 30; i++) {
      const seqs = client.events().flatMap(({ seq, sub }) => (sub === `s${i}` ? [seq] : []));
      expect(seqs, `s${i}`).to.deep.equal(Array.from({ length: 1_000 }, (_, n) => n + 1));
    }
    expect(warnings.map(({ message }) => message)).to.deep.equal([]);
    client.ws.terminate();
  });
});

describe('turns of replays', () => {
  it('keep what is unsent at one slice above the high water, give everyone a turn, and leave no one behind', async () => {
    let unsent = 0;
    let most = 0;
    const turns = new ReplayTurns(() => unsent <= highWater);
    const sent = Array.from({ length: 30 }, () => 0);
    const replays = sent.map(async (_, i) => {
      const who = {};
      const { signal } = new AbortController();
      while (await turns.take(who, signal)) {
        unsent += slice;
        most = Math.max(most, unsent);
        sent[i]!++;
        if (sent[i] === 20) return;
        if (i % 3 === 0) await sleep(1);
      }
    });
    const drain = setInterval(() => {
      unsent = 0;
      turns.check();
    }, 1);
    await sleep(40);
    expect(Math.max(...sent) - Math.min(...sent), 'some are served before others').to.be.at.most(3);
    await until(() => sent.every((n) => n === 20), 10_000);
    await Promise.all(replays);
    clearInterval(drain);
    expect(most).to.be.at.most(highWater + slice);
  });

  it('end the waiting when the patience or the subscription ends, and listen to neither any more', async () => {
    const turns = new ReplayTurns(() => false);
    const stop = new AbortController();
    const waiting = turns.take({}, stop.signal);
    expect(await turns.take({}, new AbortController().signal, 20)).to.equal(false);
    stop.abort();
    expect(await waiting).to.equal(false);
    expect(await turns.take({}, stop.signal)).to.equal(false);
  });
});
