import { canonicalDecimal, parseUnits, printUnits } from '../../../schemas/decimal-sum.ts';

/**
 * Logarithmic buckets: what falls into one differs by less than 1 % from its estimate. Counts of buckets can be added and
 * subtracted, so a sketch stays right when values go. (The idea is DDSketch's: Masson, Rim, Lee, VLDB 2019.)
 */

/** A little less than 1 %: logarithms and the estimate's digits are rounded. */
const accuracy = 0.0099;
const gamma = (1 + accuracy) / (1 - accuracy);
const logGamma = Math.log(gamma);
const zero = '0';

/** The bucket of a decimal: `0`, `p<index>` or, of negative ones, `n<index>`. */
export function bucketOf(value: string): string {
  const double = Number(value);
  const size = Math.abs(double);
  if (size > 1e-300 && size < 1e300) return `${double < 0 ? 'n' : 'p'}${Math.ceil(Math.log(size) / logGamma)}`;
  return bucketOfExtreme(value);
}

/** Beyond the range of doubles. */
function bucketOfExtreme(value: string): string {
  const text = canonicalDecimal(value) ?? zero;
  if (text === zero) return zero;
  const negative = text.startsWith('-');
  const [whole = '', fraction = ''] = (negative ? text.slice(1) : text).split('.');
  const digits = (whole + fraction).replace(/^0+/, '');
  const magnitude = whole === zero ? digits.length - fraction.length : whole.length;
  const log = Math.log(Number(`0.${digits.slice(0, 17)}`)) + magnitude * Math.LN10;
  return `${negative ? 'n' : 'p'}${Math.ceil(log / logGamma)}`;
}

/** The estimate for the values of a bucket, as decimal text. */
export function estimateOf(bucket: string): string {
  if (bucket === zero) return zero;
  const log10 = (indexOf(bucket) * logGamma + Math.log(2 / (gamma + 1))) / Math.LN10;
  const exponent = Math.floor(log10);
  const units = parseUnits(`${(10 ** (log10 - exponent)).toPrecision(6)}e${exponent}`);
  return `${bucket.startsWith('n') ? '-' : ''}${units ? printUnits(units) : zero}`;
}

/** Sorts buckets by their values. */
export function compareBuckets(a: string, b: string): number {
  return rankOf(a) - rankOf(b) || (a.startsWith('n') ? indexOf(b) - indexOf(a) : indexOf(a) - indexOf(b));
}

function rankOf(bucket: string): number {
  return bucket === zero ? 0 : bucket.startsWith('n') ? -1 : 1;
}

function indexOf(bucket: string): number {
  return bucket === zero ? 0 : Number(bucket.slice(1));
}
