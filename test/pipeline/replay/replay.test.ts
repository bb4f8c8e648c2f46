import { expect } from 'chai';
import fc from 'fast-check';
import type { LogEvent, Seq } from '../../../pipeline/log/event-log.ts';
import { CountTarget } from '../../../pipeline/replay/count-target.ts';
import { createFilter } from '../../../pipeline/replay/filter.ts';
import { replay, type Safe } from '../../../pipeline/replay/replay.ts';
import { nothingSettled, type ReplayTarget, type Settled } from '../../../pipeline/replay/target.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { nthEvent } from './support/replay-log.ts';

const count = 3_000;
const range = { first: 5, last: count - 7 };

async function memoryLog(): Promise<MemoryLog> {
  const log = new MemoryLog();
  await log.append(
    Array.from({ length: count }, (_, i) => nthEvent(i + 1)),
    0,
  );
  return log;
}

/** Takes events in units, which it has for good; fails, or has the replay stopped, when it has been given so many. */
class Units implements ReplayTarget {
  readonly units: Seq[][] = [];
  #settled: Settled;
  #open: LogEvent[] = [];
  #left: number;
  readonly #size: number;
  readonly #fail: () => void;

  constructor(before: Settled, size: number, left: number, fail: () => void) {
    this.#settled = before;
    this.#size = size;
    this.#left = left;
    this.#fail = fail;
  }

  write(events: readonly LogEvent[]): Promise<void> {
    for (const event of events) {
      if (this.#left-- === 0) this.#fail();
      this.#open.push(event);
      if (this.#open.length === this.#size) this.#close();
    }
    return Promise.resolve();
  }

  settle(end: boolean): Promise<Settled> {
    if (end && this.#open.length > 0) this.#close();
    return Promise.resolve(this.#settled);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #close(): void {
    this.units.push(this.#open.map(({ seq }) => seq));
    this.#settled = { through: this.#open.at(-1)!.seq, events: this.#settled.events + this.#open.length, bytes: 0 };
    this.#open = [];
  }
}

describe('a replay', () => {
  it('interrupted by faults and stops, and gone on with, gives each event once, in the units of an undisturbed one', async () => {
    const log = await memoryLog();
    const interruption = fc.record({ after: fc.nat(1_500), stop: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(
        fc.array(interruption, { maxLength: 6 }),
        fc.integer({ min: 1, max: 1_300 }),
        fc.boolean(),
        async (faults, size, filtered) => {
          const parts = { subject: 'ev', ...(filtered ? { ops: ['update' as const] } : {}) };
          const units: Seq[][] = [];
          let kept: Safe | undefined;
          for (const fault of [...faults, undefined]) {
            const stopping = new AbortController();
            const target = new Units(kept?.settled ?? nothingSettled, size, fault?.after ?? -1, () => {
              if (fault?.stop === false) throw new Error('a fault');
              stopping.abort();
            });
            const before = kept?.settled ?? nothingSettled;
            const next = kept?.next ?? range.first;
            const save = (safe: Safe): Promise<void> => Promise.resolve(void (kept = safe));
            const filter = createFilter(parts);
            const run = replay({ eventLog: log, filter, range, next, before, target, signal: stopping.signal, save });
            const outcome = await run.catch((error: unknown) => void expect((error as Error).message).to.equal('a fault'));
            units.push(...target.units);
            if (outcome?.done) break;
          }
          const all = Array.from({ length: range.last - range.first + 1 }, (_, i) => range.first + i);
          const wanted = filtered ? all.filter((seq) => nthEvent(seq).subject.endsWith('.update')) : all;
          expect(units.flat()).to.deep.equal(wanted);
          for (const unit of units.slice(0, -1)) expect(unit.length).to.equal(size);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('ends where the last matching event is behind the range, before it, or nowhere', async () => {
    const log = await memoryLog();
    const of = async (subjects: readonly string[], last: Seq): Promise<number> => {
      const target = new CountTarget();
      const parts = {
        eventLog: log,
        filter: createFilter({ subject: 'ev', subjects }),
        before: nothingSettled,
        target,
        save: () => Promise.resolve(),
      };
      const { done, events } = await replay({ ...parts, range: { first: 1, last }, next: 1, signal: new AbortController().signal });
      expect(done).to.equal(true);
      return events;
    };
    expect(await of(['ev._schema.public.prices'], count)).to.equal(1);
    expect(await of(['ev._schema.public.prices'], 1)).to.equal(1);
    expect(await of(['ev.public.orders.*'], 6)).to.equal(0);
    expect(await of(['ev.public.nothing.*'], count)).to.equal(0);
  });

  it('keeps a rate', async () => {
    const log = await memoryLog();
    const target = new CountTarget();
    const parts = { eventLog: log, filter: createFilter({ subject: 'ev' }), before: nothingSettled, target, save: () => Promise.resolve() };
    const begun = performance.now();
    await replay({ ...parts, range: { first: 1, last: 700 }, next: 1, rate: 1_000, signal: new AbortController().signal });
    // The first fifty need no wait; slower is this machine's business.
    expect(performance.now() - begun).to.be.greaterThan(600);
  });
});
