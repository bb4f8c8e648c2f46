import { HeadwaterError } from '../runtime/errors.ts';
import type { ReadableTable } from './table-reader.ts';
import type { ValueType } from './types.ts';

/**
 * The text values of a primary key, as SQL takes them, from the key of an event.
 * @throws HeadwaterError `bad_key` when the columns are others
 */
export function keyTextsOf({ relation }: Pick<ReadableTable, 'relation'>, key: Readonly<Record<string, unknown>>): readonly string[] {
  return relation.key.map((i) => {
    const { name, type } = relation.columns[i]!;
    if (!(name in key)) throw new HeadwaterError('bad_key', `the key of ${relation.name} has other columns`);
    return textOf(key[name], type);
  });
}

/** By the type and not by the value: an array is one of jsonb or one of Postgres, and a string may be base64. */
function textOf(value: unknown, { json, bytes, element }: ValueType): string {
  if (json) return JSON.stringify(value);
  if (element && Array.isArray(value)) return arrayText(value, element);
  // An array whose bounds begin elsewhere is a string too, as Postgres prints it.
  if (typeof value === 'string') return bytes ? `\\x${Buffer.from(value, 'base64').toString('hex')}` : value;
  // Numbers and booleans are spelled alike in both.
  return JSON.stringify(value);
}

function arrayText(values: readonly unknown[], element: ValueType): string {
  return `{${values.map((value) => elementText(value, element)).join(',')}}`;
}

function elementText(value: unknown, type: ValueType): string {
  if (value === null) return 'NULL';
  // A further dimension; an array within an array, by way of a domain, is a quoted text.
  if (Array.isArray(value) && !type.json && !type.element) return arrayText(value, type);
  return `"${textOf(value, type).replaceAll(/["\\]/g, '\\$&')}"`;
}
