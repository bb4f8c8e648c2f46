import { expect } from 'chai';
import { connectNats, jetstreamManager, type JetStreamManager, type NatsConnection } from '../../../pipeline/clients/nats.ts';
import type { LogEvent, Seq } from '../../../pipeline/log/event-log.ts';
import { SubjectTarget } from '../../../pipeline/replay/subject-target.ts';
import { nothingSettled, type Settled } from '../../../pipeline/replay/target.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { until } from '../../support/role-context.ts';
import { freshStreamName, testServers } from '../../support/servers.ts';
import { freshLog, type FreshLog } from '../log/support/fresh-log.ts';

const never = new AbortController().signal;

/** Events that differ in size only. */
function eventsOf(count: number, size: (seq: Seq) => number = () => 10): readonly LogEvent[] {
  return Array.from({ length: count }, (_, i) => ({
    seq: i + 1,
    subject: 'ev.public.prices.insert',
    data: Buffer.alloc(size(i + 1), 'y'),
  }));
}

describe('a subject as the target of a replay', function () {
  this.timeout(30_000);
  let connection: NatsConnection;
  let jsm: JetStreamManager;
  let stream: string;

  beforeEach(async () => {
    connection = await connectNats((await testServers()).natsUrl, 'test', silentLogger());
    jsm = await jetstreamManager(connection);
    stream = freshStreamName();
  });
  afterEach(async () => {
    await jsm.streams.delete(stream).catch(() => undefined);
    await connection.close();
  });

  const addStream = (more: object = {}): Promise<unknown> =>
    jsm.streams.add({ name: stream, subjects: [`${stream}.>`], storage: 'memory', ...more } as never);
  const open = (
    before: Settled = nothingSettled,
    onRetry: (reason: string) => void = () => undefined,
    patienceMs = 5_000,
  ): Promise<SubjectTarget> => SubjectTarget.open(connection, { subject: `${stream}.x`, run: 'r', patienceMs, onRetry }, before);

  /** Sequences of the replayed events, in the stream's order. */
  async function stored(): Promise<readonly Seq[]> {
    const found: Seq[] = [];
    const { last_seq: last } = (await jsm.streams.info(stream)).state;
    for (let seq = 1; seq <= last; seq++) {
      const message = await jsm.streams.getMessage(stream, { seq });
      if (message?.header.has('Headwater-Seq')) found.push(Number(message.header.get('Headwater-Seq')));
    }
    return found;
  }

  describe('whose messages find their way into a log', () => {
    let log: FreshLog;
    beforeEach(async () => {
      log = await freshLog(connection);
    });
    afterEach(async () => {
      log.log.close();
      await log.remove();
    });

    it('through what the stream republishes writes nothing there', async () => {
      await addStream({ republish: { src: `${stream}.>`, dest: `${log.subject}.>` } });
      await (await open()).write(eventsOf(20), never);
      expect((await stored()).length).to.equal(20);
      // What is no replay's does come through, behind all that the replay sent.
      await connection.request(`${stream}.plain`, 'plain');
      await until(async () => (await log.log.bounds()).last > 0);
      expect((await log.jsm.streams.getMessage(log.subject, { seq: 1 }))!.string()).to.equal('plain');
    });

    it('where nobody listened when the replay began writes nothing there', async () => {
      const target = await SubjectTarget.open(
        connection,
        { subject: `${stream}.a`, run: 'r', patienceMs: 5_000, onRetry: () => undefined },
        nothingSettled,
      );
      await jsm.streams.update(log.subject, { subjects: [`${log.subject}.>`, `${stream}.>`] });
      await target.write(eventsOf(20), never);
      await connection.flush();
      expect((await log.jsm.streams.info(log.subject)).state.messages).to.equal(0);
    });
  });

  it('keeps the order of the log when the stream refuses an event for a while', async () => {
    await addStream({ max_msg_size: 500 });
    const reasons: string[] = [];
    const target = await open(nothingSettled, (reason) => {
      reasons.push(reason);
      void jsm.streams.update(stream, { max_msg_size: -1 });
    });
    await target.write(
      eventsOf(5, (seq) => (seq === 2 ? 800 : 10)),
      never,
    );
    expect(await stored()).to.deep.equal([1, 2, 3, 4, 5]);
    expect(reasons.join()).to.include('maximum');
  });

  it('keeps the order, each event once, while others publish into the stream', async () => {
    await addStream();
    const others = await connectNats((await testServers()).natsUrl, 'test', silentLogger());
    let writing = true;
    const noise = (async () => {
      while (writing) await others.request(`${stream}.other`, 'noise');
    })();
    const retries: string[] = [];
    const target = await open(nothingSettled, (reason) => retries.push(reason));
    const all = eventsOf(2_000);
    for (let start = 0; start < all.length; start += 500) await target.write(all.slice(start, start + 500), never);
    writing = false;
    await noise;
    await others.close();
    expect(await stored()).to.deep.equal(all.map(({ seq }) => seq));
    expect(retries).to.deep.equal([]);
  });

  it('begun without a stream, and gone on with when there is one, leaves alone what the stream had', async () => {
    const { state = {} } = await (await open()).settle();
    await addStream();
    for (let n = 0; n < 30; n++) await connection.request(`${stream}.x`, 'of somebody else');
    const questions = connection.subscribe(`$JS.API.STREAM.MSG.GET.${stream}`);
    await connection.flush();
    const target = await open({ through: 2, events: 2, bytes: 20, state });
    await target.write(eventsOf(5).slice(2), never);
    await connection.flush();
    expect(questions.getReceived()).to.be.lessThan(3);
    questions.unsubscribe();
    expect(await stored()).to.deep.equal([3, 4, 5]);
  });
});
