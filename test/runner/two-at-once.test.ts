import { expect } from 'chai';
import fc from 'fast-check';
import { setImmediate as turn } from 'node:timers/promises';
import type { LogEvent } from '../../pipeline/log/event-log.ts';
import type { Processor } from '../../pipeline/runner/processor.ts';
import { startRunner } from '../../pipeline/runner/runner.ts';
import { sameOffset, type CommitOutcome, type Offset, type StateStore } from '../../pipeline/runner/state-store.ts';
import { FaultyLog } from '../support/faulty-log.ts';
import { roleContext, until } from '../support/role-context.ts';
import { rowEvent } from '../support/row-events.ts';

type Counts = Map<number, number>;
const groups = 3;
const groupOf = ({ seq }: LogEvent): number => seq % groups;

interface Held {
  readonly counts: Counts;
  stored: Offset | undefined;
}

/** An instance's connection to what both hold: slow, in turn, and with a lease for everybody, as when one was frozen while it had it. */
class Connection implements StateStore<Counts> {
  readonly ordered = true;
  readonly #held: Held;
  readonly #delays: readonly number[];
  #calls = 0;
  #line: Promise<unknown> = Promise.resolve();

  constructor(held: Held, delays: readonly number[]) {
    this.#held = held;
    this.#delays = delays;
  }

  offset(): Promise<Offset | undefined> {
    return this.#inTurn(() => this.#held.stored);
  }

  commit(counts: Counts, expected: Offset | undefined, next: Offset): Promise<CommitOutcome> {
    return this.#inTurn(() => {
      if (!sameOffset(this.#held.stored, expected)) return 'lost';
      for (const [group, count] of counts) this.#held.counts.set(group, count);
      this.#held.stored = next;
      return 'committed';
    });
  }

  read(group: number): Promise<number> {
    return this.#inTurn(() => this.#held.counts.get(group) ?? 0);
  }

  holes(): Promise<ReadonlySet<number>> {
    return Promise.resolve(new Set());
  }

  lease(): Promise<boolean> {
    return Promise.resolve(true);
  }

  release(): Promise<void> {
    return Promise.resolve();
  }

  #inTurn<T>(call: () => T): Promise<T> {
    const delay = this.#delays[this.#calls++ % this.#delays.length]!;
    const answer = this.#line.then(async () => {
      for (let n = 0; n < delay; n++) await turn();
      const value = call();
      await turn();
      return value;
    });
    this.#line = answer;
    return answer;
  }
}

/** Counts the events of each group: reads what it needs as it goes, and forgets what is committed. */
function counter(connection: Connection): { processor: Processor<Counts>; onCommitted: (counts: Counts, offset: Offset) => void } {
  const memory = new Map<number, { count: number; until: number }>();
  const processor: Processor<Counts> = {
    name: 'counter',
    async prepare(events) {
      for (const group of new Set(events.map(groupOf))) {
        const entry = memory.get(group) ?? { count: await connection.read(group), until: 0 };
        entry.until = events.at(-1)!.seq;
        memory.set(group, entry);
      }
    },
    apply(event, counts) {
      counts.set(groupOf(event), ++memory.get(groupOf(event))!.count);
    },
    begin: () => new Map(),
    reset: () => memory.clear(),
  };
  const onCommitted = (_: Counts, { seq }: Offset): void => {
    for (const [group, { until: last }] of memory) if (last <= seq) memory.delete(group);
  };
  return { processor, onCommitted };
}

describe('two instances at work at once', function () {
  this.timeout(60_000);

  it('make each effect once, although both read the store as they go and come to the same offsets', async () => {
    const delays = fc.array(fc.nat(4), { minLength: 1, maxLength: 12 });
    const property = fc.asyncProperty(
      fc.tuple(delays, delays),
      fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 10, maxLength: 25 }),
      fc.integer({ min: 1, max: 3 }),
      async (pace, portions, most) => {
        const held: Held = { counts: new Map(), stored: undefined };
        const log = new FaultyLog();
        const roles = pace.map((each) => {
          const connection = new Connection(held, each);
          const deadLetters = { publish: () => Promise.reject(new Error('no event of this test is poison')) };
          return startRunner(roleContext(), {
            ...counter(connection),
            eventLog: log,
            store: connection,
            deadLetters,
            limits: { events: most },
          });
        });
        for (const portion of portions) {
          for (let n = 0; n < portion; n++) log.add(rowEvent(log.head + 1, 'insert', {}));
          for (let n = 0; n < 5; n++) await turn();
        }
        await until(() => held.stored?.seq === log.head);
        await Promise.all(roles.map((role) => role.stop()));
        const counted = [...held.counts.values()].reduce((sum, count) => sum + count, 0);
        expect(counted).to.equal(log.head);
      },
    );
    await fc.assert(property, { numRuns: 200 });
  });
});
