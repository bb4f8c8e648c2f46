import { checkCondition } from '../condition/check.ts';
import { conditionLimits } from '../condition/condition.ts';
import { isObject, show } from '../condition/faults.ts';
import { columnType, type ColumnTypes } from '../condition/column-type.ts';
import type { Comparison, Condition } from '../condition/condition.ts';
import { parseCondition } from '../condition/parse.ts';
import { suggestion } from '../nearest.ts';
import { checkAggregates, checkGroupBy, checkOrderBy, checkSelect, Faults, onlyMembers, Outputs } from './check-parts.ts';
import { isSortable, type DescribedTable } from './column-traits.ts';
import { normalCondition } from './normal.ts';
import { queryLimits, type OrderBy, type Query, type QueryFault } from './query.ts';

/** The tables that may be asked. */
export interface DescribedTables<T extends DescribedTable> {
  /** By its whole name, `<schema>.<table>`. */
  find(name: string): T | undefined;
  /** All of them, for suggestions. */
  names(): readonly string[];
}

/** Either the query, or all that is wrong with what was given. */
export type CheckedQuery<T extends DescribedTable> =
  | {
      readonly query: Query;
      readonly table: T;
      /** Types of the members of an answer about groups; undefined in a query for rows. */
      readonly groups: ColumnTypes | undefined;
      /** The order is total, and has an end to go on from. */
      readonly paged: boolean;
      readonly cursor: string | undefined;
      readonly faults?: never;
    }
  | { readonly faults: readonly QueryFault[]; readonly query?: never };

const members = ['from', 'select', 'where', 'groupBy', 'aggregate', 'having', 'orderBy', 'limit', 'cursor'];

/**
 * Checks a query as it comes from outside: parsed JSON, with `where` and `having` as trees or texts.
 * @returns the query in its normal form, or all faults at once, each with its place and, for a name, the nearest that exists
 */
export function checkQuery<T extends DescribedTable>(input: unknown, tables: DescribedTables<T>): CheckedQuery<T> {
  const faults = new Faults();
  if (!isObject(input))
    return { faults: [{ field: 'query', message: `is ${show(input)}, and must be an object like {"from": "prices"}` }] };
  onlyMembers(input, members, '', faults);
  const table = checkFrom(input['from'], tables, faults);
  const grouped = input['groupBy'] !== undefined || input['aggregate'] !== undefined;
  const where = checkWhere(input['where'], 'where', table?.columns, faults);
  const limit = checkLimit(input['limit'], faults);
  const cursor = checkCursor(input['cursor'], faults);
  const parts = grouped ? checkGroups(input, table, faults) : checkRows(input, table, faults);
  boundTogether(where, parts.having, faults);
  if (parts.cursorFault !== undefined && cursor !== undefined) faults.add('cursor', parts.cursorFault);
  if (faults.list.length > 0 || !table) return { faults: faults.list };
  const query: Query = {
    from: table.name,
    select: parts.select,
    where: where && normalCondition(where, table.columns),
    groupBy: parts.groupBy,
    aggregate: parts.aggregate,
    having: parts.having && parts.groups && normalCondition(parts.having, parts.groups),
    orderBy: parts.orderBy,
    limit,
  };
  return { query, table, groups: parts.groups, paged: parts.cursorFault === undefined, cursor };
}

type Parts = Pick<Query, 'select' | 'groupBy' | 'aggregate' | 'having' | 'orderBy'> & {
  readonly groups: ColumnTypes | undefined;
  /** Why there are no pages. */
  readonly cursorFault: string | undefined;
};
type Members = Readonly<Record<string, unknown>>;

function checkRows(input: Members, table: DescribedTable | undefined, faults: Faults): Parts {
  if (input['having'] !== undefined) faults.add('having', 'is about groups, and there are none: use where, or give groupBy or aggregate');
  const select = checkSelect(input['select'], table, faults);
  const asked = checkOrderBy(input['orderBy'], table?.columns, 'column of the table', faults);
  const key = table?.key ?? [];
  const noKey = key.length === 0 ? 'no primary key' : 'a primary key that cannot be sorted by';
  const paged = key.length > 0 && key.every((column) => isSortable(table!.columns.get(column) ?? ''));
  return {
    ...{ select, groupBy: undefined, aggregate: undefined, having: undefined, groups: undefined },
    orderBy: totalOrder(asked, paged ? key : undefined),
    cursorFault: paged || !table ? undefined : `cannot be: ${table.name} has ${noKey}, so its rows have no order to go on in`,
  };
}

function checkGroups(input: Members, table: DescribedTable | undefined, faults: Faults): Parts {
  if (input['select'] !== undefined)
    faults.add('select', 'is for rows: with groupBy or aggregate the answer has the groups and the aggregates');
  const outputs = new Outputs();
  const groupBy = checkGroupBy(input['groupBy'], table, outputs, faults);
  const aggregate = checkAggregates(input['aggregate'], table, outputs, faults);
  // A fault above leaves a member out, which then is no fault here.
  const whole = faults.list.every(({ field }) => !/^(?:groupBy|aggregate|from)\b/u.test(field));
  const groups = whole ? outputs.types : undefined;
  const having = checkWhere(input['having'], 'having', groups, faults);
  const asked = checkOrderBy(input['orderBy'], groups, 'member of the answer', faults);
  const names = groupBy.map(({ as }) => as);
  return {
    ...{ select: undefined, groupBy, aggregate, having, groups: outputs.types },
    orderBy: totalOrder(asked, names),
    cursorFault:
      groupBy.length > 0 || input['groupBy'] !== undefined ? undefined : 'cannot be: without groupBy the answer is a single item',
  };
}

