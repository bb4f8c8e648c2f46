import type { NewEvent } from '../../pipeline/log/event-log.ts';
import { tableToken } from '../../schemas/subjects.ts';

export type Row = Readonly<Record<string, unknown>>;

export interface RowEventFields {
  readonly schema?: string;
  readonly table?: string;
  readonly key?: Row;
  readonly after?: Row;
  readonly before?: Row;
  readonly unchanged?: readonly string[];
  readonly omitted?: readonly string[];
  /** Of the commit; otherwise `n` makes it. */
  readonly at?: string;
}

/** An event as capture writes it, with its members in their fixed order. `n` makes its id and time. */
export function rowEvent(
  n: number,
  op: string,
  { schema = 'public', table = 'prices', key, after, before, at = atText(n), ...rest }: RowEventFields = {},
): NewEvent {
  const event = {
    v: 1,
    id: idText(n),
    type: 'row',
    op,
    table: `${schema}.${table}`,
    key,
    after,
    before,
    ...rest,
    tx: { xid: n, idx: 0, last: true },
    at,
  };
  return { subject: `ev.${tableToken(schema, table)}.${op}`, data: Buffer.from(JSON.stringify(event)) };
}

/** A tick of the database's clock. */
export function tickEvent(n: number): NewEvent {
  return { subject: 'ev._tick', data: Buffer.from(JSON.stringify({ v: 1, id: idText(n), type: 'tick', at: atText(n) })) };
}

export function idText(n: number): string {
  return `${n.toString(16).toUpperCase().padStart(16, '0')}.00000001`;
}

function atText(n: number): string {
  return new Date(Date.UTC(2026, 10, 22) + n).toISOString().replace('Z', '000Z');
}
