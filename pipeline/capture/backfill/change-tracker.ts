import type { Seq } from '../../log/event-log.ts';
import type { Moved } from '../row-key.ts';
import type { Visibility } from '../visibility.ts';
import { changeOf, mayBePart, parsedKey, rawEvent, type Change } from './row-change.ts';

/** Changes of a table, and moved rows of it, of which more is kept than the transaction's number. */
const maxKept = 50_000;
/** Bytes of events that are kept. */
const maxKeptBytes = 16 * 1024 ** 2;

/** An event that has been logged. */
export interface Logged {
  readonly data: Uint8Array;
  readonly xid: number | undefined;
  readonly table: string | undefined;
  readonly subject?: string;
}

interface Changes {
  /** In the order of the log. */
  readonly byKey: Map<string, Change[]>;
  /** How many entries there are, and the bytes of their events. */
  kept: number;
  keptBytes: number;
  truncates: number[];
  moved: Moved[];
  /** Transactions of which not every changed row is known any more, and of which not every moved row is: there were too many. */
  readonly tooMany: Set<number>;
  readonly tooManyMoved: Set<number>;
  /** Of the last chunk: what it sees, every later one sees as well. */
  seen: Visibility | undefined;
}

/**
 * Which rows of the tables under backfill have been changed by logged transactions. A chunk that was read in a snapshot that
 * does not see such a transaction holds the row as it was before, and must not be logged after the change. (A commit can be
 * streamed before it is visible, and for long with synchronous replication: positions in the WAL alone do not tell.)
 *
 * What is kept has a bound. Of transactions that change more only their numbers are known: a chunk that does not see them must be
 * read again (`knows`), and when too many rows of theirs have moved, the copy begins anew (`lostMoved`).
 */
export class ChangeTracker {
  readonly #tables = new Map<string, Changes>();
  readonly #columns = new Map<string, string>();
  /** Logged transactions that were not yet seen by a snapshot, oldest first, with the sequence of their first event. */
  #unseen: { xid: number; seq: Seq }[] = [];

