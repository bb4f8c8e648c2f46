import { expect } from 'chai';
import { setImmediate as turn } from 'node:timers/promises';
import { HeldStore } from '../../pipeline/runner/rebuild/gate.ts';
import type { CommitOutcome, Offset } from '../../pipeline/runner/state-store.ts';
import { MemoryStateStore } from '../support/memory-state-store.ts';

const at = (seq: number): Offset => ({ seq, epoch: 'e' });

/** Says what happened, in order; its answers come when the test says so. */
class SlowStore extends MemoryStateStore<number> {
  readonly happened: string[] = [];
  readonly #answers: (() => void)[] = [];

  override async commit(effects: number[], expected: Offset | undefined, next: Offset): Promise<CommitOutcome> {
    this.happened.push(`commit ${next.seq}`);
    const outcome = await super.commit(effects, expected, next);
    await new Promise<void>((resolve) => this.#answers.push(resolve));
    return outcome;
  }

  async answer(): Promise<void> {
    await turn();
    this.#answers.shift()!();
    await turn();
  }
}

describe('a store whose commits can be held up', () => {
  let slow: SlowStore;
  let held: HeldStore<number[]>;
  beforeEach(() => {
    slow = new SlowStore();
    slow.stored = at(0);
    held = new HeldStore(slow, { owner: 'test', check: () => Promise.resolve(), requireBeginning: () => undefined });
  });
  const commit = (seq: number): Promise<CommitOutcome> => held.commit([seq], at(seq - 1), at(seq));
  const happens = (what: string) => (): Promise<void> => Promise.resolve(void slow.happened.push(what));

  it('takes the next commit before the one before is answered, but stands still behind both, and holds up what comes', async () => {
    const done = [commit(1), commit(2), held.still(happens('still')), commit(3)];
    await turn();
    expect(slow.happened).to.deep.equal(['commit 1', 'commit 2']);
    await slow.answer();
    expect(slow.happened).to.have.length(2);
    expect(held.at).to.deep.equal(at(1));
    await slow.answer();
    expect(slow.happened).to.deep.equal(['commit 1', 'commit 2', 'still', 'commit 3']);
    await slow.answer();
    await Promise.all(done);
    expect(held.at).to.deep.equal(at(3));
  });

  it('stands still behind a commit without an answer, although the one behind it has failed', async () => {
    const first = commit(1);
    await turn();
    slow.failure = new Error('the connection broke');
    const second = commit(2).catch(({ message }: Error) => message);
    expect(await second).to.equal('the connection broke');
    const still = held.still(happens('still'));
    await turn();
    expect(slow.happened).to.deep.equal(['commit 1', 'commit 2']);
    await slow.answer();
    await Promise.all([first, still]);
    expect(slow.happened.at(-1)).to.equal('still');
  });

  it('commits one by one while something is to be done after each, and does it no more when it is withdrawn', async () => {
    held.afterCommit = happens('after');
    const done = [commit(1), commit(2)];
    await slow.answer();
    expect(slow.happened).to.deep.equal(['commit 1', 'after', 'commit 2']);
    held.afterCommit = undefined;
    await slow.answer();
    await Promise.all(done);
    expect(slow.happened).to.have.length(3);
  });

  it('lets nothing through any more when it is closed, also what has been held up', async () => {
    const failed = Promise.allSettled([held.still(() => Promise.resolve(held.close())), commit(1), commit(2)]);
    expect((await failed).map(({ status }) => status)).to.deep.equal(['fulfilled', 'rejected', 'rejected']);
    expect(slow.happened).to.deep.equal([]);
  });
});
