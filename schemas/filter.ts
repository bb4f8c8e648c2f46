import type { TableEntry } from './catalog.ts';
import { compareDecimal, isDecimal } from './decimal.ts';
import { suggestion } from './nearest.ts';

/** The tables of one channel by name, `<schema>.<table>`. */
export type ChannelTables = ReadonlyMap<string, TableEntry>;

/** Table → the column that one filter field means there. A table that is not in it has no such field. */
type Columns = ReadonlyMap<string, string>;

type EqualityField = 'userId' | 'tokenIds' | 'protocolIds' | 'chains';

/** The row's text form of `columns` must be one of the values. */
export interface Equality {
  readonly field: EqualityField;
  readonly columns: Columns;
  readonly values: ReadonlySet<string>;
}

/** The row's decimal in `columns` must lie between the bounds, which are inclusive and decimals as text. */
export interface ValueBounds {
  readonly columns: Columns;
  readonly min?: string;
  readonly max?: string;
}

/** What a subscriber wants of a channel, parsed. Everything in it must hold; an empty one matches every event. */
export interface Filter {
  readonly types?: ReadonlySet<string>;
  readonly equals: readonly Equality[];
  readonly bounds?: ValueBounds;
}

/** The part of an event that filters look at. */
export interface FilterableEvent {
  readonly type: string;
  readonly op?: string;
  readonly table?: string;
  readonly key?: Row;
  readonly after?: Row;
  readonly before?: Row;
}

type Row = Readonly<Record<string, unknown>>;

/** A filter that cannot be used: its `code` is the gateway's, `field` names the part at fault. */
export class FilterError extends Error {
  readonly code = 'bad_filter';
  readonly field: string | undefined;

  constructor(message: string, field?: string) {
    super(message);
    this.name = 'FilterError';
    this.field = field;
  }
}

/**
 * How much of a channel one value of the field lets through, roughly: an index starts from the most selective field.
 * In this order, too, fields are listed in messages.
 */
const shares: Readonly<Record<EqualityField, number>> = { userId: 1e-5, tokenIds: 1e-4, protocolIds: 1e-2, chains: 0.1 };
const equalityFields = Object.keys(shares) as EqualityField[];
const fieldNames: readonly string[] = ['types', ...equalityFields, 'minValue', 'maxValue'];

/**
 * Reads a `filter` as it comes from outside. A field is accepted if at least one table of the channel maps it; events of
 * a table that does not map it are events without the field, which do not match.
 * @param input the `filter` of a frame; undefined is the empty filter
 * @param limits `maxValues`: values of all lists together
 * @throws FilterError
 */
export function parseFilter(input: unknown, tables: ChannelTables, limits: { readonly maxValues: number }): Filter {
  if (input === undefined) return { equals: [] };
  if (!isObject(input)) throw new FilterError('filter must be an object');
  for (const field of Object.keys(input)) {
    if (!fieldNames.includes(field)) throw new FilterError(`filter has no field ${field}${suggestion(field, fieldNames)}`, field);
  }
  const types = input['types'] === undefined ? undefined : parseList('types', input['types']);
  const equals = equalityFields
    .filter((field) => input[field] !== undefined)
    .map((field): Equality => ({ field, columns: columnsOf(field, field, tables), values: parseValues(field, input[field]) }));
  const bounds = parseBounds(input, tables);
  const total = equals.reduce((sum, { values }) => sum + values.size, types?.size ?? 0);
  if (total > limits.maxValues) throw new FilterError(`filter has ${total} values, more than the ${limits.maxValues} that are allowed`);
  return { equals, ...(types && { types }), ...(bounds && { bounds }) };
}

/**
 * Does the event pass? It does if its `after` or its `before` does, so that a row that leaves the filter is seen to
 * leave, or else its `key`. Truncates concern every subscriber of the channel.
 */
export function matches(filter: Filter, event: FilterableEvent): boolean {
  if (event.op === 'truncate') return true;
  if (filter.types && !filter.types.has(event.type)) return false;
  if (filter.equals.length === 0 && !filter.bounds) return true;
  const { table } = event;
  if (table === undefined) return false;
  return rowMatches(filter, table, event.after) || rowMatches(filter, table, event.before) || rowMatches(filter, table, event.key);
}

