import type { SettingType } from '../pipeline/runtime/setting-types.ts';
import { tablesNamed } from '../schemas/subjects.ts';

/** For an option that may be given several times, or once with commas. */
export function listOf(
  check: (item: string) => boolean,
  expectation: string,
): (text: string, previous: readonly string[] | undefined) => readonly string[] {
  return (text, previous = []) => {
    const items = text
      .split(',')
      .map((item) => item.trim())
      .filter(Boolean);
    if (items.length === 0 || !items.every(check)) throw new Error(`must be ${expectation}`);
    return [...previous, ...items];
  };
}

/** Tables, separated by commas. */
export const tableNames = listOf((name) => tablesNamed(name).length > 0, 'names of tables: <schema>.<table>, or a name in "public"');

/** A stream sequence, from 1. */
export const sequence: SettingType<number> = {
  label: 'sequence',
  parse: (text) => {
    if (/^[1-9]\d{0,15}$/.test(text) && Number.isSafeInteger(Number(text))) return Number(text);
    throw new Error('must be a sequence number, from 1');
  },
};
