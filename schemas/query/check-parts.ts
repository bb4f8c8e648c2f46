import { isObject, show } from '../condition/faults.ts';
import { parseDuration } from '../duration.ts';
import { suggestion } from '../nearest.ts';
import { groupType, isBucketable, isSortable, refuseArgument, resultType, type DescribedTable } from './column-traits.ts';
import { aggregateFunctions, queryLimits, type Aggregate, type GroupBy, type OrderBy, type QueryFault } from './query.ts';

/** So many faults are told; someone who mends them sees the others. */
const mostFaults = 50;

/** Collects what is wrong; its methods return undefined, so that a check can end with one. */
export class Faults {
  readonly list: QueryFault[] = [];

  /** Looking for more takes time, and tells nobody anything. */
  get enough(): boolean {
    return this.list.length >= mostFaults;
  }

  /** @param place in the text, where the field was given as one */
  add(field: string, message: string, place?: { readonly line: number; readonly column: number }): undefined {
    if (!this.enough) this.list.push({ field, message, ...(place && { line: place.line, column: place.column }) });
  }
}

/** The members of an answer about groups, and their types; of an unknown table the types are empty. */
export class Outputs {
  readonly types = new Map<string, string>();

  add(as: string, type: string, field: string, faults: Faults): void {
    if (this.types.has(as))
      faults.add(field, `is ${show(as)}, and another member of the answer is called so: give it another name by "as"`);
    else this.types.set(as, type);
  }
}

/** The table while it is checked against: undefined when `from` names none. */
type Table = DescribedTable | undefined;
type Members = Readonly<Record<string, unknown>>;

/** @returns the columns of the answer; all of them when nothing is said */
export function checkSelect(input: unknown, table: Table, faults: Faults): readonly string[] {
  if (input === undefined) return [...(table?.columns.keys() ?? [])];
  const names = listOf(input, 'select', 'columns, like ["id", "price"]', faults) ?? [];
  const seen = new Set<unknown>();
  for (const [i, name] of names.entries()) {
    if (faults.enough) break;
    const field = `select[${i}]`;
    if (name === '*') faults.add(field, 'is "*": leave select out for all columns');
    else if (columnOf(name, field, table, faults) !== undefined && seen.has(name)) faults.add(field, `is ${show(name)} once more`);
    seen.add(name);
  }
  return names as readonly string[];
}

export function checkGroupBy(input: unknown, table: Table, outputs: Outputs, faults: Faults): readonly GroupBy[] {
  if (input === undefined) return [];
  const items = listOf(input, 'groupBy', 'columns, like ["chain", {"field": "at", "bucket": "1h", "as": "hour"}]', faults) ?? [];
  if (items.length > queryLimits.groupBy) faults.add('groupBy', `has ${items.length} items, more than the ${queryLimits.groupBy} allowed`);
  return items.slice(0, queryLimits.groupBy).flatMap((item, i) => checkGroup(item, `groupBy[${i}]`, table, outputs, faults) ?? []);
}

function checkGroup(input: unknown, at: string, table: Table, outputs: Outputs, faults: Faults): GroupBy | undefined {
  if (typeof input !== 'string' && !isObject(input))
    return faults.add(at, `is ${show(input)}, and must be the name of a column or {"field", "bucket", "as"}`);
  const item: Members = typeof input === 'string' ? { field: input } : input;
  if (typeof input !== 'string') onlyMembers(item, ['field', 'bucket', 'as'], at, faults);
  const fieldAt = typeof input === 'string' ? at : `${at}.field`;
  const field = columnOf(item['field'], fieldAt, table, faults);
  const as = checkAs(item['as'], `${at}.as`, faults) ?? field;
  const type = field === undefined ? undefined : table?.columns.get(field);
  const bucket = item['bucket'] === undefined ? undefined : checkBucket(item['bucket'], `${at}.bucket`, field, type, faults);
  if (type !== undefined && item['bucket'] === undefined && !isSortable(type))
    return faults.add(fieldAt, `is ${field}, which is ${type}: such values make no groups`);
  if (field === undefined || as === undefined) return undefined;
  outputs.add(as, type === undefined ? '' : groupType(type), item['as'] === undefined ? fieldAt : `${at}.as`, faults);
  return { as, field, ...(bucket !== undefined && { bucket }) };
}

