import { expect } from 'chai';
import { setImmediate as turn } from 'node:timers/promises';
import { flipWhenThere } from '../../pipeline/runner/rebuild/flip.ts';
import { HeldStore } from '../../pipeline/runner/rebuild/gate.ts';
import type { FlipOutcome, Steering } from '../../pipeline/runner/rebuild/model.ts';
import type { CommitOutcome, Offset } from '../../pipeline/runner/state-store.ts';
import { refused } from '../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { MemoryStateStore } from '../support/memory-state-store.ts';
import { until } from '../support/role-context.ts';

const at = (seq: number): Offset => ({ seq, epoch: 'e' });

/** A store whose answer comes when the test says so. */
class SlowStore extends MemoryStateStore<number> {
  answer: (() => void) | undefined;

  override async commit(effects: number[], expected: Offset | undefined, next: Offset): Promise<CommitOutcome> {
    const outcome = await super.commit(effects, expected, next);
    await new Promise<void>((resolve) => (this.answer = resolve));
    return outcome;
  }
}

describe('flip behind commits', () => {
  let slow: SlowStore;
  let held: HeldStore<number[]>;
  let stop: AbortController;
  /** What the asked are told, in turn. */
  let outcomes: (() => FlipOutcome)[];
  let asked: number;
  let flipped: boolean;
  beforeEach(() => {
    slow = new SlowStore();
    slow.stored = at(0);
    held = new HeldStore(slow, { owner: 'test', check: () => Promise.resolve(), requireBeginning: () => undefined });
    stop = new AbortController();
    [asked, flipped] = [0, false];
  });

  function begin(): Promise<boolean | string> {
    const steering: Pick<Steering, 'signal' | 'log'> = { signal: stop.signal, log: silentLogger() };
    const flip = (): Promise<FlipOutcome> => Promise.resolve(outcomes[asked++]!());
    return flipWhenThere({
      beside: { follows: false, flip },
      store: held,
      steering: steering as Steering,
      onFlipped: () => (flipped = true),
      onWaiting: () => undefined,
    }).catch(({ message }: Error) => message);
  }

  it('is asked for after each commit until it is made', async () => {
    outcomes = [() => 'behind', () => 'behind', () => 'flipped'];
    const ended = begin();
    await until(() => asked === 1);
    for (const seq of [1, 2]) {
      const commit = held.commit([seq], at(seq - 1), at(seq));
      await until(() => slow.answer !== undefined);
      slow.answer!();
      slow.answer = undefined;
      await commit;
      expect(asked).to.equal(1 + seq);
    }
    expect(await ended).to.equal(true);
  });

  for (const [how, end] of [
    ['was stopped', () => stop.abort(new Error('the operator has stopped it'))],
    ['has failed', () => undefined],
  ] as const) {
    it(`is not made by a commit that is answered after it ${how}`, async () => {
      const fail = (): never => {
        throw refused('rebuild_overtaken', 'another one is at work', 'wait');
      };
      outcomes = [() => 'behind', how === 'has failed' ? fail : () => 'flipped', () => 'flipped'];
      const ended = begin();
      await until(() => asked === 1);
      const commits = [held.commit([1], at(0), at(1)), held.commit([2], at(1), at(2))];
      await until(() => slow.answer !== undefined);
      end();
      if (how === 'was stopped') expect(await ended).to.equal('the operator has stopped it');
      for (const commit of commits) {
        await until(() => slow.answer !== undefined);
        slow.answer!();
        slow.answer = undefined;
        await commit;
        await turn();
      }
      expect(await ended).to.be.a('string');
      expect(flipped).to.equal(false);
    });
  }
});
