import type { LogEvent } from '../pipeline/log/event-log.ts';
import type { Output } from './output.ts';

type Row = Readonly<Record<string, unknown>>;

interface ShownEvent {
  readonly op?: string;
  readonly type?: string;
  readonly table?: string;
  readonly key?: Row;
  readonly before?: Row;
  readonly after?: Row;
  readonly at?: string;
}

/** One event as one line for a person: sequence, time, operation, table, key, and what changed. Cut to the terminal's width. */
export function eventLine({ seq, subject, data }: LogEvent, output: Output): string {
  const { dim, bold } = output.colors;
  const text = Buffer.from(data).toString('utf8');
  const event = parse(text);
  if (!event) return `${dim(String(seq))} ${subject} ${text.slice(0, 200)}`;
  const head = [String(seq).padStart(8), (event.at ?? '').slice(11, 23).padEnd(12), (event.op ?? event.type ?? '').padEnd(8)] as const;
  const where = event.table ?? subject.split('.').slice(1).join('.');
  const key = event.key ? Object.values(event.key).map(plain).join(' ') : '';
  const width = output.columns === undefined ? Infinity : Math.max(20, output.columns);
  const room = width - head.join(' ').length - where.length - key.length - 3;
  const change = event.op === undefined ? contentOf(text) : changes(event);
  return [dim(head[0]), dim(head[1]), colored(event, output)(head[2]), bold(where), key, dim(cut(change, room))].filter(Boolean).join(' ');
}

function parse(text: string): ShownEvent | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

function colored({ op }: ShownEvent, { colors }: Output): (text: string) => string {
  if (op === 'insert') return colors.green;
  if (op === 'update') return colors.yellow;
  if (op === 'delete' || op === 'truncate') return colors.red;
  return op === 'read' ? colors.cyan : colors.magenta;
}

/** With the old row known: what differs. Else the new row without its key. */
function changes({ op, key = {}, before, after }: ShownEvent): string {
  if (op === 'update' && before && after) {
    const names = Object.keys(after).filter((name) => name in before && plain(before[name]) !== plain(after[name]));
    if (names.length > 0) return names.map((name) => `${name} ${plain(before[name])} → ${plain(after[name])}`).join(', ');
  }
  return Object.entries(after ?? {})
    .filter(([name]) => !(name in key))
    .map(([name, value]) => `${name}=${plain(value)}`)
    .join(' ');
}

/** What an event that is no row says, without the envelope every event has. */
function contentOf(text: string): string {
  const { v: _v, id: _id, type: _type, at: _at, tx: _tx, ...rest } = JSON.parse(text) as Record<string, unknown>;
  return Object.keys(rest).length === 0 ? '' : JSON.stringify(rest);
}

/** A value on one line, harmless to a terminal. */
export function plain(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  // eslint-disable-next-line no-control-regex
  return (text ?? '').replace(/[\u0000-\u001f\u007f-\u009f]/g, ' ');
}

function cut(text: string, room: number): string {
  return text.length <= room ? text : `${text.slice(0, Math.max(0, room - 1))}…`;
}