function checkBucket(input: unknown, at: string, field: string | undefined, type: string | undefined, faults: Faults): number | undefined {
  const micros = typeof input === 'string' ? parseDuration(input) : undefined;
  if (micros === undefined || micros === 0)
    return faults.add(at, `is ${show(input)}, and must be the length of the buckets: 1ms to 366d, like 5m, 1h or 1d`);
  if (type !== undefined && !isBucketable(type))
    return faults.add(
      at,
      `is of times, and ${field} is ${type}${type.startsWith('time ') || type.startsWith('time(') ? ', without a date' : ''}`,
    );
  if (type === 'date' && micros % 86_400_000_000 !== 0)
    return faults.add(at, `is ${show(input)}, and must be whole days: ${field} is a date`);
  return micros;
}

export function checkAggregates(input: unknown, table: Table, outputs: Outputs, faults: Faults): readonly Aggregate[] {
  if (input === undefined) return [];
  const form = '{"<name>": {"fn": "sum", "field": "volume"}}';
  if (!isObject(input)) {
    faults.add('aggregate', `is ${show(input)}, and must be ${form}`);
    return [];
  }
  const entries = Object.entries(input);
  if (entries.length === 0) faults.add('aggregate', `is empty: it needs at least one, ${form}`);
  if (entries.length > queryLimits.aggregates)
    faults.add('aggregate', `has ${entries.length} members, more than the ${queryLimits.aggregates} allowed`);
  return entries
    .slice(0, queryLimits.aggregates)
    .flatMap(([as, value]) => checkAggregate(as, value, memberPath('aggregate', as), table, outputs, faults) ?? []);
}

function checkAggregate(as: string, input: unknown, at: string, table: Table, outputs: Outputs, faults: Faults): Aggregate | undefined {
  if (checkAs(as, at, faults) === undefined) return undefined;
  if (!isObject(input)) return faults.add(at, `is ${show(input)}, and must be {"fn", "field"}, with "p" for percentile`);
  onlyMembers(input, ['fn', 'field', 'p'], at, faults);
  const fn = aggregateFunctions.find((name) => name === input['fn']);
  if (fn === undefined) {
    const known = aggregateFunctions.join(', ');
    const given = input['fn'];
    const near = typeof given === 'string' ? suggestion(given, aggregateFunctions) : '';
    return faults.add(
      `${at}.fn`,
      given === undefined ? `is missing: one of ${known}` : `is ${show(given)}, and must be one of ${known}${near}`,
    );
  }
  const bare = fn === 'count' && input['field'] === undefined;
  const field = bare ? undefined : columnOf(input['field'], `${at}.field`, table, faults);
  const p = checkP(fn, input['p'], `${at}.p`, faults);
  if (!bare && field === undefined) return undefined;
  const type = field === undefined ? undefined : table?.columns.get(field);
  const refused = type === undefined ? undefined : refuseArgument(fn, type);
  if (refused !== undefined) return faults.add(`${at}.field`, `is ${field}, which is ${type}: ${refused}`);
  outputs.add(as, table === undefined && !fn.startsWith('count') ? '' : resultType(fn, type), at, faults);
  return { as, fn, ...(field !== undefined && { field }), ...(p !== undefined && { p }) };
}

function checkP(fn: string, input: unknown, at: string, faults: Faults): number | undefined {
  if (fn !== 'percentile') return input === undefined ? undefined : faults.add(at, `has no meaning beside ${fn}`);
  if (typeof input === 'number' && input >= 0 && input <= 1) return input + 0;
  return faults.add(
    at,
    input === undefined ? 'is missing: from 0 to 1, 0.5 for the median' : `is ${show(input)}, and must be a number from 0 to 1, like 0.95`,
  );
}