/** One way into an index of filters: a row of `table` with this text form in `column`. */
export interface FilterTerm {
  readonly table: string;
  readonly column: string;
  readonly value: string;
}

/**
 * The terms of the filter's most selective equality: an event other than a truncate can match only if its `after`, `before` or `key`
 * has one of them. Undefined if the filter has no equality, and every event of the channel has to be looked at.
 */
export function filterTerms(filter: Filter): readonly FilterTerm[] | undefined {
  let best: Equality | undefined;
  for (const equality of filter.equals) {
    if (!best || share(equality) < share(best)) best = equality;
  }
  if (!best) return undefined;
  const terms: FilterTerm[] = [];
  for (const [table, column] of best.columns) {
    for (const value of best.values) terms.push({ table, column, value });
  }
  return terms;
}

/** The text by which a column's value is compared; undefined for null, absent, objects and arrays, which equal nothing. */
export function textOf(value: unknown): string | undefined {
  switch (typeof value) {
    case 'string':
      return value;
    case 'number':
    case 'boolean':
      return String(value);
    default:
      return undefined;
  }
}

function share(equality: Equality): number {
  return shares[equality.field] * equality.values.size;
}

function rowMatches(filter: Filter, table: string, row: Row | undefined): boolean {
  if (!row) return false;
  for (const { columns, values } of filter.equals) {
    const text = columnText(columns, table, row);
    if (text === undefined || !values.has(text)) return false;
  }
  return !filter.bounds || within(filter.bounds, columnText(filter.bounds.columns, table, row));
}

function columnText(columns: Columns, table: string, row: Row): string | undefined {
  const column = columns.get(table);
  // Own properties only: a column may be called `constructor`, and a row may lack it.
  return column !== undefined && Object.hasOwn(row, column) ? textOf(row[column]) : undefined;
}

function within({ min, max }: ValueBounds, text: string | undefined): boolean {
  if (text === undefined) return false;
  // Not a decimal: the comparison is undefined, and no bound holds.
  if (min !== undefined && !((compareDecimal(text, min) ?? -1) >= 0)) return false;
  return max === undefined || (compareDecimal(text, max) ?? 1) <= 0;
}

function columnsOf(field: string, mapped: EqualityField | 'value', tables: ChannelTables): Columns {
  const columns = new Map<string, string>();
  for (const [table, { filters }] of tables) {
    const column = filters[mapped];
    if (column !== undefined) columns.set(table, column);
  }
  if (columns.size === 0) throw new FilterError(`this channel has no ${field}: the catalogue maps it to no column`, field);
  return columns;
}

function parseBounds(input: Row, tables: ChannelTables): ValueBounds | undefined {
  const min = parseBound('minValue', input['minValue']);
  const max = parseBound('maxValue', input['maxValue']);
  if (min === undefined && max === undefined) return undefined;
  const columns = columnsOf(min === undefined ? 'maxValue' : 'minValue', 'value', tables);
  return { columns, ...(min !== undefined && { min }), ...(max !== undefined && { max }) };
}

function parseBound(field: string, value: unknown): string | undefined {
  if (value === undefined) return undefined;
  const text = typeof value === 'number' ? String(value) : value;
  if (typeof text !== 'string' || !isDecimal(text)) throw new FilterError(`${field} must be a number, or a decimal as text`, field);
  return text;
}

function parseValues(field: EqualityField, value: unknown): ReadonlySet<string> {
  return field === 'userId' ? new Set([parseValue(field, value, 'userId must be text')]) : parseList(field, value);
}

function parseList(field: string, value: unknown): ReadonlySet<string> {
  if (!Array.isArray(value) || value.length === 0) throw new FilterError(`${field} must be a list of at least one text`, field);
  return new Set(value.map((item) => parseValue(field, item, `${field} must hold only texts`)));
}

/** Numbers stand for their text, as keys are often numbers. */
function parseValue(field: string, value: unknown, expectation: string): string {
  if (typeof value === 'string') return value;
  if (typeof value === 'number' && Number.isFinite(value)) return String(value);
  throw new FilterError(expectation, field);
}

function isObject(value: unknown): value is Row {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
