import { expect } from 'chai';
import fc from 'fast-check';
import type { LiveRule } from '../../../../processors/alerts/engine/live-rule.ts';
import { Thresholds } from '../../../../processors/alerts/engine/thresholds.ts';

type Step = { readonly add: number } | { readonly from: number; readonly to: number } | { readonly remove: number };

const key = fc.integer({ min: 0, max: 50 });
const step: fc.Arbitrary<Step> = fc.oneof<fc.MaybeWeightedArbitrary<Step>[]>(
  { weight: 10, arbitrary: key.map((add) => ({ add })) },
  { weight: 2, arbitrary: fc.tuple(key, key).map(([a, b]) => ({ from: Math.min(a, b), to: Math.max(a, b) })) },
  { weight: 2, arbitrary: fc.nat().map((remove) => ({ remove })) },
);

describe('thresholds', () => {
  it('finds the rules of a range, whatever has come and gone in between', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 600, size: 'max' }), (steps) => {
        const thresholds = new Thresholds();
        const there: { at: number; rule: { gone: boolean } }[] = [];
        for (const one of steps) {
          if ('add' in one) {
            const rule = { gone: false };
            there.push({ at: one.add, rule });
            thresholds.add(one.add, rule as LiveRule);
          } else if ('remove' in one && there.length > 0) {
            const [{ rule }] = there.splice(one.remove % there.length, 1) as [(typeof there)[number]];
            rule.gone = true;
            thresholds.noteGone();
          } else if ('from' in one) {
            const found: object[] = [];
            thresholds.visit(one.from, one.to, (rule) => !rule.gone && found.push(rule));
            const expected = there.filter(({ at }) => at >= one.from && at <= one.to).map(({ rule }) => rule);
            expect(new Set(found)).to.deep.equal(new Set(expected));
            expect(found).to.have.length(expected.length);
            expect(thresholds.count(one.from, one.to)).to.be.at.least(expected.length);
          }
        }
        expect(thresholds.size).to.be.at.most(2 * there.length + 32);
      }),
    );
  });
});
