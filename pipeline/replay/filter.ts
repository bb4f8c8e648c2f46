import type { LogEvent } from '../log/event-log.ts';
import { matchesAny } from '../log/jetstream-log.ts';
import { decodeRowKey } from '../../schemas/row-key.ts';
import type { TableName } from '../../schemas/subjects.ts';
import type { RowOp } from './row-ops.ts';
import { rowScanner } from './row-scanner.ts';
import { isPlain, rowSubjects, type RowCondition, type RowEvent } from './row-condition.ts';

/** What is to be replayed; with nothing given all of the log. */
export interface FilterParts {
  /** First token of the log's subjects. */
  readonly subject: string;
  /** NATS subjects; not together with tables or operations. */
  readonly subjects?: readonly string[];
  readonly tables?: readonly TableName[];
  readonly ops?: readonly RowOp[];
  /** Rows by their keys, as paths and the cache have them: `ethereum%3A0xc02a`, `a:b`; a key of one column also as it is. */
  readonly keys?: readonly string[];
  /** A condition for each of the tables, by `tableToken`. */
  readonly where?: ReadonlyMap<string, RowCondition>;
  /** Leaves out the ticks of the clock. */
  readonly withoutTicks?: boolean;
}

/** Which events are replayed. */
export interface Filter {
  /** What the server is asked for; undefined: everything. Ticks come too, so that positions move on. */
  readonly subjects: readonly string[] | undefined;
  matches(event: LogEvent): boolean;
  /** Events that passed although they lack a value that `where` asks for. */
  readonly undecided: number;
}

/** Makes the filter. */
export function createFilter(parts: FilterParts): Filter {
  return new EventFilter(parts);
}

interface TableCondition extends RowCondition {
  readonly scan: ReturnType<typeof rowScanner>;
}

class EventFilter implements Filter {
  readonly subjects: readonly string[] | undefined;
  undecided = 0;
  readonly #tick: string;
  readonly #schemas: string;
  readonly #ticks: boolean;
  readonly #rowsOnly: boolean;
  readonly #keys: readonly WantedKey[] | undefined;
  readonly #where: ReadonlyMap<string, TableCondition> | undefined;
  readonly #prefix: number;
  #lastSubject = '';
  #lastCondition: TableCondition | undefined;

  constructor({ subject, subjects, tables, ops, keys, where, withoutTicks }: FilterParts) {
    this.#tick = `${subject}._tick`;
    this.#schemas = `${subject}._schema.`;
    this.#prefix = subject.length + 1;
    this.#keys = keys?.map(wantedKey);
    this.#where = where && new Map([...where].map(([token, one]) => [token, { ...one, scan: rowScanner(one.fields) }]));
    this.#rowsOnly = Boolean(tables ?? ops ?? keys ?? where);
    const rows = tables?.flatMap((table) => rowSubjects(subject, table, ops)) ?? ops?.map((op) => `${subject}.*.*.${op}`);
    const wanted = subjects ?? rows ?? (this.#rowsOnly ? [`${subject}.*.*.*`] : undefined);
    this.subjects = wanted && [...new Set([...wanted, this.#tick])];
    this.#ticks = !this.#rowsOnly && !withoutTicks && (!subjects || matchesAny(this.#tick, subjects));
  }

  matches(event: LogEvent): boolean {
    const { subject } = event;
    if (subject === this.#tick) return this.#ticks;
    if (!this.#rowsOnly) return true;
    // Of a table's columns, or of a table in a schema of that name: only the event tells.
    if (subject.startsWith(this.#schemas) && parse(event).op === undefined) return false;
    const condition = this.#where && this.#conditionOf(subject);
    if (this.#where && !condition) return false;
    if (this.#keys) {
      const bytes = bytesOf(event);
      if (!this.#keys.some((key) => mayHave(bytes, key))) return false;
    }
    if (condition?.needles && !mayMeet(bytesOf(event), subject, condition.needles)) return false;
    if (!this.#keys) return !condition || this.#passes(condition, event, condition.scan(event.data) ?? parse(event));
    const row = parse(event);
    return this.#keys.some((key) => hasKey(row, key)) && (!condition || this.#passes(condition, event, row));
  }

  /** Neighbours are mostly of one subject. */
  #conditionOf(subject: string): TableCondition | undefined {
    if (subject !== this.#lastSubject) {
      this.#lastSubject = subject;
      this.#lastCondition = this.#where?.get(subject.slice(this.#prefix, subject.lastIndexOf('.')));
    }
    return this.#lastCondition;
  }

  #passes(condition: RowCondition, { seq }: LogEvent, row: RowEvent): boolean {
    const verdict = condition.judge(row, seq);
    if (verdict === undefined) this.undecided++;
    return verdict !== false;
  }
}

function bytesOf({ data }: LogEvent): Buffer {
  return Buffer.from(data.buffer, data.byteOffset, data.length);
}

function parse(event: LogEvent): RowEvent {
  return JSON.parse(bytesOf(event).toString('utf8')) as RowEvent;
}

/** A row's key in the forms that it is compared in. */
interface WantedKey {
  readonly values: readonly string[];
  /** The text as it was given, where nothing is encoded in it: a key of one column may stand there as it is. */
  readonly raw: string | undefined;
  readonly needle: Buffer | undefined;
}

function wantedKey(raw: string): WantedKey {
  const values = decodeRowKey(raw) ?? [raw];
  // All of a composite key's values are in the event; looking for the longest says most.
  const longest = values.reduce((a, b) => (b.length > a.length ? b : a));
  return {
    values,
    raw: raw.includes('%') ? undefined : raw,
    needle: values.every(isPlain) && longest !== '' ? Buffer.from(longest) : undefined,
  };
}

function mayHave(bytes: Buffer, { needle }: WantedKey): boolean {
  return needle === undefined || bytes.includes(needle);
}

/** The key now, or the one before an update that changed it. */
function hasKey({ key, before }: RowEvent, wanted: WantedKey): boolean {
  if (!key) return false;
  const columns = Object.keys(key);
  if (
    isKey(
      columns.map((name) => key[name]),
      wanted,
    )
  )
    return true;
  return (
    before !== undefined &&
    columns.every((name) => Object.hasOwn(before, name)) &&
    isKey(
      columns.map((name) => before[name]),
      wanted,
    )
  );
}

function isKey(columns: readonly unknown[], { values, raw }: WantedKey): boolean {
  const texts = columns.map((value) => (typeof value === 'string' ? value : JSON.stringify(value)));
  if (texts.length === 1 && texts[0] === raw) return true;
  return texts.length === values.length && texts.every((text, i) => text === values[i]);
}

/** In every event with `"unchanged":[` or `"omitted":[`. */
const mark = Buffer.from('ed":[');

/** Quick, and on the safe side: false only when parsing the event could not end otherwise. */
function mayMeet(bytes: Buffer, subject: string, needles: readonly Buffer[]): boolean {
  if (needles.some((needle) => bytes.includes(needle))) return true;
  return subject.endsWith('.delete') || subject.endsWith('.truncate') || bytes.includes(mark);
}
