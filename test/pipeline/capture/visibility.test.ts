import { expect } from 'chai';
import fc from 'fast-check';
import { Visibility } from '../../../pipeline/capture/visibility.ts';

const low = (xid: bigint): number => Number(xid & 0xffffffffn);

describe('visibility of a transaction in a snapshot', () => {
  it('sees what ended before it, and nothing that was under way or came later', () => {
    const snapshot = new Visibility('100:110:103,105');
    expect([99, 100, 102, 104, 109].map((xid) => snapshot.sees(xid))).to.deep.equal([true, true, true, true, true]);
    expect([103, 105, 110, 111, 5_000].map((xid) => snapshot.sees(xid))).to.deep.equal([false, false, false, false, false]);
  });

  it('reads a snapshot without transactions under way', () => {
    const snapshot = new Visibility('100:100:');
    expect([snapshot.sees(99), snapshot.sees(100)]).to.deep.equal([true, false]);
  });

  it('gives each transaction its own epoch when the 32-bit numbers have wrapped around', () => {
    const wrapped = 7n << 32n;
    const snapshot = new Visibility(`${wrapped - 2n}:${wrapped + 5n}:${wrapped - 2n},${wrapped + 3n}`);
    expect(
      [0xfffffffe, 3].map((xid) => snapshot.sees(xid)),
      'under way',
    ).to.deep.equal([false, false]);
    expect(
      [0xfffffffd, 0xffffffff, 4].map((xid) => snapshot.sees(xid)),
      'ended',
    ).to.deep.equal([true, true, true]);
    expect(
      [5, 6].map((xid) => snapshot.sees(xid)),
      'later',
    ).to.deep.equal([false, false]);
  });

  it('agrees with whole numbers for every transaction within two thousand million of it', () => {
    const distances = fc.bigInt({ min: -0x7fff_0000n, max: 0x7fff_0000n });
    const cases = fc.record({
      xmax: fc.bigInt({ min: 1n << 33n, max: 1n << 40n }),
      width: fc.bigInt({ min: 0n, max: 50n }),
      open: fc.array(fc.bigInt({ min: 0n, max: 49n }), { maxLength: 5 }),
      distance: fc.oneof(distances, fc.bigInt({ min: -60n, max: 10n })),
    });
    fc.assert(
      fc.property(cases, ({ xmax, width, open, distance }) => {
        const xmin = xmax - width;
        const inProgress = open.map((n) => xmin + n).filter((xid) => xid < xmax);
        const xid = xmax + distance;
        const expected = xid < xmin || (xid < xmax && !inProgress.includes(xid));
        expect(new Visibility(`${xmin}:${xmax}:${inProgress.join(',')}`).sees(low(xid))).to.equal(expected);
      }),
    );
  });

  it('knows when all transactions below a number have ended, also those that it does not name', () => {
    const snapshot = new Visibility('100:110:100,105');
    expect([99n, 100n, 101n, 110n, 111n].map((xid) => snapshot.seesAllBelow(xid))).to.deep.equal([true, true, false, false, false]);
    // 112 may be under way: numbers from the upper bound on are never named.
    expect(new Visibility('110:110:').seesAllBelow(113n)).to.equal(false);
  });

  it('does not take another text for a snapshot', () => {
    expect(() => new Visibility('100')).to.throw('not a snapshot');
  });
});
