import { expect } from 'chai';
import fc from 'fast-check';
import { canonicalDecimal, DecimalSum, divideDecimal, parseUnits } from '../../schemas/decimal-sum.ts';

/** A decimal as text, and as a whole number of 1e-80. */
const decimals = fc
  .record({
    unscaled: fc.oneof(fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n }), fc.integer({ min: -999, max: 999 }).map(BigInt)),
    scale: fc.integer({ min: 0, max: 40 }),
    exponent: fc.option(fc.integer({ min: -40, max: 40 }), { nil: 0 }),
    zeros: fc.nat(3),
  })
  .map(({ unscaled, scale, exponent, zeros }) => {
    const digits = String(unscaled < 0n ? -unscaled : unscaled).padStart(scale + 1, '0');
    const split = digits.length - scale;
    const fraction = digits.slice(split) + '0'.repeat(zeros);
    const text = `${unscaled < 0n ? '-' : ''}${digits.slice(0, split)}${fraction === '' ? '' : `.${fraction}`}${exponent === 0 ? '' : `e${exponent}`}`;
    return { text, value: unscaled * 10n ** BigInt(80 - scale + exponent) };
  });

/** Plain text of a whole number of 1e-80. */
function plain(value: bigint): string {
  const digits = String(value < 0n ? -value : value).padStart(81, '0');
  const text = `${digits.slice(0, -80)}.${digits.slice(-80)}`.replace(/0+$/, '').replace(/\.$/, '');
  return value < 0n ? `-${text}` : text;
}

describe('exact sums of decimals', () => {
  it('are what whole numbers give, whatever is added and taken out again', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(decimals, fc.boolean()), { maxLength: 20 }), (steps) => {
        const sum = new DecimalSum();
        let expected = 0n;
        for (const [{ text, value }, out] of steps) {
          if (out) sum.subtract(parseUnits(text)!);
          else sum.add(parseUnits(text)!);
          expected += out ? -value : value;
          expect(sum.toString()).to.equal(plain(expected));
        }
        expect(new DecimalSum(sum.toString()).toString()).to.equal(sum.toString());
      }),
    );
  });

  it('give each value one spelling', () => {
    fc.assert(
      fc.property(decimals, ({ text, value }) => {
        expect(canonicalDecimal(text)).to.equal(plain(value));
      }),
    );
    expect(['-0', '-0.00', '.5', '+5.', '007'].map(canonicalDecimal)).to.deep.equal(['0', '0', '0.5', '5', '7']);
  });

  it('take nothing that is no finite decimal, or that nobody could print', () => {
    for (const text of ['', '-', '.', 'NaN', 'Infinity', '1e', '$1.50', '1,5', '1e999999', ' 1', '0x10'])
      expect(parseUnits(text), text).to.equal(undefined);
  });

  it('are divided and rounded half away from zero to 16 decimals', () => {
    const cases: [string, number, string][] = [
      ['10', 4, '2.5'],
      ['-2', 3, '-0.6666666666666667'],
      ['0.0000000000000001', 2, '0.0000000000000001'],
      ['-0.0000000000000001', 2, '-0.0000000000000001'],
      ['0.0000000000000001', 3, '0'],
      ['-0.0000000000000001', 3, '0'],
      ['300000000000000000000000', 3, '100000000000000000000000'],
    ];
    for (const [sum, count, expected] of cases) expect(divideDecimal(sum, count), `${sum} / ${count}`).to.equal(expected);
  });
});
