import { expect } from 'chai';
import type { PgClient } from '../../../../pipeline/clients/postgres.ts';
import { sortedRows, fold, type Row, type StoredEvent } from './stored-events.ts';

/** Changes that the database made at once: a transaction, or a message outside of any. Each change is one line of text. */
interface Entry {
  readonly xid: number;
  readonly lines: string[];
}

/**
 * The database's own history, read through a second slot by another output plugin (`test_decoding` of PostgreSQL's contrib):
 * what the log must say, in the same order.
 */
export class Oracle {
  readonly #slot: string;

  private constructor(slot: string) {
    this.#slot = slot;
  }

  /** History counts from here on. */
  static async create(client: PgClient, slot = 'oracle'): Promise<Oracle> {
    await client.query(`SELECT pg_create_logical_replication_slot($1, 'test_decoding')`, [slot]);
    return new Oracle(slot);
  }

  /** Everything up to a message with this prefix, which is the last entry. */
  async entriesTo(client: PgClient, prefix: string): Promise<Entry[]> {
    const { rows } = await client.query<{ xid: string; data: string }>(
      `SELECT xid::text, data FROM pg_logical_slot_peek_changes($1, NULL, NULL, 'skip-empty-xacts', '0')`,
      [this.#slot],
    );
    const entries: Entry[] = [];
    let open: Entry | undefined;
    for (const { xid, data } of rows) {
      if (data.startsWith('BEGIN')) open = { xid: Number(xid), lines: [] };
      else if (data.startsWith('COMMIT')) {
        // Transactions of other things than tables and messages (a vacuum, a CREATE PUBLICATION) have no changes.
        if (open!.lines.length > 0) entries.push(open!);
        open = undefined;
      } else if (open) open.lines.push(changeLine(data));
      else entries.push({ xid: 0, lines: [changeLine(data)] });
    }
    return entries.slice(0, entries.findLastIndex(({ lines }) => lines.some((line) => line.startsWith(`message ${prefix} `))) + 1);
  }
}

/** One line of test_decoding in the form of `eventLine`. */
function changeLine(data: string): string {
  const message = /^message: transactional: ([01]) prefix: (.*?), sz: \d+ content:(.*)$/su.exec(data);
  if (message) return `message ${message[2]} ${message[3]}`;
  const change = /^table (\S+): (INSERT|UPDATE|DELETE|TRUNCATE): (.*)$/su.exec(data);
  if (!change) throw new Error(`not understood: ${data.slice(0, 100)}`);
  const [, table, op, rest] = change as unknown as [string, string, string, string];
  if (op === 'TRUNCATE') return `${table} truncate`;
  const parts = /^old-key: (.*) new-tuple: (.*)$/su.exec(rest);
  if (op === 'DELETE') return `${table} delete ${columns(rest)}`;
  return parts ? `${table} update ${columns(parts[1]!)} -> ${columns(parts[2]!)}` : `${table} ${op.toLowerCase()} ${columns(rest)}`;
}

/** `id[integer]:5 v[text]:'it''s'` as `id=5 v=it's`. */
function columns(text: string): string {
  const found = text.matchAll(/(\w+)\[[^\]]+\]:('(?:[^']|'')*'|\S+)/gu);
  return [...found]
    .map(([, name, value]) => `${name}=${value!.startsWith("'") ? value!.slice(1, -1).replaceAll("''", "'") : value}`)
    .join(' ');
}

function eventLine({ type, op, table, before, after, prefix, content }: StoredEvent): string {
  if (type === 'tick') return 'message headwater.tick ';
  if (type === 'message') return `message ${prefix} ${content}`;
  if (op === 'delete') return `${table} delete ${rowText(withoutNulls(before))}`;
  if (op === 'truncate') return `${table} truncate`;
  return before ? `${table} ${op} ${rowText(withoutNulls(before))} -> ${rowText(after)}` : `${table} ${op} ${rowText(after)}`;
}

/** test_decoding leaves NULL out of old rows. */
function withoutNulls(row: Row | undefined): Row {
  return Object.fromEntries(Object.entries(row ?? {}).filter(([, value]) => value !== null));
}

function rowText(row: Row | undefined): string {
  return Object.entries(row ?? {})
    .map(([name, value]) => `${name}=${value === null ? 'null' : String(value)}`)
    .join(' ');
}

function loggedEntries(events: readonly StoredEvent[]): Entry[] {
  const entries: Entry[] = [];
  for (const event of events) {
    if (event.type === 'schema' || event.type === 'mark' || event.op === 'read') continue;
    const xid = event.tx?.xid ?? 0;
    const last = entries.at(-1);
    if (last && xid !== 0 && last.xid === xid) last.lines.push(eventLine(event));
    else entries.push({ xid, lines: [eventLine(event)] });
  }
  return entries;
}

/** Every change of the database is in the log once, in the same order, in the same transactions. */
export function expectSameHistory(history: readonly Entry[], events: readonly StoredEvent[]): void {
  const logged = loggedEntries(events);
  const length = Math.max(history.length, logged.length);
  for (let i = 0; i < length; i++) {
    const [want, have] = [history[i], logged[i]];
    const same =
      want &&
      have &&
      want.xid === have.xid &&
      want.lines.length === have.lines.length &&
      want.lines.every((line, n) => line === have.lines[n]);
    if (!same)
      expect.fail(
        `entry ${i} of ${length} differs.\nthe database: ${shown(want)}\nthe log:      ${shown(have)}\n${firstDifference(want, have)}`,
      );
  }
}

function shown(entry: Entry | undefined): string {
  return entry
    ? `transaction ${entry.xid}, ${entry.lines.length} changes: ${entry.lines.slice(0, 3).join(' | ').slice(0, 300)}`
    : 'nothing';
}

function firstDifference(want: Entry | undefined, have: Entry | undefined): string {
  const n = want?.lines.findIndex((line, i) => line !== have?.lines[i]) ?? -1;
  return n < 0 ? '' : `change ${n}: ${want?.lines[n]}\n  against ${have?.lines[n]}`;
}

/** Folding the log gives each table as it is. Values are compared as texts, in the columns' order. */
export async function expectSameTables(client: PgClient, events: readonly StoredEvent[], tables: readonly string[]): Promise<void> {
  for (const table of tables) {
    const { rows } = await client.query<Row>(`SELECT * FROM ${table}`);
    const texts = (row: Row): Row =>
      Object.fromEntries(Object.entries(row).map(([name, value]) => [name, value === null ? null : String(value)]));
    const expected = sortedRows(rows.map(texts));
    const folded = sortedRows([...fold(events, table).values()].map(texts));
    const held = new Set(folded);
    const missing = expected.filter((row) => !held.has(row));
    if (missing.length > 0 || folded.length !== expected.length)
      expect.fail(`${table} has ${expected.length} rows, the log folds to ${folded.length}; missing: ${missing.slice(0, 3).join(' ')}`);
  }
}
