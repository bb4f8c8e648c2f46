import type { Definition } from '../model.ts';
import type { AggregateItem } from '../read/items.ts';

/**
 * Items as CSV (RFC 4180) with a header: the columns of `by`, then the members of the items. Null is an empty field.
 * @param sized whether items say their sizes
 */
export function csvOf({ by, functions, percentiles }: Definition, items: readonly AggregateItem[], sized: boolean): string {
  const sizes = sized ? ['window', 'sliding'] : [];
  const members = [...new Set([...sizes, 'start', 'end', 'revision', 'count', ...functions, ...(percentiles ? ['exact'] : [])])];
  const columns = by.map((column) => (members.includes(column) ? `by.${column}` : column));
  const rows = items.map((item) => [...by.map((column) => item.by[column]), ...members.map((member) => item[member])]);
  return [[...columns, ...members], ...rows].map((row) => `${row.map(field).join(',')}\r\n`).join('');
}

function field(value: unknown): string {
  if (value == null) return '';
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
