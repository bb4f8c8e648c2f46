import type { DeadLetterDesk } from '../../pipeline/runner/redrive/desk.ts';
import { suggestion } from '../../schemas/nearest.ts';
import { plain } from '../event-line.ts';
import { notify, tableName, tableOf, type SelectionOptions } from './selection.ts';
import { countsText } from './text.ts';

/** Processors that are always there; an operator may have more. */
const processors: readonly string[] = ['cache', 'alerts', 'aggregates', notify];

const mostNames = 20;

/**
 * What to say when no letter meets the conditions: also what there is instead, so that a mistyped name does not look as if all were well.
 * Undefined when there are no letters at all, and no processor was named.
 */
export async function nothingText(
  desk: DeadLetterDesk,
  { processor, table }: SelectionOptions,
  signal: AbortSignal,
): Promise<string | undefined> {
  const all = await desk.counts();
  const counts = new Map([...all].filter(([name]) => processor === undefined || name === processor || name.startsWith(`${processor}.`)));
  if (processor !== undefined && counts.size === 0) return noneOf(processor, [...all.keys()], [...processors, ...all.keys()]);
  if (counts.size === 0) return undefined;
  if (table !== undefined) {
    const tables = new Set<string>();
    for await (const letter of desk.list(processor, signal)) tables.add(plain(tableOf(letter)));
    const [name, others] = [tableName(table), [...tables].filter(Boolean).sort()];
    if (!tables.has(name)) return noneOf(name, others, others);
  }
  return `${countsText(counts)}; none of them meets all of this.`;
}

/** @param known names that may have been meant */
function noneOf(name: string, others: readonly string[], known: readonly string[]): string {
  const there =
    others.length === 0 ? '' : `; there are of: ${others.slice(0, mostNames).join(', ')}${others.length > mostNames ? ' and others' : ''}`;
  const meant = known.includes(name) ? '' : suggestion(name, known);
  return `There are no dead letters of ${name}${there}${meant || '.'}`;
}
