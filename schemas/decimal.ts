/**
 * Exact comparison of decimal numbers that are given as text. Values travel as text because Postgres numerics have up to
 * 131,072 digits before the point and 16,383 behind it; a double holds 15 of them.
 */

/** A finite decimal taken apart: its value is `sign × 0.digits × 10^magnitude`; `digits` has no zeros around it. */
interface Decimal {
  readonly sign: -1 | 0 | 1;
  readonly digits: string;
  readonly magnitude: number;
}

/** Exponents of up to nine digits, so that positions stay exact as numbers; a longer one is not taken for a decimal. */
const pattern = /^([+-]?)(?:(\d+)(?:\.(\d*))?|\.(\d+))(?:[eE]([+-]?\d{1,9}))?$/;

/** Up to this length a plain decimal has at most 15 digits, and different ones are different doubles, in the same order. */
const shortLength = 15;

/** Is the text a finite decimal: `12`, `-0.50`, `.5`, `1e-20`? */
export function isDecimal(text: string): boolean {
  return pattern.test(text);
}

/**
 * Compares two decimals exactly: negative, 0 or positive, as `a` is less than, equal to or greater than `b`.
 * Undefined when one of them is not a finite decimal (`NaN`, `Infinity`, other text): such values have no place in an order here.
 */
export function compareDecimal(a: string, b: string): number | undefined {
  const x = shortNumber(a);
  if (x !== undefined) {
    const y = shortNumber(b);
    if (y !== undefined) return x - y;
  }
  const left = parse(a);
  const right = left && parse(b);
  return right && compare(left, right);
}

function compare(a: Decimal, b: Decimal): number {
  if (a.sign !== b.sign) return a.sign - b.sign;
  if (a.magnitude !== b.magnitude) return a.magnitude < b.magnitude ? -a.sign : a.sign;
  // Fractions of the same magnitude compare like text: a prefix is the smaller one.
  if (a.digits === b.digits) return 0;
  return a.digits < b.digits ? -a.sign : a.sign;
}

function parse(text: string): Decimal | undefined {
  const match = pattern.exec(text);
  if (!match) return undefined;
  const whole = match[2] ?? '';
  const digits = whole + (match[3] ?? match[4] ?? '');
  const start = firstNonZero(digits);
  if (start === digits.length) return { sign: 0, digits: '', magnitude: 0 };
  let end = digits.length;
  while (digits.charCodeAt(end - 1) === 48) end--;
  const magnitude = whole.length - start + Number(match[5] ?? 0);
  return { sign: match[1] === '-' ? -1 : 1, digits: digits.slice(start, end), magnitude };
}

function firstNonZero(digits: string): number {
  let i = 0;
  while (digits.charCodeAt(i) === 48) i++;
  return i;
}

/** The number, if the text is a plain decimal (no exponent, no plus sign) that is short enough to be compared as a double. */
function shortNumber(text: string): number | undefined {
  if (text.length > shortLength) return undefined;
  let points = 0;
  let digits = 0;
  for (let i = text.charCodeAt(0) === 45 ? 1 : 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code >= 48 && code <= 57) digits++;
    else if (code === 46) points++;
    else return undefined;
  }
  return digits > 0 && points < 2 ? Number(text) : undefined;
}