  track(table: string): void {
    if (this.#tables.has(table)) return;
    const none = { kept: 0, keptBytes: 0, truncates: [], moved: [], tooMany: new Set<number>(), tooManyMoved: new Set<number>() };
    this.#tables.set(table, { byKey: new Map(), ...none, seen: undefined });
  }

  untrack(table: string): void {
    this.#tables.delete(table);
  }

  /** Takes note of events as they are logged, in the order of the log, the first of them at `firstSeq`. */
  logged(events: readonly Logged[], firstSeq: Seq): void {
    for (const [i, event] of events.entries()) {
      if (event.xid !== undefined && this.#unseen.at(-1)?.xid !== event.xid) this.#unseen.push({ xid: event.xid, seq: firstSeq + i });
      if (event.table === undefined) this.#noteSchema(event);
      else if (this.#tables.size > 0) this.note(event, firstSeq + i);
    }
  }

  /** Takes note of one event of a tracked table, also behind newer ones: those of before are read back while others come. */
  note({ data, xid, table }: Logged, seq: Seq): void {
    const changes = table === undefined ? undefined : this.#tables.get(table);
    if (!changes || xid === undefined) return;
    // Of what every chunk to come sees only the moved rows count: they may have moved to where the chunks have gone by.
    const old = changes.seen?.sees(xid) === true;
    if ((old || changes.tooMany.has(xid)) && (changes.tooManyMoved.has(xid) || !mayBePart(data))) return;
    const event = rawEvent(data);
    if (event.op === 'truncate' && !old) changes.truncates.push(xid);
    if (event.key === undefined) return;
    const change = { seq, xid, ...changeOf(event, event.key, data) };
    if (!old) keep(changes, change);
    if (change.part && change.from !== change.to) keepMoved(changes, { key: parsedKey(event.key), xid });
  }

  /** The columns of a table as its last schema event in the log has them, as JSON. Events on their way to the log do not count. */
  columns(table: string): string | undefined {
    return this.#columns.get(table);
  }

  noteColumns(table: string, columnsJson: string): void {
    this.#columns.set(table, columnsJson);
  }

  #noteSchema({ subject, data }: Logged): void {
    if (!subject?.includes('._schema.')) return;
    const event = JSON.parse(Buffer.from(data).toString('utf8')) as { type: string; relation: string; columns: object[] };
    if (event.type === 'schema') this.noteColumns(event.relation, JSON.stringify(event.columns));
  }

  /** Is nothing known of this table that a snapshot may not see? */
  isQuiet(table: string): boolean {
    const changes = this.#tables.get(table);
    return !changes || (changes.byKey.size === 0 && changes.truncates.length === 0 && changes.tooMany.size === 0);
  }

  /** Is every row known that logged transactions have changed which the snapshot does not see? */
  knows(table: string, snapshot: Visibility): boolean {
    const changes = this.#tables.get(table);
    return !changes || [...changes.tooMany].every((xid) => snapshot.sees(xid));
  }

  /** Was this row changed by a logged transaction that the snapshot does not see? Of a snapshot that `knows`. */
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
    /** How many changes of a key are done with: one row may have very many. */
    const passed = new Map<string, number>();
    let at = key;
    for (let last = -1; ;) {
      const known = changes.byKey.get(at) ?? [];
      let i = passed.get(at) ?? 0;
      while (i < known.length && !(known[i]!.seq > last && known[i]!.from === at && !snapshot.sees(known[i]!.xid))) i++;
      passed.set(at, i + 1);
      const next = known[i];
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

  /** Adds those that are not known yet. */
  addMoved(table: string, moved: readonly Moved[]): void {
    const changes = this.#tables.get(table);
    if (!changes) return;
    const text = ({ key, xid }: Moved): string => JSON.stringify([xid, key]);
    const known = new Set(changes.moved.map(text));
    changes.moved.push(...moved.filter((one) => !known.has(text(one))));
  }

  forgetMoved(table: string, moved: ReadonlySet<Moved>): void {
    const changes = this.#tables.get(table);
    if (changes) changes.moved = changes.moved.filter((one) => !moved.has(one));
  }

  /** Have so many rows moved that not all of them are known? Then only a copy from the table's beginning has them. */
  lostMoved(table: string): boolean {
    return (this.#tables.get(table)?.tooManyMoved.size ?? 0) > 0;
  }

  /** A copy begins with the table's first row, in this snapshot: whatever has moved before is in it, or comes behind it. */
  beginMoved(table: string, snapshot: Visibility): void {
    const changes = this.#tables.get(table);
    if (!changes) return;
    changes.moved = changes.moved.filter(({ xid }) => !snapshot.sees(xid));
    forgetSeen(changes.tooManyMoved, snapshot);
  }

  /** Forgets the transactions that this snapshot, and therefore every later one, sees. */
  forgetTransactions(snapshot: Visibility): void {
    this.#unseen = this.#unseen.filter(({ xid }) => !snapshot.sees(xid));
  }

  /** The same for the changes of rows, and those to come. Only with the snapshot of the chunk that comes next: an older chunk still needs them. */
  forgetChanges(snapshot: Visibility): void {
    for (const changes of this.#tables.values()) {
      changes.seen = snapshot;
      changes.truncates = changes.truncates.filter((xid) => !snapshot.sees(xid));
      forgetSeen(changes.tooMany, snapshot);
      changes.kept = changes.keptBytes = 0;
      for (const [key, known] of changes.byKey) {
        const left = known.filter(({ xid }) => !snapshot.sees(xid));
        if (left.length === 0) changes.byKey.delete(key);
        else if (left.length < known.length) changes.byKey.set(key, left);
        for (const change of left) count(changes, change);
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

/** Keeps a change; above the bound only the numbers of the transactions. */
function keep(changes: Changes, change: Change): void {
  if (changes.tooMany.has(change.xid)) return;
  for (const key of new Set([change.from, change.to])) {
    if (key === undefined) continue;
    const known = changes.byKey.get(key);
    if (!known) changes.byKey.set(key, [change]);
    else if (!insertInOrder(known, change)) continue;
    count(changes, change);
  }
  if (changes.kept <= maxKept && changes.keptBytes <= maxKeptBytes) return;
  for (const known of changes.byKey.values()) for (const { xid } of known) changes.tooMany.add(xid);
  changes.byKey.clear();
  changes.kept = changes.keptBytes = 0;
}

function keepMoved(changes: Changes, moved: Moved): void {
  if (changes.tooManyMoved.has(moved.xid)) return;
  changes.moved.push(moved);
  if (changes.moved.length <= maxKept) return;
  for (const { xid } of changes.moved) changes.tooManyMoved.add(xid);
  changes.moved = [];
}

function count(changes: Changes, { part }: Change): void {
  changes.kept++;
  changes.keptBytes += part?.length ?? 0;
}

function forgetSeen(xids: Set<number>, snapshot: Visibility): void {
  for (const xid of xids) if (snapshot.sees(xid)) xids.delete(xid);
}

/** In the order of the log; once, should it have come both ways. Returns whether it was new. */
function insertInOrder(changes: Change[], change: Change): boolean {
  let at = changes.length;
  while (at > 0 && changes[at - 1]!.seq > change.seq) at--;
  if (changes[at - 1]?.seq === change.seq) return false;
  changes.splice(at, 0, change);
  return true;
}
