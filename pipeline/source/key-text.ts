import { HeadwaterError } from '../runtime/errors.ts';
import type { ReadableTable } from './table-reader.ts';

/**
 * The text values of a primary key, as SQL takes them, from the key of an event.
 * @throws HeadwaterError `bad_key` when the columns are others
 */
export function keyTextsOf({ relation, comparisons }: ReadableTable, key: Readonly<Record<string, unknown>>): readonly string[] {
  return relation.key.map((i, n) => {
    const { name } = relation.columns[i]!;
    if (!(name in key)) throw new HeadwaterError('bad_key', `the key of ${relation.name} has other columns`);
    return textOf(key[name], comparisons[n]?.type === 'pg_catalog.bytea');
  });
}

function textOf(value: unknown, bytes: boolean): string {
  if (typeof value === 'string') return bytes ? `\\x${Buffer.from(value, 'base64').toString('hex')}` : value;
  if (Array.isArray(value)) return `{${value.map((item: unknown) => element(item, bytes)).join(',')}}`;
  // Numbers and booleans are spelled alike in both.
  return JSON.stringify(value);
}

function element(value: unknown, bytes: boolean): string {
  if (value === null) return 'NULL';
  if (Array.isArray(value)) return textOf(value, bytes);
  return `"${textOf(value, bytes).replaceAll(/["\\]/g, '\\$&')}"`;
}
