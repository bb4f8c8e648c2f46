import { expect } from 'chai';
import fc from 'fast-check';
import { BatchQueue, type OnTheWay } from '../../../pipeline/capture/batch-queue.ts';
import type { SourceEvent } from '../../../pipeline/source/source.ts';
import { sourceEvent, transaction } from './support/source-events.ts';

const maxEvents = 1_000;
const maxBytes = 1_000_000;

/** How many of the waiting events go out next, said as plainly as can be. */
function expectedCount(waiting: readonly SourceEvent[]): number {
  let fitting = 0;
  let bytes = 0;
  for (const { data } of waiting) {
    bytes += data.length;
    if (fitting === maxEvents || (fitting > 0 && bytes > maxBytes)) break;
    fitting++;
  }
  const whole = waiting.slice(0, fitting).findLastIndex((event) => event.last) + 1;
  if (whole > 0) return whole;
  return fitting === maxEvents || fitting < waiting.length ? fitting : 0;
}

const sizes = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 400 }) },
  { weight: 1, arbitrary: fc.integer({ min: 50_000, max: 999_000 }) },
);
const lengths = fc.oneof(
  { weight: 5, arbitrary: fc.integer({ min: 1, max: 6 }) },
  { weight: 1, arbitrary: fc.integer({ min: 7, max: 2_600 }) },
);
/** Transactions, whose events come in portions that keep no boundaries; between the portions some batches are taken. */
const histories = fc.record({
  transactions: fc.array(fc.record({ length: lengths, size: sizes }), { minLength: 1, maxLength: 25 }),
  portions: fc.array(fc.record({ push: fc.integer({ min: 1, max: 1_500 }), take: fc.integer({ min: 0, max: 4 }) }), {
    minLength: 1,
    maxLength: 40,
  }),
});

describe('batch queue', () => {
  it('gives what a plain model gives, in order, nothing lost, whatever comes in whatever portions', () => {
    fc.assert(
      fc.property(histories, ({ transactions, portions }) => {
        const all = transactions.flatMap(({ length, size }, n) => transaction(BigInt(n + 1), length, { size }));
        const queue = new BatchQueue();
        let waiting: SourceEvent[] = [];
        let pushed = 0;
        const takeOne = (): boolean => {
          const count = expectedCount(waiting);
          const batch = queue.next();
          if (count === 0) {
            expect(batch).to.equal(undefined);
            return false;
          }
          const expected = waiting.slice(0, count);
          expect(batch!.events.length).to.equal(count);
          expect(batch!.events.every((event, i) => event === expected[i])).to.equal(true);
          expect(batch!.atomic).to.equal(count > 10 || expected.some((event) => !event.last));
          waiting = waiting.slice(count);
          return true;
        };
        for (const { push, take } of portions) {
          const portion = all.slice(pushed, pushed + push);
          pushed += portion.length;
          queue.push(portion);
          waiting = [...waiting, ...portion];
          for (let i = 0; i < take && takeOne(); i++);
          expect(queue.size).to.equal(waiting.length);
          expect(queue.bytes).to.equal(waiting.reduce((sum, event) => sum + event.data.length, 0));
        }
        queue.push(all.slice(pushed));
        waiting = [...waiting, ...all.slice(pushed)];
        while (takeOne());
        expect(waiting.length, 'what is left when every transaction is whole').to.equal(0);
      }),
      { numRuns: 150 },
    );
  }).timeout(30_000);

  it('puts as many whole transactions into a batch as fit, and never a part of the next', () => {
    const queue = new BatchQueue();
    queue.push([...transaction(1n, 600), ...transaction(2n, 300), ...transaction(3n, 200)]);
    expect(queue.next()!.events.length).to.equal(900);
    expect(queue.next()!.events.length).to.equal(200);
    expect(queue.next()).to.equal(undefined);
  });

  it('waits for the rest of a transaction that may still fit', () => {
    const queue = new BatchQueue();
    const events = transaction(1n, 999);
    queue.push(events.slice(0, 998));
    expect(queue.next()).to.equal(undefined);
    queue.push(events.slice(998));
    expect(queue.next()!.events.length).to.equal(999);
  });

  it('sends a transaction that is larger than a batch in full ones, and its rest together with what follows', () => {
    const queue = new BatchQueue();
    queue.push([...transaction(1n, 2_300), ...transaction(2n, 10)]);
    expect([queue.next(), queue.next(), queue.next()].map((batch) => batch!.events.length)).to.deep.equal([1_000, 1_000, 310]);
  });

  it('lets an event that is larger than a batch go alone', () => {
    const queue = new BatchQueue();
    queue.push([sourceEvent({ size: 10 }), sourceEvent({ lsn: 2n, size: 1_500_000 }), sourceEvent({ lsn: 3n, size: 10 })]);
    expect([queue.next(), queue.next(), queue.next()].map((batch) => batch!.events.length)).to.deep.equal([1, 1, 1]);
  });

  it('publishes few single events by themselves, and a transaction of several always as one', () => {
    const queue = new BatchQueue();
    queue.push([1n, 2n, 3n, 4n].map((lsn) => sourceEvent({ lsn })));
    expect(queue.next()!.atomic).to.equal(false);
    queue.push(transaction(5n, 2));
    expect(queue.next()!.atomic).to.equal(true);
  });

  describe('while something is on its way', () => {
    const queueOf = (...transactions: SourceEvent[][]): BatchQueue => {
      const queue = new BatchQueue();
      for (const events of transactions) queue.push(events);
      return queue;
    };
    const singles = (count: number): SourceEvent[] => Array.from({ length: count }, (_, n) => sourceEvent({ lsn: BigInt(n + 1) }));
    const after = (queue: BatchQueue, batches = 1): OnTheWay => {
      const last = queue.next()!;
      return { batches, events: last.events.length, last };
    };

    it('lets a few single events follow others, up to what is cheaper than a batch', () => {
      const queue = queueOf(singles(4));
      const onTheWay = after(queue);
      queue.push(singles(6));
      expect(queue.next(onTheWay)?.events.length).to.equal(6);
      queue.push(singles(1));
      expect(queue.next({ ...onTheWay, events: 10 })).to.equal(undefined);
    });

    it('lets nothing atomic follow single events: after another writer’s events it would fit again', () => {
      const queue = queueOf(singles(2));
      const onTheWay = after(queue);
      queue.push(transaction(9n, 3));
      expect(queue.next(onTheWay)).to.equal(undefined);
      expect(queue.next()?.events.length).to.equal(3);
    });

    it('lets full batches follow large ones, three at once, and keeps what may still grow', () => {
      const queue = queueOf(transaction(1n, 600), transaction(2n, 600), transaction(3n, 600), transaction(4n, 600), transaction(5n, 600));
      const onTheWay = after(queue);
      expect(queue.next({ ...onTheWay, batches: 3 })).to.equal(undefined);
      expect(queue.next(onTheWay)?.events.length).to.equal(600);
      expect(queue.next({ ...onTheWay, batches: 2 })?.events.length).to.equal(600);
      expect(queue.next(onTheWay)?.events.length).to.equal(600);
      expect(queue.next(onTheWay), 'the last one may still grow').to.equal(undefined);
    });

    it('lets nothing follow a small batch', () => {
      const queue = queueOf(transaction(1n, 100));
      const onTheWay = after(queue);
      queue.push(transaction(2n, 800));
      queue.push(transaction(3n, 800));
      expect(queue.next(onTheWay)).to.equal(undefined);
    });
  });
});
