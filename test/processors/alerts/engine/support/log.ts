import type { LogEvent } from '../../../../../pipeline/log/event-log.ts';

export type Row = Readonly<Record<string, unknown>>;

/** An event of a test's log, before it has a sequence. */
export interface TestEvent {
  readonly kind: 'row' | 'schema' | 'tick';
  /** Seconds since the log's beginning. */
  readonly at: number;
  readonly table?: string;
  readonly op?: 'insert' | 'update' | 'delete' | 'truncate' | 'read';
  readonly key?: Row;
  readonly after?: Row;
  readonly before?: Row;
  readonly columns?: Readonly<Record<string, string>>;
}

const start = Date.UTC(2026, 10, 22);

export function microsAt(seconds: number): number {
  return start * 1_000 + Math.round(seconds * 1e6);
}

export function idAt(seq: number): string {
  return `${seq.toString(16).toUpperCase().padStart(16, '0')}.00000001`;
}

/** The events as the log has them, from sequence `first` on. */
export function logOf(events: readonly TestEvent[], first = 1): readonly LogEvent[] {
  return events.map((event, i) => logEvent(event, first + i));
}

export function logEvent({ kind, at, table = 'public.t', op, key, after, before, columns }: TestEvent, seq: number): LogEvent {
  const head = { v: 1, id: idAt(seq) };
  const time = { at: timeText(at) };
  if (kind === 'tick') return { seq, subject: 'ev._tick', data: bytes({ ...head, type: 'tick', ...time }) };
  if (kind === 'schema') {
    const list = Object.entries(columns ?? {}).map(([name, type]) => ({ name, type, key: name === 'id' }));
    return { seq, subject: `ev._schema.${table}`, data: bytes({ ...head, type: 'schema', relation: table, columns: list, ...time }) };
  }
  return { seq, subject: `ev.${table}.${op}`, data: bytes({ ...head, type: 'row', op, table, key, after, before, ...time }) };
}

function timeText(seconds: number): string {
  const micros = microsAt(seconds);
  const text = new Date(Math.floor(micros / 1_000)).toISOString().slice(0, -1);
  return `${text}${String(micros % 1_000).padStart(3, '0')}Z`;
}

function bytes(value: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(value));
}

/** Members of a rule's row; what is left out has the default of the database. */
export interface RuleFields {
  readonly id: string;
  readonly revision?: number;
  readonly table_name?: string;
  readonly match?: unknown;
  readonly group_by?: readonly string[] | null;
  readonly condition?: unknown;
  readonly clear_condition?: unknown;
  readonly for_seconds?: number;
  readonly keep_firing_for_seconds?: number;
  readonly enabled?: boolean;
  readonly [column: string]: unknown;
}

export function ruleRow(fields: RuleFields): Row {
  return {
    user_id: 'ann',
    revision: 1,
    name: `rule ${fields.id}`,
    table_name: 'public.t',
    match: {},
    group_by: null,
    condition: { field: 'a', op: 'gt', value: 50 },
    clear_condition: null,
    for_seconds: 0,
    keep_firing_for_seconds: 0,
    cooldown_seconds: 0,
    severity: 'info',
    enabled: true,
    ...fields,
  };
}

export function ruleEvent(at: number, op: 'insert' | 'update' | 'read' | 'delete', fields: RuleFields): TestEvent {
  const row = ruleRow(fields);
  const key = { id: fields.id };
  const table = 'headwater.alert_rules';
  return op === 'delete' ? { kind: 'row', at, table, op, key, before: key } : { kind: 'row', at, table, op, key, after: row };
}
