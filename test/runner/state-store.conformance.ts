import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import type { StateStore } from '../../pipeline/runner/state-store.ts';

/** A store under test, whose effects are lists of items, and what it holds. */
export interface StoreUnderTest {
  readonly store: StateStore<string[]>;
  state(): Promise<readonly string[]>;
  close(): Promise<void>;
}

const at = (seq: number, epoch = 'e'): { seq: number; epoch: string } => ({ seq, epoch });

/** What every state store does. */
export function stateStoreConformance(name: string, open: () => Promise<StoreUnderTest>): void {
  describe(`state store: ${name}`, () => {
    let subject: StoreUnderTest;
    beforeEach(async () => {
      subject = await open();
    });
    afterEach(() => subject.close());

    it('has no offset at first, and the first commit sets it', async () => {
      expect(await subject.store.offset()).to.equal(undefined);
      expect(await subject.store.commit([], undefined, at(0))).to.equal('committed');
      expect(await subject.store.offset()).to.deep.equal(at(0));
    });

    it('changes state and offset together', async () => {
      await subject.store.commit(['a'], undefined, at(4));
      expect(await subject.store.commit(['b', 'c'], at(4), at(9))).to.equal('committed');
      expect(await subject.state()).to.deep.equal(['a', 'b', 'c']);
      expect(await subject.store.offset()).to.deep.equal(at(9));
    });

    for (const [what, expected] of [
      ['an older sequence', at(3)],
      ['a newer sequence', at(5)],
      ['another epoch', at(4, 'other')],
      ['none', undefined],
    ] as const) {
      it(`refuses a commit that expects ${what}, and changes nothing`, async () => {
        await subject.store.commit(['a'], undefined, at(4));
        expect(await subject.store.commit(['b'], expected, at(9))).to.equal('lost');
        expect(await subject.state()).to.deep.equal(['a']);
        expect(await subject.store.offset()).to.deep.equal(at(4));
      });
    }

    it('refuses a commit that expects an offset where there is none', async () => {
      expect(await subject.store.commit(['a'], at(4), at(9))).to.equal('lost');
      expect(await subject.store.offset()).to.equal(undefined);
      expect(await subject.state()).to.deep.equal([]);
    });

    it('lets exactly one of many simultaneous commits from the same offset through', async () => {
      await subject.store.commit([], undefined, at(1));
      const outcomes = await Promise.all(Array.from({ length: 20 }, (_, i) => subject.store.commit([`${i}`], at(1), at(2))));
      expect(outcomes.filter((outcome) => outcome === 'committed')).to.have.length(1);
      expect(await subject.state()).to.have.length(1);
    });

    it('keeps the holes of its state and the last redrive with the commit that makes them, and not without it', async () => {
      const { store } = subject;
      await store.commit([], undefined, at(1));
      const made = { made: [2, 3, 2 ** 53 - 1], mended: [] };
      expect(await store.commit([], at(9), at(3), made)).to.equal('lost');
      expect([...(await store.holes([2, 3]))]).to.deep.equal([]);
      await store.commit([], at(1), at(3), made);
      const redriven = { ...at(5), redriven: 'one:a' };
      expect(await store.commit(['x'], at(1), redriven, { made: [], mended: [2] })).to.equal('lost');
      expect([...(await store.holes([1, 2, 3, 2 ** 53 - 1]))]).to.deep.equal([2, 3, 2 ** 53 - 1]);
      expect(await store.commit(['y'], at(3), redriven, { made: [4], mended: [2] })).to.equal('committed');
      expect([...(await store.holes([1, 2, 3, 4]))]).to.deep.equal([3, 4]);
      expect(await store.commit([], redriven, { ...redriven, seq: 6 })).to.equal('committed');
      expect(await store.offset()).to.deep.equal({ ...redriven, seq: 6 });
      expect(await subject.state()).to.deep.equal(['y']);
    });

    it('makes nothing out of turn of commits that are given at once, and all of them if it keeps their order', async () => {
      const { store } = subject;
      await store.commit([], undefined, at(0));
      const numbers = Array.from({ length: 50 }, (_, n) => n);
      const outcomes = await Promise.all(numbers.map((n) => store.commit([`${n}`], at(n), at(n + 1))));
      const made = numbers.filter((n) => outcomes[n] === 'committed');
      expect(await subject.state()).to.deep.equal(made.map(String));
      expect(made).to.deep.equal(numbers.slice(0, store.ordered ? numbers.length : made.length));
    });

    it('keeps sequences beyond 32 bits exact', async () => {
      const far = at(2 ** 53 - 1);
      await subject.store.commit([], undefined, far);
      expect(await subject.store.offset()).to.deep.equal(far);
    });

    it('gives the lease to one owner, who may renew it', async () => {
      expect(await subject.store.lease('one', 10_000)).to.equal(true);
      expect(await subject.store.lease('two', 10_000)).to.equal(false);
      expect(await subject.store.lease('one', 10_000)).to.equal(true);
    });

    it('lets another owner have the lease once it lapses or is released, but not at the word of a third', async () => {
      await subject.store.lease('one', 60);
      await subject.store.release('two');
      expect(await subject.store.lease('two', 60)).to.equal(false);
      await sleep(90);
      expect(await subject.store.lease('two', 10_000)).to.equal(true);
      await subject.store.release('two');
      expect(await subject.store.lease('one', 10_000)).to.equal(true);
    });
  });
}
