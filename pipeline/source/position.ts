/** A Postgres log sequence number. */
export type Lsn = bigint;

/** Where an event stands: strictly increasing along the log within an epoch. */
export interface Position {
  readonly lsn: Lsn;
  /** Place among the events of that LSN, unsigned 32 bit. */
  readonly index: number;
}

/** Events of a backfill stand between transactions: the LSN of the event before them, and an index from here on. */
export const backfillIndex = 0x80000000;

/** `<LSN, 16 hex>.<index, 8 hex>`. */
export function formatId({ lsn, index }: Position): string {
  return `${formatIdLsn(lsn)}.${formatIndex(index)}`;
}

export function formatIdLsn(lsn: Lsn): string {
  return lsn.toString(16).toUpperCase().padStart(16, '0');
}

function formatIndex(index: number): string {
  return index.toString(16).toUpperCase().padStart(8, '0');
}

/** The position in an event's `id`. Throws when it is not one. */
export function parseId(id: string): Position {
  const match = /^([0-9A-F]{16})\.([0-9A-F]{8})$/.exec(id);
  if (!match) throw new Error(`not an event id: ${id.slice(0, 60)}`);
  return { lsn: BigInt(`0x${match[1]}`), index: parseInt(match[2]!, 16) };
}

/** Negative, zero or positive, as `a` stands before, at or after `b`. */
export function comparePositions(a: Position, b: Position): number {
  return a.lsn === b.lsn ? a.index - b.index : a.lsn < b.lsn ? -1 : 1;
}

/** `16/B374D848` as Postgres prints it. */
export function formatLsn(lsn: Lsn): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}`;
}

export function parseLsn(text: string): Lsn {
  const match = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(text);
  if (!match) throw new Error(`not an LSN: ${text.slice(0, 40)}`);
  return (BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`);
}

const microsecondsTo2000 = 946_684_800_000_000;

/** Postgres's microseconds since 2000 as `2026-11-22T12:00:00.123456Z`. */
export function formatPgTime(sinceY2k: number): string {
  const micros = sinceY2k + microsecondsTo2000;
  const millis = Math.floor(micros / 1_000);
  return `${new Date(millis).toISOString().slice(0, -1)}${String(micros - millis * 1_000).padStart(3, '0')}Z`;
}

/** This machine's clock in the same form, for events that Postgres gives no time. */
export function nowMicros(): string {
  return formatPgTime(Math.round((performance.timeOrigin + performance.now()) * 1_000) - microsecondsTo2000);
}
