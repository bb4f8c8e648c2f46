import { bareTypeName } from '../../../schemas/condition/column-type.ts';
import type { Comparison, Condition, Scalar } from '../../../schemas/condition/condition.ts';
import type { Dependency, QueryTable } from '../model.ts';

/** Types of which a value has one spelling in events. */
const oneSpelling: ReadonlySet<string> = new Set([...['smallint', 'integer', 'bigint', 'text', 'character varying', 'uuid', 'boolean']]);

/** So many combinations of pinned values are followed one by one. */
const mostCombinations = 100;

/**
 * What an answer depends on: rows in which columns of the replica identity have certain values, where the condition demands that at its
 * top; else the whole table. Every event shows those columns, as they were and as they are.
 * @param where in normal form: values are spelled as in events
 */
export function dependencyOf(table: QueryTable, where: Condition | undefined): Dependency {
  const lists = new Map<string, readonly string[]>();
  for (const { field, value } of conjunctsOf(where)) {
    if (!isPinnable(table, field)) continue;
    const values = ([value].flat() as readonly Scalar[]).map(String);
    if (values.length < (lists.get(field)?.length ?? Infinity)) lists.set(field, values);
  }
  let combinations = 1;
  const pinned = new Set<string>();
  for (const [field, { length }] of [...lists].sort(([a, x], [b, y]) => x.length - y.length || (a < b ? -1 : 1))) {
    if (combinations * length > mostCombinations) break;
    combinations *= length;
    pinned.add(field);
  }
  if (pinned.size === 0) return { table: table.name };
  const columns = [...pinned].sort();
  const values = columns.reduce<readonly (readonly string[])[]>(
    (rows, column) => rows.flatMap((row) => lists.get(column)!.map((value) => [...row, value])),
    [[]],
  );
  return { table: table.name, pins: { columns, values } };
}

function isPinnable(table: QueryTable, column: string): boolean {
  return table.identity.includes(column) && !table.looseText.has(column) && oneSpelling.has(bareTypeName(table.columns.get(column)!));
}

/** The comparisons at the top that demand one of some values. */
function conjunctsOf(where: Condition | undefined): readonly Comparison[] {
  const parts = where === undefined ? [] : 'and' in where ? where.and : [where];
  return parts.filter((part): part is Comparison => 'op' in part && (part.op === 'eq' || part.op === 'in'));
}