/** @param known the names that can be sorted by, each with its type, empty when that is not known; undefined: not known */
export function checkOrderBy(
  input: unknown,
  known: ReadonlyMap<string, string> | undefined,
  what: string,
  faults: Faults,
): readonly OrderBy[] {
  if (input === undefined || (Array.isArray(input) && input.length === 0)) return [];
  const items = listOf(input, 'orderBy', `[{"field", "dir"}], like [{"field": "price", "dir": "desc"}]`, faults) ?? [];
  if (items.length > queryLimits.orderBy) faults.add('orderBy', `has ${items.length} items, more than the ${queryLimits.orderBy} allowed`);
  const seen = new Set<string>();
  return items.slice(0, queryLimits.orderBy).flatMap((item, i) => {
    const at = `orderBy[${i}]`;
    if (!isObject(item)) return faults.add(at, `is ${show(item)}, and must be {"field", "dir"}`) ?? [];
    onlyMembers(item, ['field', 'dir'], at, faults);
    const dir = item['dir'] ?? 'asc';
    if (dir !== 'asc' && dir !== 'desc') faults.add(`${at}.dir`, `is ${show(dir)}, and must be asc or desc`);
    const field = nameOf(item['field'], `${at}.field`, known, what, faults);
    if (field === undefined) return [];
    const type = known?.get(field) ?? '';
    if (type !== '' && !isSortable(type)) faults.add(`${at}.field`, `is ${field}, which is ${type}: such values have no order`);
    if (seen.has(field)) faults.add(`${at}.field`, `is ${show(field)} once more`);
    seen.add(field);
    return [{ field, dir: dir as 'asc' | 'desc' }];
  });
}

/** A name of the asker's own: it becomes a member of the answer's items, and never part of SQL. */
function checkAs(input: unknown, at: string, faults: Faults): string | undefined {
  if (input === undefined) return undefined;
  if (typeof input === 'string' && input.length <= 63 && /^[\p{L}_][\p{L}\p{M}\p{N}_$]*$/u.test(input)) return input;
  return faults.add(at, `is ${show(input)}, which is no name: letters, digits and _, at most 63, and no digit first`);
}

function columnOf(input: unknown, at: string, table: Table, faults: Faults): string | undefined {
  return nameOf(input, at, table?.columns, 'column of the table', faults);
}

function nameOf(
  input: unknown,
  at: string,
  known: ReadonlyMap<string, string> | undefined,
  what: string,
  faults: Faults,
): string | undefined {
  if (input === undefined) return faults.add(at, `is missing: the name of a ${what}`);
  if (typeof input !== 'string' || input === '') return faults.add(at, `is ${show(input)}, and must be the name of a ${what}`);
  if (!known || known.has(input)) return input;
  return faults.add(at, `is ${show(input)}, which is no ${what}${suggestion(input, [...known.keys()])}`);
}

function listOf(input: unknown, at: string, form: string, faults: Faults): readonly unknown[] | undefined {
  if (!Array.isArray(input)) return faults.add(at, `is ${show(input)}, and must be a list of ${form}`);
  if (input.length === 0) return faults.add(at, 'is empty: leave it out, or name something');
  return input as readonly unknown[];
}

/** Tells the members that are not known. */
export function onlyMembers(input: Members, known: readonly string[], at: string, faults: Faults): void {
  for (const name of Object.keys(input)) {
    if (faults.enough) break;
    if (known.includes(name)) continue;
    const near = suggestion(name, known);
    faults.add(memberPath(at, name), `is not known here${near === '' ? `: there are ${known.join(', ')}` : near}`);
  }
}

/** `aggregate.total`; a name that is no plain word stands in brackets. */
function memberPath(at: string, name: string): string {
  const plain = /^[\p{L}_][\p{L}\p{M}\p{N}_$]*$/u.test(name) && name.length <= 80;
  const step = plain ? name : show(name);
  return at === '' ? step : plain ? `${at}.${step}` : `${at}[${step}]`;
}
