import { expect } from 'chai';
import fc from 'fast-check';
import { compareDecimal, isDecimal } from '../../schemas/decimal.ts';

/** A decimal as whole number and scale, and one of the ways to write it. */
const decimals = fc
  .record({
    unscaled: fc.oneof(fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n }), fc.bigInt({ min: -20n, max: 20n })),
    scale: fc.integer({ min: 0, max: 30 }),
    exponent: fc.option(fc.integer({ min: -30, max: 30 })),
    leading: fc.nat(3),
    trailing: fc.nat(3),
    plus: fc.boolean(),
    capital: fc.boolean(),
  })
  .map((parts) => ({ value: scaled(parts.unscaled, parts.scale, parts.exponent ?? 0), text: written(parts) }));

/** The value as a whole number of 1e-60. */
function scaled(unscaled: bigint, scale: number, exponent: number): bigint {
  return unscaled * 10n ** BigInt(60 - scale + exponent);
}

function written(parts: {
  unscaled: bigint;
  scale: number;
  exponent: number | null;
  leading: number;
  trailing: number;
  plus: boolean;
  capital: boolean;
}): string {
  const digits = String(parts.unscaled < 0n ? -parts.unscaled : parts.unscaled).padStart(parts.scale + 1, '0');
  const split = digits.length - parts.scale;
  const fraction = digits.slice(split) + '0'.repeat(parts.trailing);
  const sign = parts.unscaled < 0n ? '-' : parts.plus ? '+' : '';
  const exponent = parts.exponent === null ? '' : `${parts.capital ? 'E' : 'e'}${parts.exponent}`;
  return `${sign}${'0'.repeat(parts.leading)}${digits.slice(0, split)}${fraction === '' ? '' : `.${fraction}`}${exponent}`;
}

describe('decimals', () => {
  it('compare as scaled whole numbers do, however they are written', () => {
    fc.assert(
      fc.property(decimals, decimals, (a, b) => {
        const expected = a.value < b.value ? -1 : a.value > b.value ? 1 : 0;
        expect(Math.sign(compareDecimal(a.text, b.text) ?? NaN), `${a.text} ? ${b.text}`).to.equal(expected);
      }),
      { numRuns: 3000 },
    );
  });

  it('tell neighbours apart that are the same double', () => {
    expect(compareDecimal('9007199254740993', '9007199254740992')).to.be.greaterThan(0);
    expect(compareDecimal('0.1000000000000000055511151231257827', '0.1')).to.be.greaterThan(0);
    expect(compareDecimal('-9007199254740993', '-9007199254740992')).to.be.lessThan(0);
    expect(compareDecimal('999999999999.99', '999999999999.98')).to.be.greaterThan(0);
  });

  const examples: readonly (readonly [string, string, number])[] = [
    ['1.10', '1.1', 0],
    ['-0', '0', 0],
    ['-0.00e5', '0', 0],
    ['1e-20', '0', 1],
    ['1E5', '100000', 0],
    ['1e+21', '1000000000000000000000', 0],
    ['.5', '0.50', 0],
    ['5.', '5', 0],
    ['-1', '1', -1],
    ['-2', '-1', -1],
    ['1e999999999', '1e999999998', 1],
    [`${'9'.repeat(131_072)}.1`, `${'9'.repeat(131_072)}.10`, 0],
  ];
  for (const [a, b, expected] of examples) {
    it(`${a.slice(0, 30)} against ${b.slice(0, 30)}`, () => expect(Math.sign(compareDecimal(a, b) ?? NaN)).to.equal(expected));
  }

  for (const text of [
    '',
    '-',
    '.',
    '1..2',
    '1.2.3',
    'NaN',
    'Infinity',
    '-Infinity',
    '0x10',
    '1_000',
    ' 1',
    '1 ',
    '1e',
    '1e1.5',
    '1e9999999999',
    '--1',
    '١',
  ]) {
    it(`${JSON.stringify(text)} is no decimal and has no order`, () => {
      expect(isDecimal(text)).to.equal(false);
      expect(compareDecimal(text, '1')).to.equal(undefined);
      expect(compareDecimal('1', text)).to.equal(undefined);
    });
  }

  it('a long text that is no decimal is refused in linear time', () => {
    const started = performance.now();
    expect(isDecimal(`${'1'.repeat(500_000)}x`)).to.equal(false);
    expect(performance.now() - started).to.be.lessThan(2_000);
  });
});
