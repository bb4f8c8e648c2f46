import { expect } from 'chai';
import { AppendConflict, OffsetExpired } from '../../../pipeline/log/errors.ts';
import type { EventLog, LogEvent, NewEvent, ReadOptions, Seq } from '../../../pipeline/log/event-log.ts';
import { until } from '../../support/role-context.ts';

/** An empty log under test. */
export interface LogUnderTest {
  readonly log: EventLog;
  /** First token of its subjects. */
  readonly subject: string;
  /** Whether it knows when an event was appended. */
  readonly keepsTimes: boolean;
  /** Forgets everything before `first`. */
  trim(first: Seq): Promise<void>;
  close(): Promise<void>;
}

/** Reads until `count` events have come. */
export async function collect(log: EventLog, from: Seq, count: number, options: ReadOptions = {}): Promise<readonly LogEvent[]> {
  const found: LogEvent[] = [];
  for await (const events of log.read(from, options)) {
    found.push(...events);
    if (found.length >= count) break;
  }
  return found;
}

/** Numbered events; `name` is what follows the first token of their subject. */
export function numbered(
  subject: string,
  from: number,
  count: number,
  name: (n: number) => string = () => 'a.b.insert',
): readonly NewEvent[] {
  return Array.from({ length: count }, (_, i) => ({
    subject: `${subject}.${name(from + i)}`,
    data: Buffer.from(`{"n":${from + i},"é":"😀"}`),
  }));
}

function text(event: { readonly data: Uint8Array } | undefined): string | undefined {
  return event && Buffer.from(event.data).toString('utf8');
}

/** Sequence, subject and bytes: what must come back as it went in. */
function plain(events: readonly LogEvent[]): readonly unknown[] {
  return events.map((event) => [event.seq, event.subject, text(event)]);
}

async function failure(action: Promise<unknown>): Promise<unknown> {
  return action.then(
    () => undefined,
    (error: unknown) => error,
  );
}

