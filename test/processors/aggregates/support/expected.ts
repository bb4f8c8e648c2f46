import type { PgClient } from '../../../../pipeline/clients/postgres.ts';
import type { Definition } from '../../../../processors/aggregates/model.ts';
import { canonicalDecimal } from '../../../../schemas/decimal-sum.ts';
import type { StoredWindow } from './stored-windows.ts';

/** A window as SQL computes it; decimals without needless zeros. */
export interface ExpectedWindow {
  readonly level: string;
  readonly group: string;
  readonly index: number;
  readonly count: number;
  readonly sum: string;
  readonly min: string;
  readonly max: string;
  readonly open: string;
  readonly close: string;
  readonly p50: string;
  readonly p90: string;
  readonly p99: string;
}

/**
 * What a definition's windows should be.
 * @param from table or query with the definition's columns
 * @param id what orders values of one time
 */
export async function expectedWindows(client: PgClient, definition: Definition, from: string, id: string): Promise<ExpectedWindow[]> {
  const { by, value = '0', time, levels } = definition;
  const all: ExpectedWindow[] = [];
  for (const { text, micros } of levels) {
    const ordered = (direction: string): string => `(array_agg(v ORDER BY t ${direction}, id ${direction}))[1]`;
    const percentile = (p: number): string => `percentile_disc(${p}) WITHIN GROUP (ORDER BY v)`;
    const { rows } = await client.query<Record<keyof ExpectedWindow, string>>(
      `SELECT "group", index::text, count(v)::text AS count, trim_scale(sum(v))::text AS sum, trim_scale(min(v))::text AS min, trim_scale(max(v))::text AS max,
         trim_scale(${ordered('ASC')})::text AS open, trim_scale(${ordered('DESC')})::text AS close,
         trim_scale(${percentile(0.5)})::text AS p50, trim_scale(${percentile(0.9)})::text AS p90, trim_scale(${percentile(0.99)})::text AS p99
       FROM (
         SELECT json_build_array(${by.join(', ')})::text AS "group", floor(extract(epoch FROM (${time})) * 1000000 / ${micros})::bigint AS index,
           (${time}) AS t, (${id}) AS id, (${value})::numeric AS v
         FROM (${from}) AS observations
       ) AS observations
       WHERE v IS NOT NULL AND v NOT IN ('NaN', 'Infinity', '-Infinity') AND t IS NOT NULL AND isfinite(t)
       GROUP BY "group", index`,
    );
    for (const row of rows) {
      const group = JSON.stringify(JSON.parse(row.group));
      all.push({ ...row, level: text, group, index: Number(row.index), count: Number(row.count) });
    }
  }
  return all;
}

/** Differences between what is stored and what should be, as lines; percentiles of sketches may be 1 % off. */
export function differences(stored: readonly StoredWindow[], expected: readonly ExpectedWindow[]): string[] {
  const found = new Map(stored.map((window) => [nameOf(window), window]));
  const lines: string[] = [];
  for (const window of expected) {
    const there = found.get(nameOf(window));
    found.delete(nameOf(window));
    if (!there) lines.push(`${nameOf(window)} is missing`);
    else lines.push(...compare(there, window).map((difference) => `${nameOf(window)}: ${difference}`));
  }
  return [...lines, ...[...found.keys()].map((name) => `${name} is too much`)];
}

function nameOf({ level, group, index }: Pick<ExpectedWindow, 'level' | 'group' | 'index'>): string {
  return `${level} ${group} ${index}`;
}

function compare(stored: StoredWindow, expected: ExpectedWindow): string[] {
  const { percentiles, sketched } = stored;
  const lines: string[] = [];
  const same = (what: string, is: string | undefined, should: string): void => {
    if (is === undefined || canonicalDecimal(is) !== should) lines.push(`${what} is ${is}, not ${should}`);
  };
  if (stored.count !== expected.count) lines.push(`count is ${stored.count}, not ${expected.count}`);
  same('sum', stored.sum, expected.sum);
  same('min', stored.min, expected.min);
  same('max', stored.max, expected.max);
  same('open', stored.open.value, expected.open);
  same('close', stored.close.value, expected.close);
  for (const percent of percentiles ? ([50, 90, 99] as const) : []) {
    const [is, should] = [percentiles?.[percent], expected[`p${percent}`]];
    if (!sketched) same(`p${percent}`, is, should);
    else if (!(Math.abs(Number(is) - Number(should)) <= Math.abs(Number(should)) * 0.01))
      lines.push(`p${percent} is ${is}, not near ${should}`);
  }
  return lines;
}
