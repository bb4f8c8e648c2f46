import type { LogEvent, Seq } from '../log/event-log.ts';
import { usage } from '../runtime/errors.ts';
import { columnType, type ColumnTypes } from '../../schemas/condition/column-type.ts';
import type { Comparison, Condition } from '../../schemas/condition/condition.ts';
import { compileFilter, usesOf, type Read } from '../../schemas/condition/evaluate.ts';
import { parseCondition } from '../../schemas/condition/parse.ts';
import { isDecimal } from '../../schemas/decimal.ts';
import { tableToken, type TableName } from '../../schemas/subjects.ts';

/** What a condition says of a row: undefined when the event does not have all that would decide it. */
export type Verdict = boolean | undefined;

/** A row of an event. */
type Row = Readonly<Record<string, unknown>>;

/** A row event's members that a condition looks at. */
export interface RowEvent {
  readonly op?: string;
  readonly key?: Row;
  readonly after?: Row;
  readonly before?: Row;
  readonly unchanged?: readonly string[];
  readonly omitted?: readonly string[];
  readonly jsonNull?: readonly string[];
}

/** What is asked of the log about a table's columns. */
export interface SchemaLog {
  nextOf(subject: string, from: Seq): Promise<LogEvent | undefined>;
}

/** The columns of a table from a sequence on. */
export interface TableVersion {
  readonly seq: Seq;
  readonly columns: ColumnTypes;
  /** Those of the primary key, in the table's order; empty without one. */
  readonly key: readonly string[];
}

/** A condition on the rows of one table. */
export interface RowCondition {
  /** Judges an event of the table. A truncate concerns every row, and so passes. */
  judge(event: RowEvent, seq: Seq): Verdict;
  /** One of these texts is in the bytes of every row that meets the condition; undefined: no such texts are known. */
  readonly needles: readonly Buffer[] | undefined;
  /** The columns that it looks at. */
  readonly fields: readonly string[];
  /** False when the log no longer tells the table's columns: then values compare as their JSON forms suggest. */
  readonly typed: boolean;
}

/**
 * Reads a condition in the grammar of queries for a table, with its columns as they were along the log up to `last`.
 * @param subject first token of the log's subjects
 * @throws HeadwaterError `bad_where` (usage): what is wrong, and where
 */
export async function rowCondition(log: SchemaLog, subject: string, table: TableName, text: string, last: Seq): Promise<RowCondition> {
  const versions = await versionsOf(log, subject, table, last);
  // A column that has come or gone meanwhile can be asked for as well.
  const known = versions.length === 0 ? undefined : new Map(versions.flatMap(({ columns }) => [...columns]));
  const parsed = parseCondition(text, { columns: known, name: 'where' });
  if (parsed.problems)
    throw usage(
      'bad_where',
      parsed.problems.map(({ message, column }) => `--where, at ${column}: ${message}`).join('\n'),
      `it is a condition on the columns of ${table.schema}.${table.table}, like: price > 100 AND chain IN ("base", "optimism")`,
    );
  const condition = parsed.value;
  const compiled = versions.map(({ seq, columns }) => ({ seq, judge: compile(condition, columns) }));
  const untyped = compile(condition, undefined);
  let at = 0;
  const judgeAt = (seq: Seq): Judge => {
    while (at > 0 && compiled[at]!.seq > seq) at--;
    while (at + 1 < compiled.length && compiled[at + 1]!.seq <= seq) at++;
    return compiled[at]?.judge ?? untyped;
  };
  return {
    judge: (event, seq) => judgeEvent(event, judgeAt(seq)),
    needles: needlesOf(
      condition,
      versions.map(({ columns }) => columns),
    )?.map((needle) => Buffer.from(needle)),
    fields: usesOf(condition).fields,
    typed: versions.length > 0,
  };
}

/** A table's columns along the log, up to `last` or the first that the log tells; empty when it no longer tells any. */
export async function versionsOf(
  log: SchemaLog,
  subject: string,
  { schema, table }: TableName,
  last: Seq,
): Promise<readonly TableVersion[]> {
  const versions: TableVersion[] = [];
  for (let from = 1; ;) {
    const event = await log.nextOf(`${subject}._schema.${tableToken(schema, table)}`, from);
    if (!event || (event.seq > last && versions.length > 0)) return versions;
    const { columns } = JSON.parse(Buffer.from(event.data).toString('utf8')) as {
      columns: readonly { name: string; type: string; key?: boolean }[];
    };
    versions.push({
      seq: event.seq,
      columns: new Map(columns.map(({ name, type }) => [name, type])),
      key: columns.filter(({ key }) => key).map(({ name }) => name),
    });
    from = event.seq + 1;
  }
}

