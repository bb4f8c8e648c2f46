import { expect } from 'chai';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startNats, type NatsUrls } from '../../../deploy/local/nats.ts';
import { cacheDirectory, projectFile } from '../../../deploy/local/paths.ts';
import { choosePort } from '../../../deploy/local/ports.ts';
import { findProgram } from '../../../deploy/local/programs.ts';
import { loadSecrets } from '../../../deploy/local/secrets.ts';
import type { Server } from '../../../deploy/local/server.ts';
import { connectNats, type NatsConnection } from '../../../pipeline/clients/nats.ts';
import { AppendConflict, OffsetExpired } from '../../../pipeline/log/errors.ts';
import type { NewEvent, Seq } from '../../../pipeline/log/event-log.ts';
import { JetStreamLog } from '../../../pipeline/log/jetstream-log.ts';
import { parseReply, seqsStart } from '../../../pipeline/log/pull-reader.ts';
import type { HeadwaterError } from '../../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { freshStreamName, removeData, temporaryDirectory, testServers } from '../../support/servers.ts';
import { until } from '../../support/role-context.ts';
import { collect, numbered } from './event-log.conformance.ts';
import { freshLog, settingsOf, type FreshLog } from './support/fresh-log.ts';

async function failure(action: Promise<unknown>): Promise<HeadwaterError> {
  const error = await action.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).to.be.instanceOf(Error);
  return error as HeadwaterError;
}

const upTo = (last: Seq): readonly Seq[] => Array.from({ length: last }, (_, i) => i + 1);

