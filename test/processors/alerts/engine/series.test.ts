import { expect } from 'chai';
import fc from 'fast-check';
import { Series, type Sample } from '../../../../processors/alerts/engine/series.ts';

const window = 3_600_000_000;

/** Some bursts, some pauses: seconds between samples. */
const gaps = fc.array(
  fc.oneof({ weight: 30, arbitrary: fc.double({ min: 0, max: 0.5, noNaN: true }) }, fc.double({ min: 0, max: 900, noNaN: true })),
  {
    minLength: 9_000,
    maxLength: 12_000,
    size: 'max',
  },
);

describe('series of a window (7.2)', function () {
  this.timeout(60_000);

  it('gives the value as of then, at most a 2048th of the window too old; and a series that began later agrees', () => {
    fc.assert(
      fc.property(gaps, fc.nat(8_000), (seconds, later) => {
        const dropped = new Set<number>();
        const old = new Series(0, window);
        const young = new Series(0, window);
        const all: Sample[] = [];
        let at = 0;
        for (const [seq, gap] of seconds.entries()) {
          at += Math.round(gap * 1e6);
          const sample = { seq, at, value: seq };
          all.push(sample);
          for (const series of seq >= later ? [old, young] : [old]) {
            const drop = (one: Sample): unknown => series === old && dropped.add(one.seq);
            series.push(sample, drop);
            series.advance(at, drop);
          }
          const found = old.asOf(at);
          const exact = all.findLast((one) => one.at <= sample.at - window);
          if (exact === undefined) expect(found).to.equal(undefined);
          else {
            expect(found, 'is known').to.not.equal(undefined);
            expect(found!.at).to.be.at.most(exact.at);
            expect(exact.at - found!.at).to.be.at.most(Math.ceil(window / 2_048) + gapBefore(all, exact));
          }
          if (found && found.seq >= later) expect(young.asOf(at)).to.deep.equal(found);
          else expect(young.asOf(at)).to.equal(undefined);
        }
        const kept = [...old.samples()].map(({ seq }) => seq);
        expect(kept.length).to.be.at.most(4_096 + 2_048 + 2);
        expect(kept.length + dropped.size).to.equal(seconds.length);
      }),
      { numRuns: 5 },
    );
  });
});

/** How long the sample before stood. */
function gapBefore(all: readonly Sample[], sample: Sample): number {
  return sample.at - (all[sample.seq - 1]?.at ?? sample.at);
}
