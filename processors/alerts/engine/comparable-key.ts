import type { ColumnType } from '../../../schemas/condition/column-type.ts';
import { isDecimal } from '../../../schemas/decimal.ts';

/**
 * A double that stands for a value in the order of its column's type: never above that of a greater value, nor below that of a
 * smaller one; equal values have equal ones. NaN for what has no such number: text, null, missing.
 */
export function orderKey(type: ColumnType, value: unknown): number {
  if (!hasOrder(type) || value === null || value === undefined) return NaN;
  const read = type.read(value);
  switch (typeof read) {
    case 'number':
      // Not-a-number of Postgres is above everything.
      return Number.isNaN(read) ? Infinity : read;
    case 'bigint':
      return Number(read);
    case 'string':
      if (read === 'NaN') return Infinity;
      return isDecimal(read) || read === 'Infinity' || read === '-Infinity' ? Number(read) : NaN;
    default:
      return NaN;
  }
}

/** Do values of the type have a place among numbers? */
function hasOrder({ family }: ColumnType): boolean {
  return family === 'number' || family === 'time' || family === 'open';
}

/**
 * The key under which a constant of a condition is found by the values that equal it, among others perhaps; undefined when there is none.
 */
export function equalKey(type: ColumnType, constant: unknown): number | string | undefined {
  if (type.family === 'number' || type.family === 'time' || (type.family === 'open' && typeof constant === 'number')) {
    const key = orderKey(type, constant);
    return Number.isNaN(key) ? undefined : key;
  }
  // Of an open type, a text that is a decimal equals a number, too.
  if (type.family === 'tree' || (type.family === 'open' && isDecimal(String(constant)))) return undefined;
  const read = type.read(constant);
  return typeof read === 'string' ? read : undefined;
}

/** The keys under which the constants stand that a value can equal. */
export function equalKeys(type: ColumnType, value: unknown): readonly (number | string)[] {
  const number = orderKey(type, value);
  const keys: (number | string)[] = Number.isNaN(number) ? [] : [number];
  if (type.family === 'number' || type.family === 'time' || type.family === 'tree' || value === null || value === undefined) return keys;
  const read = type.read(value);
  if (typeof read === 'string') keys.push(read);
  return keys;
}
