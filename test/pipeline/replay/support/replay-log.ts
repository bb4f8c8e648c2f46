import type { NatsConnection } from '../../../../pipeline/clients/nats.ts';
import type { LogEvent, NewEvent } from '../../../../pipeline/log/event-log.ts';
import { idText, rowEvent, tickEvent } from '../../../support/row-events.ts';
import { freshLog, type FreshLog } from '../../log/support/fresh-log.ts';

const chains = ['base', 'ethereum', 'optimism', 'polygon'];

/** Puts an event into the log of this subject. */
export function inLog(subject: string, { subject: own, data }: NewEvent): NewEvent {
  return { subject: own.replace(/^ev\./, `${subject}.`), data };
}

/** What tells a table's columns. */
export function schemaEvent(n: number, table: string, columns: Readonly<Record<string, string>>): NewEvent {
  const list = Object.entries(columns).map(([name, type], i) => ({ name, type, key: i === 0 }));
  const event = { v: 1, id: idText(n), type: 'schema', relation: `public.${table}`, columns: list, at: '2026-11-22T00:00:00.000000Z' };
  return { subject: `ev._schema.public.${table}`, data: Buffer.from(JSON.stringify(event)) };
}

/** The nth event of a log with a tick each tenth event, orders each seventh, and prices; all a millisecond apart. */
export function nthEvent(n: number): NewEvent {
  if (n === 1) return schemaEvent(n, 'prices', { token_id: 'text', price: 'numeric(20,2)', chain: 'text', note: 'text' });
  if (n === 2) return schemaEvent(n, 'orders', { id: 'bigint', line: 'integer', qty: 'integer' });
  if (n % 10 === 0) return tickEvent(n);
  if (n % 7 === 0)
    return rowEvent(n, 'insert', {
      table: 'orders',
      key: { id: String(n % 50), line: n % 3 },
      after: { id: String(n % 50), line: n % 3, qty: n },
    });
  const token = `${chains[n % 4]}:0x${n % 100}`;
  const row = { token_id: token, price: `${n}.50`, chain: chains[n % 4], note: 'é😀 "quoted"' };
  const key = { token_id: token };
  if (n % 11 === 0) return rowEvent(n, 'delete', { key, before: key });
  return rowEvent(n, n % 2 === 0 ? 'update' : 'insert', { key, after: row });
}

/** A log on a stream of its own with that many events. */
export async function filledLog(connection: NatsConnection, count: number, nth: (n: number) => NewEvent = nthEvent): Promise<FreshLog> {
  const fresh = await freshLog(connection);
  for (let from = 1; from <= count; from += 1_000) {
    const size = Math.min(1_000, count - from + 1);
    await fresh.log.append(
      Array.from({ length: size }, (_, i) => inLog(fresh.subject, nth(from + i))),
      from - 1,
    );
  }
  return fresh;
}

/** The same events as a reader would get them. */
export function eventsOf(subject: string, count: number, nth: (n: number) => NewEvent = nthEvent): readonly LogEvent[] {
  return Array.from({ length: count }, (_, i) => ({ seq: i + 1, ...inLog(subject, nth(i + 1)) }));
}

/** An event's line in a file. */
export function lineOf({ seq, data }: LogEvent): string {
  return `{"seq":${seq},"event":${Buffer.from(data).toString('utf8')}}\n`;
}
