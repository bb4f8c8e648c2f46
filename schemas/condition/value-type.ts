import { compareDecimal, isDecimal } from '../decimal.ts';
import type { Scalar } from './condition.ts';
import { parseMoment, type Instant } from './instant.ts';

/** A value in the form in which its type compares it. */
export type Comparable = string | number | bigint | boolean;

/** How values of a type are checked, read and compared. */
export interface ValueType {
  /** Why the value cannot be compared with this column, as the end of a sentence (`is …`); undefined when it can. */
  refuse(value: Scalar): string | undefined;
  /** The comparable form of a value of the column or of a condition; undefined for null, missing, and what is not of the type. */
  read(value: unknown): Comparable | undefined;
  /** Negative, 0 or positive; undefined when one is not of the type. Both come from `read`. */
  order(a: Comparable, b: Comparable): number | undefined;
}

/** Values that decimals do not have, by their places in the order of Postgres. */
const specials: ReadonlyMap<Comparable, number> = new Map([
  ['-Infinity', -1],
  ['Infinity', 1],
  ['NaN', 2],
]);

/** As Postgres orders numerics: NaN above everything, and equal to itself. Undefined when one is no number. */
function orderNumeric(a: Comparable, b: Comparable): number | undefined {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  const order = compareDecimal(String(a), String(b));
  if (order !== undefined) return order;
  const [left, right] = [rank(a), rank(b)];
  return left === undefined || right === undefined ? undefined : left - right;
}

function rank(value: Comparable): number | undefined {
  return specials.get(value) ?? (isDecimal(String(value)) ? 0 : undefined);
}

function readNumeric(value: unknown): Comparable | undefined {
  if (typeof value === 'number') return Number.isFinite(value) ? value : undefined;
  return typeof value === 'string' ? value : undefined;
}

/** What a numeric of Postgres has room for: digits before the point, and behind it. */
const [mostWhole, mostFraction] = [131_072, 16_383];
/** A decimal in a condition is no longer than this. */
const longestDecimal = 1_000;

/** Why this is no usable decimal; undefined when it is. */
function refuseDecimal(value: Scalar, special: boolean): string | undefined {
  if (typeof value === 'number') return undefined;
  if (typeof value === 'boolean') return `${value}, and must be a number`;
  if (special && specials.has(value)) return undefined;
  if (!isDecimal(value)) return `${quote(value)}, and must be a number`;
  if (value.length > longestDecimal) return `a number of ${value.length} characters, more than the ${longestDecimal} that are allowed`;
  const exponent = Number(/e(.*)$/iu.exec(value)?.[1] ?? 0);
  // Whatever the digits are: within these bounds Postgres can hold the number.
  const far = exponent > mostWhole - longestDecimal || exponent < longestDecimal - mostFraction;
  return far ? `${value}, beyond what Postgres can hold` : undefined;
}

export function integer(low: string, high: string): ValueType {
  return {
    refuse(value) {
      const fault = refuseDecimal(value, false);
      if (fault !== undefined) return fault;
      const text = String(value);
      if (!isWhole(text)) return `${text}, and must be a whole number`;
      const inside = compareDecimal(text, low)! >= 0 && compareDecimal(text, high)! <= 0;
      return inside ? undefined : `${text}, and must be between ${low} and ${high}`;
    },
    read: readNumeric,
    order: orderNumeric,
  };
}

/** Has the decimal nothing but zeros behind its point? */
function isWhole(text: string): boolean {
  const [mantissa = '', exponent = '0'] = text.toLowerCase().split('e');
  const [, fraction = ''] = mantissa.split('.');
  const digits = mantissa.replace(/[^0-9]/gu, '');
  const behind = fraction.length - Number(exponent);
  return behind <= 0 || /^0*$/u.test(digits.slice(-behind));
}

export const exact: ValueType = { refuse: (value) => refuseDecimal(value, true), read: readNumeric, order: orderNumeric };

/** @param round to what the type can hold: `Math.fround` for real */
export function float(round: (value: number) => number): ValueType {
  return {
    refuse(value) {
      const fault = refuseDecimal(value, true);
      if (fault !== undefined || specials.has(value)) return fault;
      const rounded = round(Number(value));
      const lost = rounded === 0 && compareDecimal(String(value), '0') !== 0;
      return lost || !Number.isFinite(rounded) ? `${value}, beyond what the type can hold` : undefined;
    },
    read(value) {
      if (typeof value === 'number') return round(value);
      if (typeof value !== 'string') return undefined;
      return isDecimal(value) || specials.has(value) ? round(Number(value)) : undefined;
    },
    order(a, b) {
      if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
      return orderOf(a, b);
    },
  };
}

