import type { LogEvent } from '../../../pipeline/log/event-log.ts';
import { microsOf } from '../../../pipeline/runner/event-head.ts';
import { HeadwaterError } from '../../../pipeline/runtime/errors.ts';
import { ownSchema } from '../../../schemas/catalog.ts';
import { decodeToken } from '../../../schemas/subjects.ts';
import type { Micros } from '../model.ts';

export type Row = Readonly<Record<string, unknown>>;

export type RowOp = 'insert' | 'update' | 'delete' | 'truncate' | 'read';

/** What a subject says of its events. */
export type Target =
  | { readonly kind: 'row'; readonly table: string; readonly op: RowOp }
  | { readonly kind: 'schema'; readonly table: string }
  | { readonly kind: 'rule'; readonly op: RowOp }
  | { readonly kind: 'time' };

/** A row event, taken apart. */
export interface RowRecord {
  readonly key: Row | undefined;
  readonly after: Row | undefined;
  readonly before: Row | undefined;
}

const ops: ReadonlySet<string> = new Set<RowOp>(['insert', 'update', 'delete', 'truncate', 'read']);
const time: Target = { kind: 'time' };
const rulesTable = 'alert_rules';

/** @throws HeadwaterError `unknown_op` */
export function targetOf(subject: string): Target {
  const [, first = '', second = '', last = '', ...more] = subject.split('.');
  if (last === '' || more.length > 0) return time;
  if (first === '_schema') return { kind: 'schema', table: `${decodeToken(second)}.${decodeToken(last)}` };
  if (first.startsWith('_') && ['_message', '_mark', '_tick'].includes(first)) return time;
  const [schema, table] = [decodeToken(first), decodeToken(second)];
  if (schema === ownSchema && table !== rulesTable) return time;
  if (!ops.has(last))
    throw new HeadwaterError('unknown_op', `the operation ${JSON.stringify(last)} of an event on ${schema}.${table} is not known`);
  const op = last as RowOp;
  return schema === ownSchema ? { kind: 'rule', op } : { kind: 'row', table: `${schema}.${table}`, op };
}

/** @throws HeadwaterError `bad_event` */
export function timeOf(event: LogEvent): Micros {
  const at = microsOf(event);
  if (at === undefined) throw badEvent('no time of commit');
  return at;
}

/** Stands for JSON `null` in a column that is not NULL. */
const jsonNull: readonly string[] = ['JSON null'];

/** @throws HeadwaterError `bad_event` */
export function rowRecord(event: LogEvent, op: RowOp): RowRecord {
  const members = parse(event);
  const [key, given, before] = [rowOf(members, 'key'), rowOf(members, 'after'), rowOf(members, 'before')];
  if (!given && (op === 'insert' || op === 'update' || op === 'read')) throw badEvent('no row');
  const nulls = members['jsonNull'];
  const after = given && Array.isArray(nulls) ? withJsonNulls(given, nulls as readonly unknown[]) : given;
  return { key, after, before };
}

/** Column → type. @throws HeadwaterError `bad_event` */
export function columnsOf(event: LogEvent): ReadonlyMap<string, string> {
  const { columns } = parse(event);
  if (!Array.isArray(columns)) throw badEvent('no columns');
  const types = new Map<string, string>();
  for (const column of columns as readonly unknown[]) {
    const { name, type } = Object(column) as { readonly name?: unknown; readonly type?: unknown };
    if (typeof name !== 'string' || typeof type !== 'string') throw badEvent('a column without name or type');
    types.set(name, type);
  }
  return types;
}

/** The event's JSON. */
export function textOfEvent({ data }: LogEvent): string {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('utf8');
}

function parse(event: LogEvent): Row {
  let members: unknown;
  try {
    members = JSON.parse(textOfEvent(event));
  } catch {
    throw badEvent('no JSON');
  }
  if (!isRow(members)) throw badEvent('no JSON object');
  return members;
}

function rowOf(members: Row, name: string): Row | undefined {
  const value = Object.hasOwn(members, name) ? members[name] : undefined;
  if (value === undefined) return undefined;
  if (!isRow(value)) throw badEvent(`a ${name} that is no row`);
  return value;
}

function withJsonNulls(row: Row, columns: readonly unknown[]): Row {
  const entries = Object.entries(row).map(([name, value]): [string, unknown] => [name, columns.includes(name) ? jsonNull : value]);
  return Object.fromEntries(entries);
}

function isRow(value: unknown): value is Row {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function badEvent(what: string): HeadwaterError {
  return new HeadwaterError('bad_event', `the bytes are not an event of the log: ${what}`);
}
