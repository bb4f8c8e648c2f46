import { expect } from 'chai';
import fc from 'fast-check';
import { longestDuration, parseDuration, printDuration } from '../../schemas/duration.ts';

describe('durations', () => {
  it('are a whole number and a unit, up to 366 days', () => {
    const micros = { '500ms': 500_000, '30s': 30_000_000, '5m': 300_000_000, '1h': 3_600_000_000, '2d': 172_800_000_000, '0': 0, '0s': 0 };
    for (const [text, expected] of Object.entries(micros)) expect(parseDuration(text), text).to.equal(expected);
    expect(parseDuration('366d')).to.equal(longestDuration);
    for (const text of ['', '5', '5 m', '-5m', '1.5h', '1h30m', '5M', '5us', '367d', '99999999999999999s', '٥m', '5m\n'])
      expect(parseDuration(text), text).to.equal(undefined);
  });

  it('are printed in the largest unit that holds them whole, and read back', () => {
    expect([90_000_000, 3_600_000_000, 0, 1_500_000, 172_800_000_000].map(printDuration)).to.deep.equal([
      '90s',
      '1h',
      '0s',
      '1500ms',
      '2d',
    ]);
    const whole = fc.nat(longestDuration / 1_000_000).map((n) => n * 1_000_000);
    fc.assert(
      fc.property(
        fc.oneof(
          whole,
          fc.nat(100_000).map((n) => n * 1_000),
        ),
        (n) => parseDuration(printDuration(n)) === n,
      ),
    );
  });
});
