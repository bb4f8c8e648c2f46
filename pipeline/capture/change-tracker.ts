import type { Seq } from '../log/event-log.ts';
import type { Visibility } from './visibility.ts';

/** The parts of a row event that say which rows it changed. */
interface RowEvent {
  readonly op?: string;
  readonly key?: Readonly<Record<string, unknown>>;
  readonly before?: Readonly<Record<string, unknown>>;
  readonly tx?: { readonly xid: number };
}

/** An event that has been logged. */
export interface Logged {
  readonly data: Uint8Array;
  readonly xid: number | undefined;
  readonly table: string | undefined;
}

interface Changes {
  readonly byKey: Map<string, number[]>;
  truncates: number[];
}

/** A row's primary key as one string. */
export function keyString(key: Readonly<Record<string, unknown>>): string {
  return JSON.stringify(Object.values(key));
}

/**
 * Which rows of the tables under backfill have been changed by logged transactions. A chunk that was read in a snapshot that
 * does not see such a transaction holds the row as it was before, and must not be logged after the change. (A commit can be
 * streamed before it is visible, and for long with synchronous replication: positions in the WAL alone do not tell.)
 */
export class ChangeTracker {
  readonly #tables = new Map<string, Changes>();
  /** Logged transactions that were not yet seen by a snapshot, oldest first, with the sequence of their first event. */
  #unseen: { xid: number; seq: Seq }[] = [];

  track(table: string): void {
    if (!this.#tables.has(table)) this.#tables.set(table, { byKey: new Map(), truncates: [] });
  }

  untrack(table: string): void {
    this.#tables.delete(table);
  }

  /** Takes note of events as they are logged, the first of them at `firstSeq`. */
  logged(events: readonly Logged[], firstSeq: Seq): void {
    for (const [i, event] of events.entries()) {
      if (event.xid !== undefined && this.#unseen.at(-1)?.xid !== event.xid) this.#unseen.push({ xid: event.xid, seq: firstSeq + i });
      if (event.table !== undefined && this.#tables.size > 0) this.note(event);
    }
  }

  /** Takes note of one event of a tracked table. */
  note({ data, xid, table }: Logged): void {
    const changes = table === undefined ? undefined : this.#tables.get(table);
    if (!changes || xid === undefined) return;
    const event = JSON.parse(Buffer.from(data).toString('utf8')) as RowEvent;
    if (event.op === 'truncate') changes.truncates.push(xid);
    for (const key of changedKeys(event)) {
      const xids = changes.byKey.get(key);
      if (xids) xids.push(xid);
      else changes.byKey.set(key, [xid]);
    }
  }

  /** Was this row changed by a logged transaction that the snapshot does not see? */
  outdated(table: string, key: string, snapshot: Visibility): boolean {
    const changes = this.#tables.get(table);
    if (!changes) return false;
    const unseen = (xid: number): boolean => !snapshot.sees(xid);
    return changes.truncates.some(unseen) || (changes.byKey.get(key)?.some(unseen) ?? false);
  }

  /** Forgets the transactions that this snapshot, and therefore every later one, sees. */
  forgetTransactions(snapshot: Visibility): void {
    this.#unseen = this.#unseen.filter(({ xid }) => !snapshot.sees(xid));
  }

  /** The same for the changes of rows. Only with the snapshot of the chunk that comes next: an older chunk still needs them. */
  forgetChanges(snapshot: Visibility): void {
    for (const changes of this.#tables.values()) {
      changes.truncates = changes.truncates.filter((xid) => !snapshot.sees(xid));
      for (const [key, xids] of changes.byKey) {
        const left = xids.filter((xid) => !snapshot.sees(xid));
        if (left.length === 0) changes.byKey.delete(key);
        else if (left.length < xids.length) changes.byKey.set(key, left);
      }
    }
  }

  /** How many logged transactions no snapshot has been known to see. */
  get unseen(): number {
    return this.#unseen.length;
  }

  /** From where the log has events of transactions that no snapshot has been known to see. */
  get oldestUnseenSeq(): Seq | undefined {
    return this.#unseen[0]?.seq;
  }
}

/** The new key, and the old one where the change moved the row. */
function changedKeys({ key, before }: RowEvent): readonly string[] {
  if (!key) return [];
  const names = Object.keys(key);
  const old = before && names.every((name) => name in before) ? Object.fromEntries(names.map((name) => [name, before[name]])) : undefined;
  const keys = [keyString(key), ...(old ? [keyString(old)] : [])];
  return [...new Set(keys)];
}
