import { expect } from 'chai';
import type { JetStreamLog } from '../../../../pipeline/log/jetstream-log.ts';

export type Row = Readonly<Record<string, unknown>>;

/** An event of the log, parsed. */
export interface StoredEvent {
  readonly seq: number;
  readonly subject: string;
  readonly id: string;
  readonly type: string;
  readonly op?: string;
  readonly table?: string;
  readonly relation?: string;
  readonly key?: Row;
  readonly after?: Row;
  readonly before?: Row;
  readonly unchanged?: readonly string[];
  readonly prefix?: string;
  readonly content?: string;
  readonly mark?: string;
  readonly data?: Row;
  readonly tx?: { readonly xid: number; readonly idx: number; readonly last?: boolean };
  readonly at: string;
}

/** The whole log as it is now. */
export async function readLog(log: JetStreamLog): Promise<StoredEvent[]> {
  const { first: from, last } = await log.bounds();
  const found: StoredEvent[] = [];
  if (last < from) return found;
  for await (const events of log.read(from)) {
    for (const { seq, subject, data } of events)
      found.push({ seq, subject, ...(JSON.parse(Buffer.from(data).toString('utf8')) as Omit<StoredEvent, 'seq' | 'subject'>) });
    if (events.at(-1)!.seq >= last) break;
  }
  return found;
}

/** Waits until the log has an event that fits, and returns it. */
export async function waitFor(log: JetStreamLog, fits: (event: StoredEvent) => boolean, ms: number, what: string): Promise<StoredEvent> {
  const signal = AbortSignal.timeout(ms);
  const { first: from } = await log.bounds();
  for await (const events of log.read(from, { signal })) {
    for (const { seq, subject, data } of events) {
      const event = { seq, subject, ...(JSON.parse(Buffer.from(data).toString('utf8')) as Omit<StoredEvent, 'seq' | 'subject'>) };
      if (fits(event)) return event;
    }
  }
  throw new Error(`${what} was not logged within ${ms} ms`);
}

/**
 * What holds for every log: ids strictly increase; a transaction's events stand together, its indexes increase, and exactly
 * its last one says so.
 */
export function expectWellFormed(events: readonly StoredEvent[]): void {
  const ended = new Set<number>();
  let open: { xid: number; idx: number } | undefined;
  let previous = '';
  for (const { seq, id, tx, type } of events) {
    expect(id, `the id at ${seq}`).to.match(/^[0-9A-F]{16}\.[0-9A-F]{8}$/);
    if (id <= previous) expect.fail(`id ${id} at ${seq} follows ${previous}`);
    previous = id;
    if (open && tx?.xid !== open.xid) expect.fail(`event ${seq} stands within transaction ${open.xid}: ${JSON.stringify(tx)}`);
    if (!tx) continue;
    if (ended.has(tx.xid)) expect.fail(`transaction ${tx.xid} goes on at ${seq} after its last event`);
    // A schema event has the index of the change behind it.
    if (open && tx.idx <= open.idx && !(tx.idx === open.idx && type !== 'schema'))
      expect.fail(`index ${tx.idx} follows ${open.idx} at ${seq}`);
    open = tx.last ? undefined : { xid: tx.xid, idx: tx.idx };
    if (tx.last) ended.add(tx.xid);
  }
  if (open) expect.fail(`transaction ${open.xid} has no end`);
}

/** The rows of a table as the log tells them: by key, or, where rows have none, as a list without deletes. */
export function fold(events: readonly StoredEvent[], table: string): Map<string, Row> {
  const rows = new Map<string, Row>();
  for (const event of events) {
    if (event.table !== table) continue;
    if (event.op === 'truncate') rows.clear();
    if (!event.key) continue;
    const old = oldKey(event);
    const known = rows.get(old ?? keyText(event.key));
    if (old !== undefined) rows.delete(old);
    if (event.op === 'delete') rows.delete(keyText(event.key));
    else if (event.after) rows.set(keyText(event.key), withUnchanged(event, known));
  }
  return rows;
}

function withUnchanged({ after, unchanged }: StoredEvent, old: Row | undefined): Row {
  return unchanged ? { ...Object.fromEntries(unchanged.map((name) => [name, old?.[name]])), ...after } : after!;
}

function oldKey({ key, before }: StoredEvent): string | undefined {
  const names = Object.keys(key ?? {});
  if (!before || !names.every((name) => name in before)) return undefined;
  return keyText(Object.fromEntries(names.map((name) => [name, before[name]])));
}

function keyText(key: Row): string {
  return JSON.stringify(Object.values(key));
}

/** Rows as they would stand in `after`, sorted; to compare a folded log with a table. */
export function sortedRows(rows: Iterable<Row>): string[] {
  return [...rows].map((row) => JSON.stringify(Object.fromEntries(Object.entries(row).sort(([a], [b]) => (a < b ? -1 : 1))))).sort();
}
