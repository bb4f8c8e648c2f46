import { isDecimal } from './decimal.ts';

/** A finite decimal as a whole number of 10^-scale, without zeros at its end; a `number` when it has at most 15 digits. */
export interface Units {
  readonly units: number | bigint;
  /** From 0. */
  readonly scale: number;
}

/** A longer number is beyond what Postgres holds, and would only cost memory. */
const largestExponent = 150_000;
/** Numbers of up to 15 digits are exact as doubles, and so are these powers of ten. */
const shortDigits = 15;
const powers = Array.from({ length: 23 }, (_, exponent) => 10 ** exponent);

/** Takes a decimal apart: `1.10` is 11 of 10^-1. Undefined when the text is none (`NaN`, `Infinity`, other text). */
export function parseUnits(text: string): Units | undefined {
  return text.length <= shortDigits ? (parseShort(text) ?? parseLong(text)) : parseLong(text);
}

function parseShort(text: string): Units | undefined {
  const negative = text.charCodeAt(0) === 45;
  let units = 0;
  let point = -1;
  const start = negative ? 1 : 0;
  for (let i = start; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (digit >= 0 && digit <= 9) units = units * 10 + digit;
    else if (digit === -2 && point < 0) point = i;
    else return undefined;
  }
  if (text.length - start - (point < 0 ? 0 : 1) === 0) return undefined;
  let scale = point < 0 ? 0 : text.length - point - 1;
  while (scale > 0 && units % 10 === 0) {
    units /= 10;
    scale--;
  }
  return { units: negative && units !== 0 ? -units : units, scale };
}

function parseLong(text: string): Units | undefined {
  if (!isDecimal(text)) return undefined;
  const [mantissa = '', exponentText = '0'] = text.toLowerCase().split('e');
  const exponent = Number(exponentText);
  if (Math.abs(exponent) > largestExponent) return undefined;
  const [whole = '', fraction = ''] = mantissa.replace('+', '').split('.');
  const digits = whole + fraction;
  const end = endOfDigits(digits);
  let scale = fraction.length - exponent - (digits.length - end);
  let units = BigInt(digits.slice(0, end) === '' || digits.slice(0, end) === '-' ? 0 : digits.slice(0, end));
  if (units === 0n) return { units: 0, scale: 0 };
  if (scale < 0) {
    units *= 10n ** BigInt(-scale);
    scale = 0;
  }
  return { units: small(units), scale };
}

/** Where the digits end without the zeros at their end. */
function endOfDigits(digits: string): number {
  let end = digits.length;
  while (end > 0 && digits.charCodeAt(end - 1) === 48) end--;
  return end;
}

/** Prints a decimal without exponent and without needless zeros. The same value gives the same text. */
export function printUnits({ units, scale }: Units): string {
  const text = String(units);
  if (scale === 0) return text;
  const negative = text.startsWith('-');
  const digits = (negative ? text.slice(1) : text).padStart(scale + 1, '0');
  const end = Math.max(digits.length - scale, endOfDigits(digits));
  const split = digits.length - scale;
  const plain = end === split ? digits.slice(0, split) : `${digits.slice(0, split)}.${digits.slice(split, end)}`;
  return negative ? `-${plain}` : plain;
}

/** A decimal in its one plain spelling: `1.10` is `1.1`, `1e3` is `1000`. Undefined when the text is none. */
export function canonicalDecimal(text: string): string | undefined {
  const units = parseUnits(text);
  return units && printUnits(units);
}

/** An exact sum of decimals, from which can be subtracted, too. */
export class DecimalSum {
  #units: number | bigint;
  #scale: number;

  /** @param text what to begin with, a finite decimal */
  constructor(text = '0') {
    const { units, scale } = parseUnits(text) ?? { units: 0, scale: 0 };
    this.#units = units;
    this.#scale = scale;
  }

  add(value: Units): void {
    if (!this.#addShort(value.units, value.scale)) this.#addLong(BigInt(value.units), value.scale);
  }

  subtract(value: Units): void {
    if (!this.#addShort(-value.units, value.scale)) this.#addLong(-BigInt(value.units), value.scale);
  }

  /** Without exponent and needless zeros: the same sum gives the same text. */
  toString(): string {
    return printUnits({ units: this.#units, scale: this.#scale });
  }

  /** False when doubles could not hold it. */
  #addShort(units: number | bigint, scale: number): boolean {
    if (typeof units !== 'number' || typeof this.#units !== 'number') return false;
    const more = scale - this.#scale;
    if (more === 0) return this.#take(this.#units + units, scale);
    if (more > 22 || more < -22) return false;
    const [left, right] = more > 0 ? [this.#units * powers[more]!, units] : [this.#units, units * powers[-more]!];
    return Number.isSafeInteger(left) && Number.isSafeInteger(right) && this.#take(left + right, Math.max(scale, this.#scale));
  }

  #take(units: number, scale: number): boolean {
    if (!Number.isSafeInteger(units)) return false;
    // Not -0: it would be printed.
    this.#units = units + 0;
    this.#scale = scale;
    return true;
  }

  #addLong(units: bigint, scale: number): void {
    const to = Math.max(scale, this.#scale);
    const own = BigInt(this.#units) * 10n ** BigInt(to - this.#scale);
    this.#units = small(own + units * 10n ** BigInt(to - scale));
    this.#scale = to;
  }
}

/**
 * A decimal divided by a whole number, rounded half away from zero to so many decimals, without needless zeros.
 * @param sum a finite decimal
 * @param count from 1
 */
export function divideDecimal(sum: string, count: number, decimals = 16): string {
  const { units, scale } = parseUnits(sum) ?? { units: 0, scale: 0 };
  const negative = units < 0;
  const magnitude = negative ? -BigInt(units) : BigInt(units);
  const divisor = BigInt(count) * 10n ** BigInt(scale);
  const quotient = (magnitude * 10n ** BigInt(decimals) * 2n + divisor) / (divisor * 2n);
  const text = printUnits({ units: quotient, scale: decimals });
  return negative && quotient !== 0n ? `-${text}` : text;
}

function small(units: bigint): number | bigint {
  return units >= -999_999_999_999_999n && units <= 999_999_999_999_999n ? Number(units) : units;
}