describe('JetStream log', () => {
  let connection: NatsConnection;
  let fresh: FreshLog;

  before(async () => {
    connection = await connectNats((await testServers()).natsUrl, 'test', silentLogger());
  });
  after(() => connection?.close());
  beforeEach(async () => {
    fresh = await freshLog(connection);
  });
  afterEach(async () => {
    fresh.log.close();
    await fresh.remove();
  });

  describe('its stream', () => {
    async function refusal(config: object): Promise<HeadwaterError> {
      const name = freshStreamName();
      await fresh.jsm.streams.add({ name, subjects: [`${name}.>`], deny_delete: true, deny_purge: true, ...config });
      const error = await failure(JetStreamLog.create(connection, settingsOf(name), silentLogger()));
      await fresh.jsm.streams.delete(name);
      return error;
    }

    it('that takes no atomic batches is refused: they would be stored message by message', async () => {
      const error = await refusal({ allow_atomic: false });
      expect(error.code).to.equal('stream_unfit');
      expect(error.reaction).to.equal('refused');
      expect(error.message).to.contain('allow_atomic');
    });

    it('that loses events by itself is refused', async () => {
      for (const config of [
        { max_msgs_per_subject: 5 },
        { retention: 'workqueue' },
        { storage: 'memory' },
        { deny_delete: false },
        { deny_purge: false, allow_rollup_hdrs: true },
      ]) {
        const error = await refusal({ allow_atomic: true, ...config });
        expect(error.code, JSON.stringify(config)).to.equal('stream_unfit');
      }
    });

    it('is taken over by the next writer, epoch and events included', async () => {
      await fresh.log.append(numbered(fresh.subject, 1, 3), 0);
      const before = await fresh.log.bounds();
      const next = await JetStreamLog.create(connection, fresh.settings, silentLogger());
      expect(await next.bounds()).to.deep.equal(before);
      next.close();
    });

    it('is bounded as the settings say, and not below what a batch needs', async () => {
      const maxBytes = 64 * fresh.log.maxPayload;
      const next = await JetStreamLog.create(connection, { ...fresh.settings, maxBytes, maxAgeMs: 60_000 }, silentLogger());
      next.close();
      const { config } = await fresh.jsm.streams.info(fresh.subject);
      expect([config.max_bytes, config.max_age]).to.deep.equal([maxBytes, 60_000 * 1e6]);
      const error = await failure(JetStreamLog.create(connection, { ...fresh.settings, maxBytes: maxBytes - 1 }, silentLogger()));
      expect([error.code, error.reaction]).to.deep.equal(['bad_config', 'usage']);
    });

    it('is waited for by readers while it is not there', async () => {
      const error = await failure(JetStreamLog.open(connection, settingsOf(freshStreamName()), silentLogger()));
      expect([error.code, error.reaction]).to.deep.equal(['no_log', 'retry']);
    });

    it('begins a new epoch at the next sequence', async () => {
      await fresh.log.append(numbered(fresh.subject, 1, 3), 0);
      const before = await fresh.log.bounds();
      const epoch = await fresh.log.renewEpoch();
      const { epochStart, ...after } = await fresh.log.bounds();
      expect(epoch).not.to.equal(before.epoch);
      expect({ epoch: after.epoch, epochStart, last: after.last }).to.deep.equal({ epoch, epochStart: 4, last: 3 });
    });
  });

  describe('batches', () => {
    it('of 1,000 events are stored; of more they are refused whole, and use no sequence', async () => {
      expect(await fresh.log.append(numbered(fresh.subject, 1, 1_000), 0)).to.equal(1_000);
      const error = await failure(fresh.log.append(numbered(fresh.subject, 1_001, 1_001), 1_000));
      expect(error.reaction).to.equal('retry');
      expect((await fresh.log.bounds()).last).to.equal(1_000);
      expect(await fresh.log.append(numbered(fresh.subject, 1_001, 2), 1_000)).to.equal(1_002);
      expect((await collect(fresh.log, 1, 1_002)).map((event) => event.seq)).to.deep.equal(upTo(1_002));
    });

    it('with an event over the server\u2019s max_payload are refused whole', async () => {
      const large = { subject: `${fresh.subject}.a`, data: Buffer.alloc(fresh.log.maxPayload + 1, 'x') };
      for (const events of [[large], [...numbered(fresh.subject, 1, 2), large], [large, ...numbered(fresh.subject, 1, 2)]]) {
        await failure(fresh.log.append(events, 0));
        expect((await fresh.log.bounds()).last).to.equal(0);
      }
      expect(await fresh.log.append(numbered(fresh.subject, 1, 2), 0)).to.equal(2);
    });
  });

  it('two writers never tear, repeat or overwrite what the other writes', async () => {
    const other = await JetStreamLog.create(connection, fresh.settings, silentLogger());
    const stored: { from: Seq; writer: number; texts: readonly string[] }[] = [];
    const write = async (log: JetStreamLog, writer: number): Promise<void> => {
      let last = 0;
      for (let n = 0; n < 40;) {
        const count = 1 + ((n * 7 + writer) % 5);
        const events = Array.from({ length: count }, (_, i): NewEvent => ({
          subject: `${fresh.subject}.w${writer}`,
          data: Buffer.from(`${writer}:${n}:${i}`),
        }));
        try {
          const seq = n % 2 === 0 ? await log.append(events, last) : await appendWhole(log, events, last);
          stored.push({ from: seq - count + 1, writer, texts: events.map(({ data }) => Buffer.from(data).toString()) });
          last = seq;
          n++;
        } catch (error) {
          if (!(error instanceof AppendConflict)) throw error;
          ({ last } = await log.bounds());
        }
      }
    };
    /** `appendEach` may store a first part: then the rest is written behind it, if nobody else was quicker. */
    const appendWhole = async (log: JetStreamLog, events: readonly NewEvent[], last: Seq): Promise<Seq> => {
      const outcome = await log.appendEach(events, last).catch((error: unknown) => error);
      if (typeof outcome === 'number') return outcome;
      const held = await log.get(last + 1);
      const first = Buffer.from(events[0]!.data);
      // What is stored must be a first part of the events: never a later one without those before it.
      if (!held || !first.equals(held.data)) expect(await positionsOf(log, events)).to.deep.equal([]);
      else stored.push(...(await prefixOf(log, events, last)));
      throw outcome;
    };
    const positionsOf = async (log: JetStreamLog, events: readonly NewEvent[]): Promise<readonly Seq[]> => {
      const { last } = await log.bounds();
      const wanted = new Set(events.map(({ data }) => Buffer.from(data).toString()));
      const held = last === 0 ? [] : await collect(log, 1, last);
      return held
        .filter(
          (event) =>
            wanted.has(Buffer.from(event.data).toString()) &&
            !stored.some((part) => event.seq >= part.from && event.seq < part.from + part.texts.length),
        )
        .map((event) => event.seq);
    };
    const prefixOf = async (log: JetStreamLog, events: readonly NewEvent[], last: Seq): Promise<typeof stored> => {
      const texts: string[] = [];
      for (const [i, { data }] of events.entries()) {
        const held = await log.get(last + 1 + i);
        if (!held || !Buffer.from(data).equals(held.data)) break;
        texts.push(Buffer.from(data).toString());
      }
      return [{ from: last + 1, writer: 0, texts }];
    };
    await Promise.all([write(fresh.log, 1), write(other, 2)]);
    other.close();
    const { last } = await fresh.log.bounds();
    const held = (await collect(fresh.log, 1, last)).map((event) => Buffer.from(event.data).toString());
    const expected = new Map(stored.flatMap(({ from, texts }) => texts.map((text, i) => [from + i, text] as const)));
    expect(held).to.deep.equal(upTo(last).map((seq) => expected.get(seq)));
  });

  it('of publishes that are on their way at once none is stored behind another writer’s events', async () => {
    // On a connection of its own, so that the server gets both at once.
    const otherConnection = await connectNats((await testServers()).natsUrl, 'test', silentLogger());
    const other = await JetStreamLog.create(otherConnection, fresh.settings, silentLogger());
    const event = (text: string): NewEvent => ({ subject: `${fresh.subject}.w`, data: Buffer.from(text) });
    // Until the writers have got in each other's way, which the server decides.
    for (let round = 0, between = 0; between < 3 && round < 200; round++) {
      const { last: begun } = await fresh.log.bounds();
      // Just as many events as one call has: without a link between the calls the next one would fit again.
      const theirs = Array.from({ length: 20 }, (_, n) =>
        other.append([event('other'), event('other')], begun + 2 * n).catch(() => undefined),
      );
      const ours = Array.from({ length: 20 }, (_, n) =>
        fresh.log.appendEach([event(`${2 * n}`), event(`${2 * n + 1}`)], begun + 2 * n).catch(() => undefined),
      );
      await Promise.all([...ours, ...theirs]);
      const { last } = await fresh.log.bounds();
      const held = (await collect(fresh.log, begun + 1, last - begun)).map(({ data }) => Buffer.from(data).toString());
      const kept = held.filter((text) => text !== 'other');
      expect(kept).to.deep.equal(kept.map((_, n) => `${n}`));
      if (kept.length < 40 && kept.length > 0) between++;
    }
    other.close();
    await otherConnection.close();
  }).timeout(60_000);

  describe('readers', () => {
    /** 2,000 events of 10 KB. */
    async function fill(): Promise<void> {
      for (let last = 0; last < 2_000; last += 80) {
        const events = Array.from({ length: 80 }, (_, i) => ({
          subject: `${fresh.subject}.${(last + i) % 2 === 0 ? 'even' : 'odd'}.x`,
          data: Buffer.alloc(10_000, `${last + i + 1} `),
        }));
        await fresh.log.append(events, last);
      }
    }

    it('take no more from the server than their high water while nobody takes from them, and lose nothing by it', async () => {
      await fill();
      const highWaterBytes = 256 * 1024;
      const seen: Seq[] = [];
      let delivered = 0;
      for await (const events of fresh.log.read(1, { highWaterBytes })) {
        if (seen.length === 0) {
          await sleep(300);
          for await (const info of fresh.jsm.consumers.list(fresh.subject)) delivered += info.delivered.stream_seq;
        }
        seen.push(...events.map((event) => event.seq));
        if (seen.length === 2_000) break;
      }
      expect(seen).to.deep.equal(upTo(2_000));
      // A request is for two of the largest events at least, and two requests may be under way.
      expect(delivered * 10_000).to.be.within(1, highWaterBytes + 4 * fresh.log.maxPayload + 100_000);
    });

    for (const [which, subjects] of [
      ['of everything', undefined],
      ['with a filter', ['even.>']],
    ] as const) {
      it(`${which} are told when a trim overtakes them, and never skip`, async () => {
        await fill();
        const options = {
          highWaterBytes: 64 * 1024,
          ...(subjects ? { subjects: subjects.map((subject) => `${fresh.subject}.${subject}`) } : {}),
        };
        const step = subjects ? 2 : 1;
        let next = 1;
        const reading = (async (): Promise<void> => {
          for await (const events of fresh.log.read(1, options)) {
            if (next === 1) await fresh.trim(1_900);
            for (const { seq } of events) {
              expect(seq).to.equal(next);
              next += step;
            }
            if (next > 2_000) return;
          }
        })();
        const error = await failure(reading);
        expect(error, error.message).to.be.instanceOf(OffsetExpired);
        expect((error as OffsetExpired).oldest).to.equal(1_900);
      });
    }

    it('are told when another history begins', async () => {
      let head = await fresh.log.append(numbered(fresh.subject, 1, 3), 0);
      let told: HeadwaterError | undefined;
      const reading = failure(collect(fresh.log, 1, Infinity)).then((error) => (told = error));
      await until(async () => (await fresh.jsm.streams.info(fresh.subject)).state.consumer_count === 1);
      await sleep(50);
      await fresh.log.renewEpoch();
      while (!told && head < 100) {
        head = await fresh.log.append(numbered(fresh.subject, head + 1, 1), head);
        await sleep(100);
      }
      expect((await reading).code).to.equal('epoch_changed');
    });

    it('tell their consumers from each other and remove them when they end', async () => {
      await fresh.log.append(numbered(fresh.subject, 1, 10), 0);
      await Promise.all(upTo(5).map((from) => collect(fresh.log, from, 5)));
      await until(
        async () => (await fresh.jsm.streams.info(fresh.subject)).state.consumer_count === 0,
        5_000,
        'the removal of the consumers',
      );
    });
  });

  describe('when the server is killed', () => {
    let directory: string;
    let server: Server & { urls: NatsUrls };
    let own: NatsConnection;

    before(async () => {
      directory = temporaryDirectory();
      mkdirSync(join(directory, 'logs'), { recursive: true });
      const binary = await findProgram('nats', { cache: cacheDirectory(directory) });
      if (!binary) throw new Error('no nats-server');
      server = await startNats({
        binary,
        configuration: projectFile('nats.conf'),
        directory: join(directory, 'nats'),
        logFile: join(directory, 'logs/nats.log'),
        port: await choosePort(),
        passwords: loadSecrets(directory).nats,
        log: silentLogger(),
        signal: new AbortController().signal,
      });
      own = await connectNats(server.urls.operator, 'test', silentLogger());
    });
    after(async () => {
      await own?.close();
      await server?.stop();
      await removeData(directory);
    });

    it('readers go on where they were, and the writer learns what was stored', async () => {
      const { log, subject } = await freshLog(own);
      const stop = new AbortController();
      const seen: Record<'all' | 'filtered', Seq[]> = { all: [], filtered: [] };
      const follow = async (into: Seq[], subjects?: readonly string[]): Promise<void> => {
        for await (const events of log.read(1, { signal: stop.signal, ...(subjects ? { subjects } : {}) }))
          into.push(...events.map((event) => event.seq));
      };
      const reading = [follow(seen.all), follow(seen.filtered, [`${subject}.a.>`])];
      const wanted: string[] = [];
      let last = 0;
      for (let round = 0; round < 60; round++) {
        if (round === 20 || round === 40) process.kill(server.pid, 'SIGKILL');
        const events = numbered(subject, round * 10, 10);
        for (let stored = false; !stored;) {
          stored = await log.append(events, last).then(
            () => true,
            () => false,
          );
          // No answer, or a refusal because the lost answer was a yes: the log itself knows.
          stored ||= await settled(log, events, last);
        }
        last += 10;
        wanted.push(...events.map(({ data }) => Buffer.from(data).toString()));
      }
      await until(() => seen.all.length >= last && seen.filtered.length >= last, 20_000, 'the readers');
      stop.abort();
      await Promise.all(reading);
      expect(seen.all).to.deep.equal(upTo(last));
      expect(seen.filtered).to.deep.equal(upTo(last));
      expect((await collect(log, 1, last)).map((event) => Buffer.from(event.data).toString())).to.deep.equal(wanted);
      log.close();
    });

    /** Are the events stored behind `last`? Asked until the server answers. */
    async function settled(log: JetStreamLog, events: readonly NewEvent[], last: Seq): Promise<boolean> {
      for (;;) {
        const bounds = await log.bounds().catch(() => undefined);
        if (bounds) {
          expect([last, last + events.length], 'a batch is stored whole or not at all').to.contain(bounds.last);
          return bounds.last === last + events.length;
        }
        await sleep(20);
      }
    }
  });
});

describe('reply subjects of JetStream', () => {
  for (const [what, reply] of [
    ['nine tokens', '$JS.ACK.EVENTS.consumer.1.1002003.42.1700000000000000000.7'],
    ['domain and account in front', '$JS.ACK.hub.ACCHASH.EVENTS.consumer.1.1002003.42.1700000000000000000.7'],
    ['a random token behind', '$JS.ACK._.ACCHASH.EVENTS.consumer.1.1002003.42.1700000000000000000.7.r4nd0m'],
  ] as const) {
    it(`with ${what} give sequences and what is pending`, () => {
      expect(parseReply(reply, seqsStart(reply))).to.deep.equal({ streamSeq: 1_002_003, consumerSeq: 42, pending: 7 });
    });
  }
});
