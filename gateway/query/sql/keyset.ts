import type { SqlKey } from './columns.ts';
import type { Parameters } from './parameters.ts';

/** A column of a total order. */
export interface SortKey extends SqlKey {
  readonly dir: 'asc' | 'desc';
  readonly notNull: boolean;
}

/** ORDER BY, with nulls where Postgres has them: last of `asc`, first of `desc`. */
export function orderSql(keys: readonly SortKey[]): string {
  return keys.map(({ sql, dir }) => (dir === 'asc' ? sql : `${sql} DESC`)).join(', ');
}

/**
 * The condition that a row comes after another in a total order with nulls in it. Null is above all values; `nothing IS NULL` is never
 * equal in a comparison of rows, so that form is taken only where there are none.
 * @param after texts of the other row's keys
 */
export function afterSql(keys: readonly SortKey[], after: readonly (string | null)[], parameters: Parameters): string {
  const [first] = keys;
  const uniform = keys.every(({ dir, notNull }, i) => dir === first!.dir && notNull && after[i] !== null);
  const sign = (dir: 'asc' | 'desc'): string => (dir === 'asc' ? '>' : '<');
  if (uniform) {
    const places = keys.map(({ cast }, i) => parameters.add(after[i]!, cast));
    if (keys.length === 1) return `${first!.sql} ${sign(first!.dir)} ${places[0]}`;
    return `(${keys.map(({ sql }) => sql).join(', ')}) ${sign(first!.dir)} (${places.join(', ')})`;
  }
  // Each value stands once in the list of parameters, however often in the text.
  const places = keys.map(({ cast }, i) => (after[i] === null ? undefined : parameters.add(after[i]!, cast)));
  const from = (i: number): string => {
    const { sql, dir, notNull } = keys[i]!;
    const place = places[i];
    const beyond =
      place === undefined
        ? dir === 'asc'
          ? undefined
          : `${sql} IS NOT NULL`
        : `${sql} ${sign(dir)} ${place}${dir === 'asc' && !notNull ? ` OR ${sql} IS NULL` : ''}`;
    if (i === keys.length - 1) return beyond ?? 'false';
    const tie = `${place === undefined ? `${sql} IS NULL` : `${sql} = ${place}`} AND (${from(i + 1)})`;
    return beyond === undefined ? tie : `${beyond} OR ${tie}`;
  };
  const place = places[0];
  // What an index can begin at.
  const bounded = place !== undefined && (first!.dir === 'desc' || first!.notNull);
  const bound = bounded ? `${first!.sql} ${first!.dir === 'asc' ? '>=' : '<='} ${place} AND ` : '';
  return `${bound}(${from(0)})`;
}
