import type { Seq } from '../log/event-log.ts';
import type { Visibility } from './visibility.ts';

/** The parts of a row event that say which rows it changed. */
interface RowEvent {
  readonly op?: string;
  readonly key?: Key;
  readonly before?: Key;
  readonly unchanged?: readonly string[];
}

/** A row's primary key as an event has it. */
export type Key = Readonly<Record<string, unknown>>;

/** An event that has been logged. */
export interface Logged {
  readonly data: Uint8Array;
  readonly xid: number | undefined;
  readonly table: string | undefined;
}

/** One event of a row. */
interface Change {
  /** The event's. */
  readonly seq: Seq;
  readonly xid: number;
  /** The row's key before and after; undefined where there is no row. */
  readonly from: string | undefined;
  readonly to: string | undefined;
  /** The event, when it has only a part of the row: Postgres does not send large values again that have not changed. */
  readonly part: Uint8Array | undefined;
}

/** A row that got another key by an event that has only a part of it. */
export interface Moved {
  readonly key: Key;
  readonly xid: number;
}

interface Changes {
  /** In the order of the log. */
  readonly byKey: Map<string, Change[]>;
  truncates: number[];
  moved: Moved[];
}

/** A row's primary key as one string. */
export function keyString(key: Key): string {
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
    if (!this.#tables.has(table)) this.#tables.set(table, { byKey: new Map(), truncates: [], moved: [] });
  }

  untrack(table: string): void {
    this.#tables.delete(table);
  }

  /** Takes note of events as they are logged, the first of them at `firstSeq`. */
  logged(events: readonly Logged[], firstSeq: Seq): void {
    for (const [i, event] of events.entries()) {
      if (event.xid !== undefined && this.#unseen.at(-1)?.xid !== event.xid) this.#unseen.push({ xid: event.xid, seq: firstSeq + i });
      if (event.table !== undefined && this.#tables.size > 0) this.note(event, firstSeq + i);
    }
  }

  /** Takes note of one event of a tracked table, also behind newer ones: those of before are read back while others come. */
  note({ data, xid, table }: Logged, seq: Seq): void {
    const changes = table === undefined ? undefined : this.#tables.get(table);
    if (!changes || xid === undefined) return;
    const event = JSON.parse(Buffer.from(data).toString('utf8')) as RowEvent;
    if (event.op === 'truncate') changes.truncates.push(xid);
    if (!event.key) return;
    const change = { seq, xid, ...changeOf(event, event.key, data) };
    for (const key of new Set([change.from, change.to])) {
      if (key === undefined) continue;
      const known = changes.byKey.get(key);
      if (known) insertInOrder(known, change);
      else changes.byKey.set(key, [change]);
    }
    if (change.part && change.from !== change.to) changes.moved.push({ key: event.key, xid });
  }

  /** Is nothing known of this table that a snapshot may not see? */
  isQuiet(table: string): boolean {
    const changes = this.#tables.get(table);
    return !changes || (changes.byKey.size === 0 && changes.truncates.length === 0);
  }

  /** Was this row changed by a logged transaction that the snapshot does not see? */
  outdated(table: string, key: string, snapshot: Visibility): boolean {
    const changes = this.#tables.get(table);
    if (!changes) return false;
    const unseen = (xid: number): boolean => !snapshot.sees(xid);
    return changes.truncates.some(unseen) || (changes.byKey.get(key)?.some((change) => unseen(change.xid)) ?? false);
  }

  /**
   * The events of an outdated row, oldest first, if each has only a part of it: without the row as the snapshot sees it the log
   * would not have the rest. Undefined when the log has the row whole, or knows it to be gone.
   */
  parts(table: string, key: string, snapshot: Visibility): readonly Uint8Array[] | undefined {
    const changes = this.#tables.get(table);
    if (!changes || changes.truncates.some((xid) => !snapshot.sees(xid))) return undefined;
    const parts: Uint8Array[] = [];
    let at = key;
    for (let last = -1; ;) {
      const next = changes.byKey.get(at)?.find(({ seq, from, xid }) => seq > last && from === at && !snapshot.sees(xid));
      if (!next) return parts.length > 0 ? parts : undefined;
      if (!next.part || next.to === undefined) return undefined;
      parts.push(next.part);
      [at, last] = [next.to, next.seq];
    }
  }

  /** Rows that have moved to where a chunk may have gone by already, with a part of them only. */
  moved(table: string): readonly Moved[] {
    return this.#tables.get(table)?.moved ?? [];
  }

  addMoved(table: string, moved: readonly Moved[]): void {
    this.#tables.get(table)?.moved.push(...moved);
  }

  forgetMoved(table: string, moved: ReadonlySet<Moved>): void {
    const changes = this.#tables.get(table);
    if (changes) changes.moved = changes.moved.filter((one) => !moved.has(one));
  }

  /** Forgets the transactions that this snapshot, and therefore every later one, sees. */
  forgetTransactions(snapshot: Visibility): void {
    this.#unseen = this.#unseen.filter(({ xid }) => !snapshot.sees(xid));
  }

  /** The same for the changes of rows. Only with the snapshot of the chunk that comes next: an older chunk still needs them. */
  forgetChanges(snapshot: Visibility): void {
    for (const changes of this.#tables.values()) {
      changes.truncates = changes.truncates.filter((xid) => !snapshot.sees(xid));
      for (const [key, known] of changes.byKey) {
        const left = known.filter(({ xid }) => !snapshot.sees(xid));
        if (left.length === 0) changes.byKey.delete(key);
        else if (left.length < known.length) changes.byKey.set(key, left);
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

/** In the order of the log; once, should it have come both ways. */
function insertInOrder(changes: Change[], change: Change): void {
  let at = changes.length;
  while (at > 0 && changes[at - 1]!.seq > change.seq) at--;
  if (changes[at - 1]?.seq !== change.seq) changes.splice(at, 0, change);
}

function changeOf({ op, before, unchanged }: RowEvent, key: Key, data: Uint8Array): Pick<Change, 'from' | 'to' | 'part'> {
  const names = Object.keys(key);
  const old = before && names.every((name) => name in before) ? Object.fromEntries(names.map((name) => [name, before[name]])) : key;
  return {
    from: op === 'insert' ? undefined : keyString(old),
    to: op === 'delete' ? undefined : keyString(key),
    part: unchanged ? data : undefined,
  };
}
