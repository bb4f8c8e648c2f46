import { expect } from 'chai';
import fc from 'fast-check';
import { LogMoved, LogWriter } from '../../../pipeline/capture/log-writer.ts';
import { HeadwaterError } from '../../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { formatId, parseId } from '../../../pipeline/source/position.ts';
import type { SourceEvent } from '../../../pipeline/source/source.ts';
import { sourceEvent, transaction } from './support/source-events.ts';
import { UnreliableLog, type Fault } from './support/unreliable-log.ts';

const origin = { seq: 0, position: { lsn: 0n, index: 0 } };
const running = new AbortController().signal;

function writerOn(log: UnreliableLog, signal = running): LogWriter {
  return new LogWriter(log, origin, silentLogger(), signal);
}

/** The positions in the log, in order. */
async function idsIn(log: UnreliableLog): Promise<string[]> {
  const ids: string[] = [];
  for (let seq = 1; seq <= log.head; seq++) {
    const event = await log.get(seq);
    ids.push((JSON.parse(Buffer.from(event!.data).toString('utf8')) as { id: string }).id);
  }
  return ids;
}

async function thrownBy(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => expect.fail('it did not fail'),
    (error: unknown) => error,
  );
}

const ids = (events: readonly SourceEvent[]): string[] => events.map(formatId);

