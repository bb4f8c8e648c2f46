import { bareTypeName, columnType, type ColumnTypes } from '../condition/column-type.ts';
import type { Comparison, Condition, Scalar } from '../condition/condition.ts';
import type { Instant } from '../condition/instant.ts';

/**
 * The normal form of a query's condition: conditions that differ only in the order of parts or of lists, in parentheses, or in how a
 * value is spelled become the same. Every value but a boolean is text then.
 * @param condition a checked one
 */
export function normalCondition(condition: Condition, columns: ColumnTypes): Condition {
  if ('and' in condition) return series('and', condition.and, columns);
  if ('or' in condition) return series('or', condition.or, columns);
  if ('not' in condition) return { not: normalCondition(condition.not, columns) };
  return comparison(condition, columns);
}

function series(word: 'and' | 'or', parts: readonly Condition[], columns: ColumnTypes): Condition {
  const flat = parts
    .map((part) => normalCondition(part, columns))
    .flatMap((part): readonly Condition[] => (word in part ? (part as Readonly<Record<string, readonly Condition[]>>)[word]! : [part]));
  const byText = new Map(flat.map((part) => [JSON.stringify(part), part]));
  const sorted = [...byText.keys()].sort().map((text) => byText.get(text)!);
  if (sorted.length === 1) return sorted[0]!;
  return word === 'and' ? { and: sorted } : { or: sorted };
}

function comparison({ field, op, value }: Comparison, columns: ColumnTypes): Comparison {
  const type = columns.get(field)!;
  if (op === 'is_null') return { field, op, value: value !== false };
  if (op === 'like' || op === 'ilike') return { field, op, value: value as string };
  if (!Array.isArray(value)) return { field, op, value: spelling(value as Scalar, type) };
  const values = (value as readonly Scalar[]).map((one) => spelling(one, type));
  if (op === 'between') return { field, op, value: values };
  const different = [...new Set(values)].sort((a, b) => (String(a) < String(b) ? -1 : 1));
  if (different.length > 1) return { field, op, value: different };
  return { field, op: op === 'in' ? 'eq' : 'ne', value: different[0]! };
}

/** A value of a type in the one spelling that stands for all that compare as equal to it. */
function spelling(value: Scalar, typeName: string): Scalar {
  const type = columnType(typeName);
  const read = type.read(value);
  switch (type.family) {
    case 'number':
      return bareTypeName(typeName) === 'real' || bareTypeName(typeName) === 'double precision'
        ? String((read as number) + 0)
        : plainDecimal(String(value));
    case 'time':
      return bareTypeName(typeName) === 'time without time zone' ? (read as string) : printMoment(read as Instant, typeName);
    case 'boolean':
      return value;
    default:
      return read === undefined ? value : (read as Scalar);
  }
}

/** A decimal without exponent, plus sign and needless zeros; NaN and infinities as they are. One that would be very long keeps an exponent. */
function plainDecimal(text: string): string {
  const match = /^([+-]?)(\d*)\.?(\d*)(?:e([+-]?\d+))?$/iu.exec(text);
  if (!match) return text;
  const [, sign, whole = '', fraction = '', exponent = '0'] = match;
  const digits = (whole + fraction).replace(/^0+/u, '').replace(/0+$/u, '');
  if (digits === '') return '0';
  const trailing = (whole + fraction).length - (whole + fraction).replace(/0+$/u, '').length;
  // The value is digits × 10^power.
  const power = Number(exponent) - fraction.length + trailing;
  return (sign === '-' ? '-' : '') + placed(digits, power);
}

function placed(digits: string, power: number): string {
  if (Math.abs(power) > 1_000) return `${digits}e${power}`;
  if (power >= 0) return digits + '0'.repeat(power);
  const padded = digits.padStart(1 - power, '0');
  return `${padded.slice(0, power)}.${padded.slice(power)}`;
}

const dayMicros = 86_400_000_000n;
/** The calendar repeats itself after so many days. */
const cycleDays = 146_097n;

/** A moment as Postgres prints it in UTC: `2026-11-22 12:00:00.5+00`, of a date `2026-11-22`. */
export function printMoment(instant: Instant, typeName: string): string {
  if (instant === Infinity) return 'infinity';
  if (instant === -Infinity) return '-infinity';
  const micros = BigInt(instant);
  const days = (micros - modulo(micros, dayMicros)) / dayMicros;
  const cycle = (days - modulo(days, cycleDays)) / cycleDays;
  const date = new Date(Number(days - cycle * cycleDays) * 86_400_000);
  const year = date.getUTCFullYear() + Number(cycle) * 400;
  const monthAndDay = date.toISOString().slice(4, 10);
  const day = `${String(year > 0 ? year : 1 - year).padStart(4, '0')}${monthAndDay}`;
  const era = year > 0 ? '' : ' BC';
  const bare = bareTypeName(typeName);
  if (bare === 'date') return day + era;
  const rest = modulo(micros, dayMicros);
  const time = new Date(Number(rest / 1_000_000n) * 1_000).toISOString().slice(11, 19);
  const fraction = String(rest % 1_000_000n)
    .padStart(6, '0')
    .replace(/0+$/u, '');
  return `${day} ${time}${fraction === '' ? '' : `.${fraction}`}${bare === 'timestamp with time zone' ? '+00' : ''}${era}`;
}

function modulo(a: bigint, b: bigint): bigint {
  return ((a % b) + b) % b;
}