function orderOf(a: Comparable, b: Comparable): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** By code points: UTF-16 puts those above U+FFFF before some of those below. */
function orderText(a: Comparable, b: Comparable): number {
  const [left, right] = [String(a), String(b)];
  if (left === right) return 0;
  const length = Math.min(left.length, right.length);
  let i = 0;
  while (i < length && left.charCodeAt(i) === right.charCodeAt(i)) i++;
  if (i === length) return left.length - right.length;
  return place(left.charCodeAt(i)) - place(right.charCodeAt(i));
}

/** Surrogates stand above all other units. */
function place(unit: number): number {
  return unit >= 0xd800 && unit < 0xe000 ? unit + 0x1_0000 : unit;
}

/** The longest text in a condition, in UTF-16 units. */
const longestText = 8_192;

/** Why Postgres could not take this as text; undefined when it can. */
function refuseText(value: Scalar): string | undefined {
  if (typeof value !== 'string') return `${value}, and must be text: "${value}"`;
  if (value.length > longestText) return `a text of ${value.length} characters, more than the ${longestText} that are allowed`;
  if (value.includes('\0')) return 'a text with a NUL character, which Postgres cannot hold';
  return /\p{Surrogate}/u.test(value) ? 'no valid Unicode: it has half of a surrogate pair' : undefined;
}

function readText(value: unknown): Comparable | undefined {
  return typeof value === 'string' ? value : undefined;
}

export const text: ValueType = { refuse: refuseText, read: readText, order: orderText };
export const padded: ValueType = {
  ...text,
  read: (value) => (typeof value === 'string' ? value.replace(/ +$/u, '') : undefined),
};

const uuidForm = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/iu;
export const uuid: ValueType = {
  refuse: (value) => (typeof value === 'string' && uuidForm.test(value) ? undefined : `${quote(value)}, and must be a UUID`),
  read: (value) => (typeof value === 'string' ? value.toLowerCase() : undefined),
  order: orderOf,
};

export const boolean: ValueType = {
  refuse: (value) => (typeof value === 'boolean' ? undefined : `${quote(value)}, and must be true or false`),
  read: (value) => (typeof value === 'boolean' ? value : undefined),
  order: orderOf,
};

/** @param zone may the text name a zone; @param time must it be without a time of day */
export function moment(zone: boolean, dateOnly: boolean): ValueType {
  const form = dateOnly
    ? 'a date like 2026-11-22'
    : zone
      ? 'a time like 2026-11-22T12:00:00Z'
      : 'a time without zone like 2026-11-22T12:00:00';
  return {
    refuse(value) {
      const read = typeof value === 'string' ? parseMoment(value) : undefined;
      const fits = read && (zone || !read.zone) && !(dateOnly && read.hasTime);
      return fits ? undefined : `${quote(value)}, and must be ${form}`;
    },
    read: (value): Instant | undefined => (typeof value === 'string' ? parseMoment(value)?.instant : undefined),
    order: orderOf,
  };
}

const timeForm = /^(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,6})?)?$/u;
export const timeOfDay: ValueType = {
  refuse: (value) =>
    typeof value === 'string' && timeForm.test(value) ? undefined : `${quote(value)}, and must be a time of day like 12:30:00`,
  // Of fixed width but for the fraction and left-out seconds: then text order is time order.
  read: (value) => (typeof value === 'string' ? (value.length === 5 ? `${value}:00` : value).replace(/\.?0+$/u, trimFraction) : undefined),
  order: orderOf,
};

/** `12:00:00.500` is `12:00:00.5`, but the zeros of `12:00:00` stay. */
function trimFraction(zeros: string, at: number, whole: string): string {
  return whole.includes('.') ? '' : zeros;
}

/** Some are numbers in JSON (xid). */
export const printed: ValueType = { ...text, read: (value) => (typeof value === 'number' ? String(value) : readText(value)) };

export const tree: ValueType = {
  refuse: () => 'given, but columns of this type compare with nothing',
  // Postgres prints the same json the same way, but for json itself: `changed` then sees a change of its spelling, too.
  read: (value) => (value === undefined ? undefined : JSON.stringify(value)),
  order: orderOf,
};

/** For a type that is not known: the value in the condition says how to compare. */
export const open: ValueType = {
  refuse: (value) => (typeof value === 'string' ? refuseText(value) : undefined),
  read: (value) => (typeof value === 'object' ? undefined : (value as Comparable | undefined)),
  order(a, b) {
    if (typeof a === 'boolean' || typeof b === 'boolean') return typeof a === typeof b ? orderOf(a, b) : undefined;
    // A number in the row or in the condition: both must be decimals. Two texts are texts, whatever they look like.
    return typeof a === 'number' || typeof b === 'number' ? orderNumeric(a, b) : orderText(a, b);
  },
};

function quote(value: Scalar): string {
  return typeof value === 'string' ? JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value) : String(value);
}
