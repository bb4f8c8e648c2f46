import { isDecimal } from '../decimal.ts';

/** A decimal as an integer and a power of ten. */
interface Scaled {
  readonly digits: bigint;
  readonly exponent: number;
}

/** Decimals beyond these powers of ten are not taken apart: their digits would fill the memory. */
const farthest = 200_000;

/**
 * Compares the change from `then` to `now`, in percent of the amount of `then`, with a number of percent: negative, 0 or
 * positive. Exact, also for numerics of any length. Of a negative `then`, a change upwards is positive, too.
 * @returns undefined when one is no finite decimal, or `then` is 0
 */
export function comparePercent(now: string | number, then: string | number, percent: string | number): number | undefined {
  return roughly(Number(now), Number(then), Number(percent)) ?? exactly(String(now), String(then), String(percent));
}

/** The answer when doubles can tell; undefined when the two are too near to each other, or one is no finite double. */
function roughly(now: number, then: number, percent: number): number | undefined {
  if (then === 0) return undefined;
  const change = ((now - then) / Math.abs(then)) * 100;
  const difference = change - percent;
  // Each rounding is below 2^-52 of what it rounds; the two differ by more than all of them together could make up.
  const noise = (Math.abs(now / then) + 1) * 100 + Math.abs(percent);
  return Number.isFinite(difference) && Math.abs(difference) > noise * 1e-12 ? difference : undefined;
}

function exactly(now: string, then: string, percent: string): number | undefined {
  const [a, b, p] = [scaled(now), scaled(then), scaled(percent)];
  if (!a || !b || !p || b.digits === 0n) return undefined;
  // (now − then) × 100 against percent × |then|, all as integers of one power of ten.
  const exponent = Math.min(a.exponent, b.exponent, b.exponent + p.exponent);
  const [present, past] = [shifted(a, exponent), shifted(b, exponent)];
  const product = shifted({ digits: p.digits * (b.digits < 0n ? -b.digits : b.digits), exponent: p.exponent + b.exponent }, exponent);
  const difference = (present - past) * 100n - product;
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}

function scaled(text: string): Scaled | undefined {
  if (!isDecimal(text)) return undefined;
  const [mantissa = '', exponent = '0'] = text.toLowerCase().split('e');
  const [whole = '', fraction = ''] = mantissa.split('.');
  const negative = whole.startsWith('-');
  const digits = BigInt(`${whole.replace(/^[+-]/u, '')}${fraction}`);
  const power = Number(exponent) - fraction.length;
  return Math.abs(power) > farthest ? undefined : { digits: negative ? -digits : digits, exponent: power };
}

function shifted({ digits, exponent }: Scaled, to: number): bigint {
  return digits * 10n ** BigInt(exponent - to);
}