/** What every log does. */
export function eventLogConformance(name: string, open: () => Promise<LogUnderTest>): void {
  describe(`event log: ${name}`, () => {
    let under: LogUnderTest;
    let log: EventLog;
    const events = (from: number, count: number, token?: (n: number) => string): readonly NewEvent[] =>
      numbered(under.subject, from, count, token);
    const subjects = (...names: string[]): string[] => names.map((each) => `${under.subject}.${each}`);

    beforeEach(async () => {
      under = await open();
      log = under.log;
    });
    afterEach(() => under.close());

    describe('append', () => {
      it('is empty at first, with its first sequence one after its last', async () => {
        const { first, last, messages, bytes, epoch } = await log.bounds();
        expect({ first, last, messages, bytes }).to.deep.equal({ first: 1, last: 0, messages: 0, bytes: 0 });
        expect(epoch).to.match(/\S/);
        expect(await log.last()).to.equal(undefined);
        expect(await log.get(1)).to.equal(undefined);
      });

      it('gives consecutive sequences from 1 and keeps subjects and bytes', async () => {
        const written = events(1, 5, (n) => `t${n}.x.insert`);
        expect(await log.append(written.slice(0, 1), 0)).to.equal(1);
        expect(await log.append(written.slice(1), 1)).to.equal(5);
        expect(plain(await collect(log, 1, 5))).to.deep.equal(
          written.map((event, i) => [i + 1, event.subject, Buffer.from(event.data).toString('utf8')]),
        );
        const { first, last, messages } = await log.bounds();
        expect({ first, last, messages }).to.deep.equal({ first: 1, last: 5, messages: 5 });
      });

      it('of nothing changes nothing', async () => {
        await log.append(events(1, 2), 0);
        expect(await log.append([], 2)).to.equal(2);
        expect((await log.bounds()).last).to.equal(2);
      });

      for (const [what, count, expected] of [
        ['one event', 1, 2],
        ['a batch', 5, 2],
        ['one event', 1, 4],
        ['a batch', 5, 4],
      ] as const) {
        it(`of ${what} after sequence ${expected} of 3 is refused; nothing is stored and no sequence used up`, async () => {
          await log.append(events(1, 3), 0);
          expect(await failure(log.append(events(90, count), expected))).to.be.instanceOf(AppendConflict);
          expect((await log.bounds()).last).to.equal(3);
          expect(await log.append(events(4, 2), 3)).to.equal(5);
          expect((await collect(log, 1, 5)).map(text)).to.deep.equal(events(1, 5).map(text));
        });
      }

      it('lets one of several simultaneous writers through, whole', async () => {
        const outcomes = await Promise.all(Array.from({ length: 8 }, (_, i) => failure(log.append(events(100 * i, 3), 0))));
        expect(outcomes.filter((outcome) => outcome === undefined)).to.have.length(1);
        const winner = outcomes.indexOf(undefined);
        expect(outcomes.every((outcome, i) => i === winner || outcome instanceof AppendConflict)).to.equal(true);
        expect((await collect(log, 1, 3)).map(text)).to.deep.equal(events(100 * winner, 3).map(text));
        expect((await log.bounds()).last).to.equal(3);
      });

      it('event by event stores all in order, or says that the log has moved', async () => {
        expect(await log.appendEach(events(1, 20), 0)).to.equal(20);
        expect(await failure(log.appendEach(events(50, 3), 19))).to.be.instanceOf(AppendConflict);
        expect(await log.appendEach(events(21, 1), 20)).to.equal(21);
        expect((await collect(log, 1, 21)).map(text)).to.deep.equal(events(1, 21).map(text));
      });
    });

    describe('read', () => {
      it('begins at any sequence, with none left out and none twice', async () => {
        await log.append(events(1, 600), 0);
        await log.append(events(601, 600), 600);
        for (const from of [0, 1, 2, 599, 600, 601, 1_199, 1_200]) {
          const count = 1_201 - Math.max(1, from);
          const seqs = (await collect(log, from, count)).map((event) => event.seq);
          expect(seqs, `from ${from}`).to.deep.equal(Array.from({ length: count }, (_, i) => Math.max(1, from) + i));
        }
      });

      it('follows what is appended while it reads, and ends when its signal says so', async () => {
        await log.append(events(1, 10), 0);
        const stop = new AbortController();
        const seen: Seq[] = [];
        const reading = (async (): Promise<void> => {
          for await (const batch of log.read(4, { signal: stop.signal })) seen.push(...batch.map((event) => event.seq));
        })();
        await until(() => seen.length === 7, 5_000, 'the events of before');
        for (let last = 10; last < 40; last += 3) await log.append(events(last + 1, 3), last);
        await until(() => seen.length === 37, 5_000, 'the events appended since');
        stop.abort();
        await reading;
        expect(seen).to.deep.equal(Array.from({ length: 37 }, (_, i) => i + 4));
      });

      it('waits at the end of an empty log, and ends at once when its signal has fired already', async () => {
        const reading = collect(log, 1, 1);
        await log.append(events(1, 1), 0);
        expect((await reading).map((event) => event.seq)).to.deep.equal([1]);
        for await (const batch of log.read(1, { signal: AbortSignal.abort() })) expect.fail(`${batch.length} events came`);
      });

      it('refuses a position that the log has not come to: it has lost events, or is another one', async () => {
        await log.append(events(1, 3), 0);
        for (const options of [{}, { subjects: subjects('a.>') }])
          expect(await failure(collect(log, 5, 1, options))).to.include({ code: 'log_regressed', reaction: 'refused' });
        const next = collect(log, 4, 1);
        await log.append(events(4, 1), 3);
        expect((await next).map((event) => event.seq)).to.deep.equal([4]);
      });

      it('gives only subjects that match a filter, each event once though several match', async () => {
        const names = ['a.b.insert', 'a.b.update', 'a.c.insert', 'a', 'b.b.insert', '_tick', 'a.b.c.d'];
        await log.append(
          events(0, 70, (n) => names[n % 7]!),
          0,
        );
        const cases: readonly (readonly [filters: readonly string[], matching: readonly string[]])[] = [
          [['a.b.insert'], ['a.b.insert']],
          [['a.*.insert'], ['a.b.insert', 'a.c.insert']],
          [['a.>'], ['a.b.insert', 'a.b.update', 'a.c.insert', 'a.b.c.d']],
          [
            ['a.b.>', 'b.b.>'],
            ['a.b.insert', 'a.b.update', 'b.b.insert', 'a.b.c.d'],
          ],
          [
            ['a.b.insert', 'a.>', 'a.b.insert'],
            ['a.b.insert', 'a.b.update', 'a.c.insert', 'a.b.c.d'],
          ],
          [
            ['a.b.>', 'a.b.*'],
            ['a.b.insert', 'a.b.update', 'a.b.c.d'],
          ],
          [
            ['a.b.*', '*.b.insert'],
            ['a.b.insert', 'a.b.update', 'b.b.insert'],
          ],
          [['_tick'], ['_tick']],
          [
            ['*', 'a.c.insert'],
            ['a', '_tick', 'a.c.insert'],
          ],
        ];
        for (const [filters, matching] of cases) {
          const wanted = Array.from({ length: 70 }, (_, n) => n).filter((n) => matching.includes(names[n % 7]!));
          const found = await collect(log, 1, wanted.length, { subjects: subjects(...filters), signal: AbortSignal.timeout(5_000) });
          expect(
            found.map((event) => event.seq - 1),
            filters.join(' '),
          ).to.deep.equal(wanted);
        }
      });
    });

    describe('look-ups', () => {
      beforeEach(async () => {
        await log.append(
          events(1, 9, (n) => (n % 3 === 0 ? '_schema.p.t' : `p.t${n % 3}.insert`)),
          0,
        );
      });

      it('get gives the event at a sequence', async () => {
        expect(plain([(await log.get(4))!])).to.deep.equal([[4, `${under.subject}.p.t1.insert`, text(events(4, 1)[0])]]);
        expect(await log.get(10)).to.equal(undefined);
      });

      it('last gives the last event, of all or of a subject', async () => {
        expect((await log.last())?.seq).to.equal(9);
        expect(text(await log.last(`${under.subject}.p.t2.insert`))).to.equal(text(events(8, 1)[0]));
        expect((await log.last(`${under.subject}.p.>`))?.seq).to.equal(8);
        expect(await log.last(`${under.subject}.nothing`)).to.equal(undefined);
      });

      it('lastPerSubject gives the last of each subject, in the order of the log', async () => {
        expect((await log.lastPerSubject(`${under.subject}.>`)).map((event) => event.seq)).to.deep.equal([7, 8, 9]);
        expect((await log.lastPerSubject(`${under.subject}._schema.>`)).map((event) => event.seq)).to.deep.equal([9]);
        expect(await log.lastPerSubject(`${under.subject}.nothing.>`)).to.deep.equal([]);
      });

      it('lastPerSubject gives them all when they are many', async () => {
        for (let last = 9; last < 5_009; last += 500) {
          await log.append(
            events(last + 1, 500, (n) => `many.t${n}.insert`),
            last,
          );
        }
        expect((await log.lastPerSubject(`${under.subject}.many.>`)).map((event) => event.seq)).to.deep.equal(
          Array.from({ length: 5_000 }, (_, i) => i + 10),
        );
      });

      it('firstSince gives the first event at or after a time', async function () {
        if (!under.keepsTimes) return this.skip();
        await new Promise((resolve) => setTimeout(resolve, 20));
        const between = new Date();
        await new Promise((resolve) => setTimeout(resolve, 20));
        expect(await log.firstSince(between)).to.equal(undefined);
        await log.append(events(10, 2), 9);
        expect((await log.firstSince(between))?.seq).to.equal(10);
        expect((await log.firstSince(new Date(0)))?.seq).to.equal(1);
        expect(await log.firstSince(new Date(Date.now() + 3_600_000))).to.equal(undefined);
      });
    });

    describe('trimmed', () => {
      beforeEach(() => log.append(events(1, 30), 0));

      it('says what it still holds', async () => {
        await under.trim(21);
        const { first, last, messages } = await log.bounds();
        expect({ first, last, messages }).to.deep.equal({ first: 21, last: 30, messages: 10 });
        expect(await log.get(20)).to.equal(undefined);
        expect((await log.get(21))?.seq).to.equal(21);
        if (under.keepsTimes) expect((await log.firstSince(new Date(0)))?.seq).to.equal(21);
      });

      it('reads from its oldest event on, and refuses older positions by name', async () => {
        await under.trim(21);
        expect((await collect(log, 21, 10)).map((event) => event.seq)).to.deep.equal(Array.from({ length: 10 }, (_, i) => 21 + i));
        for (const options of [{}, { subjects: subjects('a.>') }]) {
          const error = await failure(collect(log, 20, 1, options));
          expect(error).to.be.instanceOf(OffsetExpired);
          expect((error as OffsetExpired).oldest).to.equal(21);
        }
      });

      it('goes on after its last sequence when all of it is gone', async () => {
        await under.trim(31);
        const { first, last, messages } = await log.bounds();
        expect({ first, last, messages }).to.deep.equal({ first: 31, last: 30, messages: 0 });
        expect(await log.last()).to.equal(undefined);
        expect(await failure(collect(log, 30, 1))).to.be.instanceOf(OffsetExpired);
        const reading = collect(log, 31, 2);
        expect(await failure(log.append(events(99, 1), 0))).to.be.instanceOf(AppendConflict);
        expect(await log.append(events(31, 2), 30)).to.equal(32);
        expect((await reading).map((event) => event.seq)).to.deep.equal([31, 32]);
      });
    });
  });
}