/** A row, and which of its columns' values are not known. */
interface View {
  readonly read: Read;
  readonly knows: (field: string) => boolean;
}

type Judge = (view: View) => Verdict;

/** Two-valued as queries are, with a third value for a column that the event does not have. */
function compile(condition: Condition, columns: ColumnTypes | undefined): Judge {
  if ('and' in condition)
    return all(
      condition.and.map((part) => compile(part, columns)),
      false,
    );
  if ('or' in condition)
    return all(
      condition.or.map((part) => compile(part, columns)),
      true,
    );
  if ('not' in condition) {
    const inner = compile(condition.not, columns);
    return (view) => {
      const verdict = inner(view);
      return verdict === undefined ? undefined : !verdict;
    };
  }
  const test = compileFilter(condition, columns);
  const { field } = condition;
  return ({ read, knows }) => (knows(field) ? test(read) === true : undefined);
}

/** `decisive`: the verdict of one part that settles the whole. */
function all(parts: readonly Judge[], decisive: boolean): Judge {
  return (view) => {
    let open = false;
    for (const part of parts) {
      const verdict = part(view);
      if (verdict === decisive) return decisive;
      if (verdict === undefined) open = true;
    }
    return open ? undefined : !decisive;
  };
}

/** By the new row, or by the old one where Postgres gives it: a row that stops meeting the condition is seen to. */
function judgeEvent(event: RowEvent, judge: Judge): Verdict {
  const { op, after, before } = event;
  if (op === 'truncate') return true;
  const now = after && judge(viewOf(after, event, missingOf(event)));
  if (now === true || !before) return now;
  const then = judge(viewOf(before, event, undefined));
  if (op === 'delete') return then;
  return then === true ? true : now;
}

const none: readonly string[] = [];

function missingOf({ unchanged, omitted }: RowEvent): readonly string[] {
  return unchanged && omitted ? [...unchanged, ...omitted] : (unchanged ?? omitted ?? none);
}

/** `missing`: columns whose values are not known; undefined: all that are not in the row. */
function viewOf(row: Row, { jsonNull }: RowEvent, missing: readonly string[] | undefined): View {
  return {
    read: (field) => {
      const value = Object.hasOwn(row, field) ? row[field] : undefined;
      return value === null && jsonNull?.includes(field) ? {} : value;
    },
    knows: (field) => (missing ? !missing.includes(field) : Object.hasOwn(row, field)),
  };
}

/** More of them would take longer to look for than the event takes to parse. */
const mostNeedles = 16;

/**
 * Texts of which each row that meets the condition has at least one: quoted values of text columns that must be equal to them. Only plain
 * ones, since others could be spelled in several ways.
 */
function needlesOf(condition: Condition, versions: readonly ColumnTypes[]): readonly string[] | undefined {
  if ('not' in condition) return undefined;
  if ('and' in condition) return condition.and.map((part) => needlesOf(part, versions)).find((needles) => needles !== undefined);
  if ('or' in condition) {
    const parts = condition.or.map((part) => needlesOf(part, versions));
    const needles = parts.flatMap((part) => part ?? []);
    return parts.includes(undefined) || needles.length > mostNeedles ? undefined : needles;
  }
  return leafNeedles(condition, versions);
}

function leafNeedles({ field, op, value }: Comparison, versions: readonly ColumnTypes[]): readonly string[] | undefined {
  const values = op === 'eq' ? [value] : op === 'in' ? (value as readonly unknown[]) : [];
  if (values.length === 0 || values.length > mostNeedles) return undefined;
  const spelled = versions.length === 0 ? [columnType(undefined)] : versions.map((columns) => columnType(columns.get(field)));
  const plain = spelled.every(({ family, name }) => (family === 'text' && !name.startsWith('character(')) || family === 'open');
  const open = spelled.some(({ family }) => family === 'open');
  if (!plain || !values.every((one) => typeof one === 'string' && isPlain(one) && !(open && isDecimal(one)))) return undefined;
  return values.map((one) => `"${one as string}"`);
}

/** Has the text one spelling only in the JSON of events? */
export function isPlain(text: string): boolean {
  return /^[\w .,:;+@#()-]+$/.test(text);
}

/** The subjects of a table's rows: of some operations, or of all. */
export function rowSubjects(subject: string, { schema, table }: TableName, ops: readonly string[] | undefined): readonly string[] {
  return (ops ?? ['*']).map((op) => `${subject}.${tableToken(schema, table)}.${op}`);
}
