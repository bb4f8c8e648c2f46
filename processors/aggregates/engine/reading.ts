import type { LogEvent } from '../../../pipeline/log/event-log.ts';
import { microsOf } from '../../../pipeline/runner/event-head.ts';
import { HeadwaterError } from '../../../pipeline/runtime/errors.ts';
import { encodeRowKey } from '../../../schemas/row-key.ts';
import { decodeToken } from '../../../schemas/subjects.ts';
import type { Definition, Micros } from '../model.ts';
import { parseEventTime } from './event-time.ts';
import type { Entry, RowState } from './memory.ts';
import { sortableId } from './row-id.ts';
import { Value } from './value.ts';

/** Why an observation does not count. */
export type LeftOut = 'not_a_number' | 'no_time' | 'too_old' | 'unchanged' | 'omitted';

/** An event, as far as it concerns a definition. */
export type Reading =
  | { readonly kind: 'none' | 'truncate'; readonly at: Micros | undefined }
  | { readonly kind: 'schema'; readonly at: Micros | undefined; readonly numbers: readonly string[] }
  | RowReading;

export interface RowReading {
  readonly kind: 'row';
  readonly at: Micros;
  /** The row's name (empty of `changes`), and the one before a change of its key. */
  readonly row: string;
  readonly rowBefore: string | undefined;
  /** What the row contributes from now on; undefined: nothing. */
  readonly given: Contributed;
  /** The same, when it depends on what the row contributed before. */
  readonly givenBy: ((before: Entry) => Contributed) | undefined;
  /** What is known of both rows, while the batch is applied. */
  here: RowState | undefined;
  there: RowState | undefined;
}

type Contributed = Entry | LeftOut | undefined;

/** What a contribution has besides its columns. */
interface Head {
  readonly row: string;
  readonly rowBefore: string | undefined;
  readonly id: string;
  /** Of the commit. */
  readonly at: Micros;
}

/** Columns that have stayed as they were, and what the row contributed then. */
interface Holes {
  readonly columns: readonly string[];
  readonly before: Entry;
}

type Row = Readonly<Record<string, unknown>>;
type Target = 'none' | 'schema' | 'insert' | 'update' | 'read' | 'delete' | 'truncate';

const rowOps: ReadonlySet<string> = new Set<Target>(['insert', 'update', 'read', 'delete', 'truncate']);
const numeric = /^(?:smallint|integer|bigint|oid|xid|real|double precision|numeric\b.*)$/;
const mostSubjects = 1_000;
const none: readonly string[] = [];
/** What rows without a value add up: they are only counted. */
const nothing = Value.of('0')!;

/** Reads events for a definition. It knows which columns of the key hold numbers, once an event of the schema has told. */
export class EventReader {
  readonly #definition: Definition;
  readonly #columns: readonly string[];
  readonly #targets = new Map<string, Target>();
  /** Changed by the events that are read. */
  numbers: ReadonlySet<string> = new Set();

  constructor(definition: Definition) {
    this.#definition = definition;
    const { by, value, time } = definition;
    this.#columns = [...by, ...(value === undefined ? [] : [value]), ...(time === undefined ? [] : [time])];
  }

  /** @throws HeadwaterError `bad_event`, `unknown_op`, and `no_primary_key` of `rows` */
  read(event: LogEvent): Reading {
    const target = this.#targetOf(event.subject);
    switch (target) {
      case 'none':
        return { kind: 'none', at: microsOf(event) };
      case 'schema': {
        const numbers = numbersOf(parse(event));
        this.numbers = new Set(numbers);
        return { kind: 'schema', at: microsOf(event), numbers };
      }
      case 'truncate':
        return { kind: this.#definition.of === 'rows' ? 'truncate' : 'none', at: microsOf(event) };
      default:
        return this.#definition.of === 'rows' ? this.#rowOf(event, target) : this.#observationOf(event, target);
    }
  }

  #observationOf(event: LogEvent, op: Target): Reading {
    if (op === 'read' || op === 'delete') return { kind: 'none', at: microsOf(event) };
    const members = parse(event);
    const at = timeOf(members);
    const { id } = members;
    if (typeof id !== 'string') throw badEvent('no id');
    return this.#reading(members, { row: '', rowBefore: undefined, id, at });
  }