describe('log writer', () => {
  const three = [sourceEvent({ lsn: 1n }), sourceEvent({ lsn: 2n }), sourceEvent({ lsn: 3n })];
  let log: UnreliableLog;
  beforeEach(() => {
    log = new UnreliableLog();
  });

  for (const fault of ['none', 'lost', 'unanswered', 'late'] as const) {
    it(`stores a batch once when its answer is: ${fault}`, async () => {
      log.faults.push(fault);
      const writer = writerOn(log);
      await writer.write(three, true);
      expect(await idsIn(log)).to.deep.equal(ids(three));
      expect(writer.end).to.deep.equal({ seq: 3, position: { lsn: 3n, index: 1 } });
    });
  }

  for (const stored of [0, 1, 2, 3]) {
    it(`goes on behind what is there when ${stored} of three publishes were stored`, async () => {
      log.faults.push(stored);
      const writer = writerOn(log);
      await writer.write(three, false);
      expect(await idsIn(log)).to.deep.equal(ids(three));
      expect(writer.end.seq).to.equal(3);
    });
  }

  it('asks until the log answers', async () => {
    log.faults.push('unanswered');
    log.unansweredQuestions = 3;
    await writerOn(log).write(three, true);
    expect(await idsIn(log)).to.deep.equal(ids(three));
  });

  it('writes every event once and in order, whatever happens to the answers', async () => {
    const faults = fc.array(fc.oneof(fc.constantFrom<Fault>('none', 'lost', 'unanswered', 'late'), fc.integer({ min: 0, max: 3 })), {
      maxLength: 5,
    });
    const batches = fc.array(fc.record({ length: fc.integer({ min: 1, max: 4 }), atomic: fc.boolean() }), { minLength: 1, maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(faults, batches, fc.integer({ min: 0, max: 2 }), async (faultsToCome, batchesToCome, questions) => {
        const unreliable = new UnreliableLog();
        unreliable.faults.push(...faultsToCome);
        unreliable.unansweredQuestions = questions;
        const writer = writerOn(unreliable);
        const written: SourceEvent[] = [];
        for (const { length, atomic } of batchesToCome) {
          const events = transaction(BigInt(written.length + 1), length);
          await writer.write(events, atomic);
          written.push(...events);
        }
        unreliable.unansweredQuestions = 0;
        expect(await idsIn(unreliable)).to.deep.equal(ids(written));
        expect(writer.end.seq).to.equal(written.length);
      }),
      { numRuns: 25 },
    );
  }).timeout(60_000);

  it('says that the log has moved when its end is of somebody else', async () => {
    await log.append([sourceEvent({ lsn: 900n })], 0);
    expect(await thrownBy(writerOn(log).write(three, true))).to.be.instanceOf(LogMoved);
    expect(log.head).to.equal(1);
  });

  it('says so also when somebody else has written more than this batch would', async () => {
    await log.append(transaction(900n, 5), 0);
    expect(await thrownBy(writerOn(log).write(three, true))).to.be.instanceOf(LogMoved);
  });

  it('takes the same events for its own, whoever wrote them: a predecessor whose batch arrived late', async () => {
    const writer = writerOn(log);
    await log.append(three.slice(0, 2), 0);
    await writer.write(three, true);
    expect(await idsIn(log)).to.deep.equal(ids(three));
  });

  it('refuses to go on behind an event that is not of capture', async () => {
    await log.append([{ subject: 'ev.public.t.insert', data: Buffer.from('{"hello":1}') }], 0);
    const error = await thrownBy(writerOn(log).write(three, true));
    expect(error).to.be.instanceOf(HeadwaterError).and.to.include({ code: 'foreign_event', reaction: 'refused' });
  });

  it('refuses a log that has lost what it had acknowledged, naming both sequences', async () => {
    const writer = new LogWriter(log, { seq: 7, position: parseId('0000000000000007.00000001') }, silentLogger(), running);
    await log.append(three, 0);
    const error = await thrownBy(writer.write([sourceEvent({ lsn: 8n })], true));
    expect(error).to.include({ code: 'log_regressed', reaction: 'refused' });
    expect((error as Error).message)
      .to.include('3')
      .and.to.include('7');
  });

  it('stores what is sent at once, in batches or by itself, once and in order, whatever happens to the answers', async () => {
    const fault = fc.oneof(fc.constantFrom<Fault>('none', 'lost', 'unanswered', 'late'), fc.integer({ min: 0, max: 3 }));
    const shape = fc.record({ length: fc.integer({ min: 1, max: 4 }), atomic: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(
        fc.array(fault, { maxLength: 8 }),
        fc.array(shape, { minLength: 2, maxLength: 6 }),
        fc.integer({ min: 0, max: 2 }),
        async (faults, shapes, questions) => {
          const unreliable = new UnreliableLog();
          unreliable.faults.push(...faults);
          unreliable.unansweredQuestions = questions;
          const writer = writerOn(unreliable);
          const flights = shapes.map(({ length, atomic }, n) => ({ events: transaction(BigInt(n + 1), length), atomic }));
          const landed: number[] = [];
          await Promise.all(flights.map(({ events, atomic }, n) => writer.write(events, atomic).then(() => landed.push(n))));
          unreliable.unansweredQuestions = 0;
          expect(await idsIn(unreliable)).to.deep.equal(ids(flights.flatMap(({ events }) => events)));
          expect(landed).to.deep.equal([...flights.keys()]);
          expect(writer.end.seq).to.equal(unreliable.head);
        },
      ),
      { numRuns: 40 },
    );
  }).timeout(60_000);

  it('writes nothing more once it has given up', async () => {
    const writer = writerOn(log);
    await log.append(transaction(900n, 5), 0);
    const flights = [writer.write(three, true), writer.write(transaction(4n, 2), false)];
    for (const flight of flights) expect(await thrownBy(flight)).to.be.instanceOf(LogMoved);
    expect(await thrownBy(writer.write(transaction(5n, 1), false))).to.be.instanceOf(LogMoved);
    expect(log.head).to.equal(5);
  });

  it('refuses for good when another writer has put in just as many events as one of our batches', async () => {
    const batches = [transaction(1n, 3), transaction(2n, 2)];
    const writer = writerOn(log);
    await log.append(transaction(9n, 3), 0);
    const error = await thrownBy(Promise.all(batches.map((batch) => writer.write(batch, true))));
    expect(error).to.be.instanceOf(HeadwaterError).and.to.include({ code: 'log_torn', reaction: 'refused' });
  });

  for (const fault of ['lost', 'unanswered'] as const) {
    it(`says what keeps it from writing, and that this is over, when the answer was: ${fault}`, async () => {
      log.faults.push(fault);
      log.unansweredQuestions = 3;
      const said: (string | undefined)[] = [];
      await new LogWriter(log, origin, silentLogger(), running, (trouble) => said.push(trouble)).write(three, true);
      expect(said.slice(0, -1)).to.include('no answer');
      expect(said.at(-1)).to.equal(undefined);
    });
  }

  it('gives up when it is told to stop, between attempts', async () => {
    const stop = new AbortController();
    log.faults.push(...Array.from({ length: 50 }, () => 'lost' as const));
    const writing = thrownBy(writerOn(log, stop.signal).write(three, true));
    setTimeout(() => stop.abort(new Error('stopped')), 20);
    expect(((await writing) as Error).message).to.equal('stopped');
    expect(log.attempts).to.be.lessThan(50);
  });
});