/**
 * The order to the last tie: what was asked for, then the columns that tell all apart, in the direction of what stands before them, so
 * that an index can serve both. What stands behind all of those decides nothing.
 */
function totalOrder(asked: readonly OrderBy[], unique: readonly string[] | undefined): readonly OrderBy[] {
  if (unique === undefined) return asked;
  const left = new Set(unique);
  const needed: OrderBy[] = [];
  for (const one of asked) {
    if (left.size === 0) break;
    needed.push(one);
    left.delete(one.field);
  }
  const dir = needed.at(-1)?.dir ?? 'asc';
  return [...needed, ...[...left].map((field) => ({ field, dir }))];
}

function checkFrom<T extends DescribedTable>(input: unknown, tables: DescribedTables<T>, faults: Faults): T | undefined {
  if (input === undefined) return faults.add('from', 'is missing: the name of a table, like "prices" or "public.prices"');
  if (typeof input !== 'string' || input === '') return faults.add('from', `is ${show(input)}, and must be the name of a table`);
  const found = tables.find(input) ?? tables.find(`public.${input}`);
  if (found) return found;
  const names = tables.names();
  const bare = names.filter((name) => name.startsWith('public.')).map((name) => name.slice('public.'.length));
  const near = suggestion(input, input.includes('.') ? [...names, ...bare] : [...bare, ...names]);
  return faults.add('from', `is ${show(input)}, which is no table that this key may read${near}`);
}

function checkLimit(input: unknown, faults: Faults): number {
  if (input === undefined) return queryLimits.defaultLimit;
  if (typeof input === 'number' && Number.isInteger(input) && input >= 1 && input <= queryLimits.limit) return input;
  faults.add('limit', `is ${show(input)}, and must be a whole number from 1 to ${queryLimits.limit}`);
  return queryLimits.defaultLimit;
}

function checkCursor(input: unknown, faults: Faults): string | undefined {
  if (input === undefined || (typeof input === 'string' && input !== '')) return input;
  return faults.add('cursor', `is ${show(input)}, and must be the "next" of an answer to the same query`);
}

/** A condition as a tree or as text. */
function checkWhere(input: unknown, name: string, columns: ColumnTypes | undefined, faults: Faults): Condition | undefined {
  if (input === undefined) return undefined;
  if (typeof input === 'string') {
    const { value, problems = [] } = parseCondition(input, { columns, name });
    for (const { message, line, column } of problems) faults.add(name, about(name, message), { line, column });
    return value && plainText(value, name, columns, faults);
  }
  const { value, faults: found = [] } = checkCondition(input, { columns, name });
  for (const { field, message } of found) faults.add(field, about(name, message));
  return value && plainText(value, name, columns, faults);
}

/** What is a column to a condition is a member of the answer in `having`. */
function about(name: string, message: string): string {
  return name === 'having' ? message.replace('no column of the table', 'no member of the answer') : message;
}

/** A type that conditions do not know compares as text here: what else its values could be, SQL cannot see. */
function plainText(condition: Condition, name: string, columns: ColumnTypes | undefined, faults: Faults): Condition {
  for (const { field, value } of leavesOf(condition)) {
    const type = columns?.get(field);
    if (type === undefined || type === '' || columnType(type).family !== 'open') continue;
    const odd = [value ?? true].flat().find((one) => typeof one === 'number');
    if (odd !== undefined) faults.add(name, `compares ${field} with ${odd}, and must compare it with text, "${odd}": it is ${type}`);
  }
  return condition;
}

function boundTogether(where: Condition | undefined, having: Condition | undefined, faults: Faults): void {
  if (!where || !having) return;
  const items = [where, having].flatMap((condition) => [...leavesOf(condition)]).reduce((sum, { value }) => sum + [value].flat().length, 0);
  if (items > conditionLimits.items)
    faults.add('having', `has, with where, more than the ${conditionLimits.items} values that are allowed`);
  if (nodesOf(where) + nodesOf(having) > conditionLimits.nodes)
    faults.add('having', `has, with where, more than the ${conditionLimits.nodes} parts that are allowed`);
}

function nodesOf(condition: Condition): number {
  const parts = 'and' in condition ? condition.and : 'or' in condition ? condition.or : 'not' in condition ? [condition.not] : [];
  return parts.reduce((sum, part) => sum + nodesOf(part), 1);
}

/** The comparisons of a condition, with duplicates. */
function* leavesOf(condition: Condition): Generator<Comparison> {
  if ('and' in condition) for (const part of condition.and) yield* leavesOf(part);
  else if ('or' in condition) for (const part of condition.or) yield* leavesOf(part);
  else if ('not' in condition) yield* leavesOf(condition.not);
  else yield condition;
}