  #rowOf(event: LogEvent, op: Target): Reading {
    const members = parse(event);
    const at = timeOf(members);
    const { key, before } = members;
    if (!isRow(key)) {
      const { table } = this.#definition;
      throw new HeadwaterError('no_primary_key', `${table} has no primary key, so its rows cannot be told apart: aggregate its changes`);
    }
    const row = nameOf(Object.values(key));
    const columns = Object.keys(key);
    const rowBefore =
      op === 'update' && isRow(before) && columns.every((column) => before[column] !== undefined)
        ? nameOf(columns.map((column) => before[column]))
        : undefined;
    if (op === 'delete')
      return { kind: 'row', at, row, rowBefore: undefined, given: undefined, givenBy: undefined, here: undefined, there: undefined };
    const id = sortableId(Object.values(key), (position) => this.numbers.has(columns[position]!));
    return this.#reading(members, { row, rowBefore: rowBefore === row ? undefined : rowBefore, id, at });
  }

  #reading(members: Row, head: Head): RowReading {
    const { after, unchanged, omitted } = members;
    const { at, row, rowBefore } = head;
    if (!isRow(after)) throw badEvent('no row');
    const holes = this.#missing(after, unchanged);
    const depends = holes.length > 0;
    const given = this.#missing(after, omitted).length > 0 ? 'omitted' : depends ? 'unchanged' : this.#entryOf(after, head);
    const givenBy = depends && given !== 'omitted' ? (before: Entry) => this.#entryOf(after, head, { columns: holes, before }) : undefined;
    return { kind: 'row', at, row, rowBefore, given, givenBy, here: undefined, there: undefined };
  }

  /** The columns that matter, are in such a list, and have no value. */
  #missing(after: Row, list: unknown): readonly string[] {
    return Array.isArray(list) ? this.#columns.filter((column) => after[column] === undefined && list.includes(column)) : none;
  }

  #entryOf(after: Row, { row, id, at }: Head, holes?: Holes): Contributed {
    const { by, value: column, time } = this.#definition;
    let decimal: Value | undefined = nothing;
    if (column !== undefined) {
      if (holes?.columns.includes(column)) decimal = holes.before.decimal;
      else {
        const given = after[column];
        if (given === undefined || given === null) return undefined;
        decimal = typeof given === 'string' ? Value.of(given) : typeof given === 'number' ? Value.of(printNumber(given)) : undefined;
        if (!decimal) return 'not_a_number';
      }
    }
    const when = time === undefined ? at : holes?.columns.includes(time) ? holes.before.at : eventTime(after[time]);
    if (when === undefined) return 'no_time';
    return { group: groupOf(by, after, holes), at: when, id, value: decimal.text, decimal, row, windows: undefined };
  }

  #targetOf(subject: string): Target {
    let target = this.#targets.get(subject);
    if (target === undefined) {
      target = this.#parseSubject(subject);
      if (this.#targets.size >= mostSubjects) this.#targets.clear();
      this.#targets.set(subject, target);
    }
    return target;
  }

  /** `<root>.<schema>.<table>.<op>` or `<root>._schema.<schema>.<table>` of the definition's table; everything else only tells the time. */
  #parseSubject(subject: string): Target {
    const [, first = '', second = '', last = '', ...more] = subject.split('.');
    if (last === '' || more.length > 0) return 'none';
    const isSchema = first === '_schema';
    const [schema, table] = isSchema ? [second, last] : [first, second];
    if (`${decodeToken(schema)}.${decodeToken(table)}` !== this.#definition.table) return 'none';
    if (isSchema) return 'schema';
    if (!rowOps.has(last))
      throw new HeadwaterError('unknown_op', `the operation ${JSON.stringify(last)} of an event on ${this.#definition.table} is not known`);
    return last as Target;
  }
}

/** What the row contributes from now on, if it contributed this before; undefined: nothing. */
export function contributionOf({ given, givenBy }: RowReading, before: Entry | undefined): Contributed {
  return givenBy && before ? givenBy(before) : given;
}

function groupOf(by: readonly string[], after: Row, holes?: Holes): string {
  const values: unknown[] = by.map((column) => after[column] ?? null);
  if (holes) {
    const before = JSON.parse(holes.before.group) as readonly unknown[];
    for (const [position, column] of by.entries()) if (holes.columns.includes(column)) values[position] = before[position];
  }
  return JSON.stringify(values);
}

function eventTime(given: unknown): Micros | undefined {
  return typeof given === 'string' ? parseEventTime(given) : undefined;
}

/** A number as Postgres prints a double precision. */
function printNumber(number: number): string {
  if (Number.isInteger(number) && Math.abs(number) < 1e15) return String(number);
  const [mantissa, exponent] = number.toExponential().split('e') as [string, string];
  const power = Number(exponent);
  if (power >= -4 && power < 15) return String(number);
  return `${mantissa}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`;
}

function nameOf(values: readonly unknown[]): string {
  return encodeRowKey(values.map((value) => (typeof value === 'string' ? value : JSON.stringify(value))));
}

/** The key's columns that hold numbers. */
function numbersOf({ columns }: Row): readonly string[] {
  if (!Array.isArray(columns)) throw badEvent('no columns');
  return columns.flatMap((column: unknown) => {
    const { name, type, key } = Object(column) as { readonly name?: unknown; readonly type?: unknown; readonly key?: unknown };
    return key === true && typeof name === 'string' && typeof type === 'string' && numeric.test(type) ? [name] : [];
  });
}

function timeOf({ at }: Row): Micros {
  const micros = typeof at === 'string' ? parseEventTime(at) : undefined;
  if (micros === undefined) throw badEvent('no time of commit');
  return micros;
}

function parse({ data }: LogEvent): Row {
  let members: unknown;
  try {
    members = JSON.parse(Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('utf8'));
  } catch {
    throw badEvent('no JSON');
  }
  if (!isRow(members)) throw badEvent('no JSON object');
  return members;
}

function isRow(value: unknown): value is Row {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function badEvent(what: string): HeadwaterError {
  return new HeadwaterError('bad_event', `the bytes are not an event of the log: ${what}`);
}
