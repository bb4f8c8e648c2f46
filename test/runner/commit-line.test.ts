import { expect } from 'chai';
import fc from 'fast-check';
import { setImmediate as turn } from 'node:timers/promises';
import { CommitLine, ComparisonLost } from '../../pipeline/runner/commit-line.ts';
import { GroupCommit } from '../../pipeline/runner/group-commit.ts';
import type { CommitOutcome, Offset } from '../../pipeline/runner/state-store.ts';
import { MemoryStateStore } from '../support/memory-state-store.ts';
import { rowEvent } from '../support/row-events.ts';

const at = (seq: number): Offset => ({ seq, epoch: 'e' });

/** What becomes of an attempt: it is carried out and answered; its answer is lost; it is lost itself; or it is carried out long after it was given up. */
type Fate = 'answered' | 'unanswered' | 'unheard' | 'late';

/** A store behind a network that does to each attempt what it was told to; then it is sound. */
class FarStore extends MemoryStateStore<number> {
  readonly #fates: Fate[];
  readonly late: Promise<unknown>[] = [];

  constructor(fates: readonly Fate[]) {
    super();
    this.stored = at(0);
    this.#fates = [...fates];
  }

  override offset(): Promise<Offset | undefined> {
    return this.#fated(() => super.offset());
  }

  override commit(effects: number[], expected: Offset | undefined, next: Offset): Promise<CommitOutcome> {
    return this.#fated(() => super.commit(effects, expected, next));
  }

  async #fated<T>(call: () => Promise<T>): Promise<T> {
    const fate = this.#fates.shift() ?? 'answered';
    if (fate === 'answered') return call();
    if (fate === 'unanswered') await call();
    if (fate === 'late') this.late.push(turn().then(turn).then(call));
    throw new Error(`the network: ${fate}`);
  }
}

async function untilAnswered<T>(question: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await question();
    } catch {
      await turn();
    }
  }
}

describe('commits behind one another', () => {
  it('are made once and in order, whatever is lost on the way', async () => {
    const fate = fc.constantFrom<Fate>('answered', 'answered', 'unanswered', 'unheard', 'late');
    const property = fc.asyncProperty(
      fc.array(fate, { maxLength: 40 }),
      fc.integer({ min: 1, max: 3 }),
      fc.integer({ min: 1, max: 4 }),
      fc.array(fc.boolean(), { minLength: 30, maxLength: 30 }),
      async (fates, mostUnderWay, events, pauses) => {
        const store = new FarStore(fates);
        const line = new CommitLine(store, untilAnswered, false);
        const told: number[] = [];
        const commits = new GroupCommit<number[]>({
          begin: () => [],
          commit: async (effects, expected, next, holes) => {
            await line.commit(effects, expected, next, holes);
            told.push(...effects);
          },
          stored: at(0),
          limits: { events, bytes: Infinity },
          mostUnderWay,
          onFailure: () => undefined,
        });
        for (const [n, pause] of pauses.entries()) {
          if (commits.full) await commits.room();
          commits.effects.push(n + 1);
          commits.add({ ...rowEvent(n + 1, 'insert', {}), seq: n + 1 });
          if (pause) {
            commits.send();
            await turn();
          }
        }
        await commits.flush();
        await Promise.all(store.late);
        const all = pauses.map((_, n) => n + 1);
        expect(store.state).to.deep.equal(all);
        expect(told).to.deep.equal(all);
        expect(commits.stored).to.deep.equal(at(all.length));
      },
    );
    await fc.assert(property, { numRuns: 500 });
  });

  it('end with the first that finds another state, and change nothing of it', async () => {
    const store = new FarStore([]);
    const line = new CommitLine(store, untilAnswered, false);
    await line.commit([1], at(0), at(1), undefined);
    store.stored = at(7);
    const [one, two] = await Promise.allSettled([line.commit([2], at(1), at(2), undefined), line.commit([3], at(2), at(3), undefined)]);
    for (const { status, reason } of [one, two] as PromiseRejectedResult[]) {
      expect(status).to.equal('rejected');
      expect(reason).to.be.instanceOf(ComparisonLost);
    }
    expect(store.state).to.deep.equal([1]);
    expect(store.stored).to.deep.equal(at(7));
  });
});
