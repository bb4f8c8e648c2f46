import { JetStreamApiError, type KV, type KvEntry } from '../clients/nats.ts';
import type { Seq } from '../log/event-log.ts';
import { formatId, parseId, type Position } from '../source/position.ts';
import type { Moved } from './row-key.ts';

/** How far the copy of a table's rows that were there before its changes were captured has come. */
export interface CopyState {
  readonly table: string;
  /**
   * `pending`: to be copied by backfill; `running`: some chunks are logged; `paused`, `cancelled`: by an operator; `done`;
   * `none`: cannot be copied (no primary key).
   */
  readonly state: 'pending' | 'running' | 'paused' | 'cancelled' | 'done' | 'none' | 'failed';
  /** Of the table when this was written: another oid is another table. */
  readonly oid: number;
  /** Text values of the primary key up to which rows are copied. */
  readonly after?: readonly string[] | undefined;
  /** The key's columns, types and collations when that was noted: under another order it says nothing. */
  readonly key?: string | undefined;
  /** The log's end when that was noted. */
  readonly seq?: Seq | undefined;
  /** Rows that must be read again, since they have moved to before `after` while the log had a part of them only. */
  readonly moved?: readonly Moved[] | undefined;
  /** Rows logged so far. */
  readonly rows: number;
  /** Rows read so far: more than were logged, where the log had something newer. */
  readonly read?: number;
  /** Estimate of the rows to copy, for progress. */
  readonly total?: number;
  /** Condition of a backfill that was asked for by hand. */
  readonly where?: string | undefined;
  /** Most rows a second that were asked for. */
  readonly rate?: number | undefined;
  /** Rows a second of late. */
  readonly speed?: number | undefined;
  /** The mark that it begins is in the log. */
  readonly begun?: boolean;
  /** The table had been copied whole before this was asked for: that it fails leaves no hole. */
  readonly again?: boolean;
  /**
   * Of a copy of some rows: what the last one of all rows had come to, when it was never done. That it has failed leaves a hole still,
   * and that somebody has given it up still holds, whatever becomes of these rows.
   */
  readonly whole?: { readonly state: 'failed' | 'cancelled'; readonly error?: string | undefined };
  /** How often a chunk of its condition was begun, and nothing came of it: neither rows nor an error of its own. */
  readonly attempts?: number | undefined;
  /** What it waits for. */
  readonly note?: string | undefined;
  readonly error?: string | undefined;
  /** Since when it is in this state, ISO 8601; records of before there was this do not have it. */
  readonly since?: string;
}

/** A copy as the record has it, with the time of its last change of any kind: of its last chunk, say. */
export interface NotedCopy {
  readonly state: CopyState;
  readonly changedAt: Date;
}

/** What an operator wants of a backfill that was asked for; capture removes it when it is done. */
export interface CopyOrder {
  readonly table: string;
  readonly order: 'pause' | 'resume' | 'cancel';
  /** With `resume`: most rows a second from now on; 0 for no limit. */
  readonly rate?: number | undefined;
}

/** What the server answers when a key has changed since it was read. */
const wrongLastSequence = 10071;

/** The key-value bucket that holds the record of a log: each stream has its own. */
export function recordBucket({ stream }: { readonly stream: string }): string {
  return stream === 'EVENTS' ? 'HEADWATER' : `HEADWATER_${stream}`;
}

type TextKey = 'epoch' | 'system_identifier' | 'timeline' | 'reset' | 'torn';

/**
 * The log's own record beside it, in a key-value bucket without limits: which database it is the history of, and the last
 * position that was confirmed to it (a trimmed log may be empty, its last event is then not there to ask).
 */
export class LogRecord {
  readonly #bucket: KV;

  constructor(bucket: KV) {
    this.#bucket = bucket;
  }

  async get(key: TextKey): Promise<string | undefined> {
    const entry = await this.#bucket.get(key);
    return entry?.operation === 'PUT' ? entry.string() : undefined;
  }

  async put(key: TextKey, value: string): Promise<void> {
    await this.#bucket.put(key, value);
  }

  async position(): Promise<{ seq: Seq; position: Position } | undefined> {
    const entry = await this.#bucket.get('position');
    if (entry?.operation !== 'PUT') return undefined;
    const { seq, id } = entry.json<{ seq: Seq; id: string }>();
    return { seq, position: parseId(id) };
  }

  async putPosition(seq: Seq, position: Position): Promise<void> {
    await this.#bucket.put('position', JSON.stringify({ seq, id: formatId(position) }));
  }

  async forget(key: TextKey | 'position'): Promise<void> {
    await this.#bucket.delete(key);
  }

  async copies(): Promise<Map<string, CopyState>> {
    return new Map((await this.notedCopies()).map(({ state }) => [state.table, state]));
  }

  /** Every copy, in one pass however many tables there are. */
  async notedCopies(): Promise<readonly NotedCopy[]> {
    const found = new Map<string, NotedCopy>();
    for await (const entry of await this.#bucket.history({ key: 'table.*' })) {
      if (entry.operation === 'PUT') found.set(entry.key, { state: entry.json<CopyState>(), changedAt: entry.created });
      else found.delete(entry.key);
    }
    return [...found.values()];
  }

  async copy(table: string): Promise<CopyState | undefined> {
    const entry = await this.#bucket.get(copyKey(table));
    return entry?.operation === 'PUT' ? entry.json<CopyState>() : undefined;
  }

  async putCopy(state: CopyState): Promise<void> {
    await this.#bucket.put(copyKey(state.table), JSON.stringify(dated(state, await this.copy(state.table))));
  }

  /**
   * Replaces the state of a copy by what `change` makes of it, unless it makes nothing. Another writer's change in between is
   * seen, not overwritten.
   */
  async changeCopy(table: string, change: (state: CopyState | undefined) => CopyState | undefined): Promise<CopyState | undefined> {
    for (;;) {
      const entry = await this.#bucket.get(copyKey(table));
      const known = entry?.operation === 'PUT' ? entry.json<CopyState>() : undefined;
      const wanted = change(known);
      if (!wanted) return undefined;
      const next = dated(wanted, known);
      if (await unlessChanged(this.#bucket.put(copyKey(table), JSON.stringify(next), { previousSeq: entry?.revision ?? 0 }))) return next;
    }
  }

  async forgetCopies(): Promise<void> {
    for (const table of (await this.copies()).keys()) {
      await this.#bucket.delete(copyKey(table));
      await this.#bucket.delete(orderKey(table));
    }
  }

  async putOrder(order: CopyOrder): Promise<void> {
    await this.#bucket.put(orderKey(order.table), JSON.stringify(order));
  }

  /** The order that is not carried out yet. */
  async order(table: string): Promise<CopyOrder | undefined> {
    return (await this.noted(table))?.order;
  }

  /** The orders that are not carried out yet, by table. */
  async orders(): Promise<Map<string, CopyOrder>> {
    const found = new Map<string, CopyOrder>();
    for await (const entry of await this.#bucket.history({ key: 'order.*' })) {
      if (entry.operation !== 'PUT') continue;
      const order = entry.json<CopyOrder>();
      found.set(order.table, order);
    }
    return found;
  }

  /** The same with its revision, by which `removeOrder` knows it. */
  async noted(table: string): Promise<{ readonly order: CopyOrder; readonly revision: number } | undefined> {
    const entry = await this.#bucket.get(orderKey(table));
    return entry?.operation === 'PUT' ? { order: entry.json<CopyOrder>(), revision: entry.revision } : undefined;
  }

  /** Calls `listener` with each order that is there and that comes, until the signal fires. */
  onOrder(listener: (order: CopyOrder, revision: number) => void, signal: AbortSignal): Promise<void> {
    return this.#watch('order.*', signal, (entry) => listener(entry.json<CopyOrder>(), entry.revision));
  }

  /** Removes an order that has been carried out, or taken back, unless there is a newer one. */
  async removeOrder(table: string, revision: number): Promise<void> {
    await unlessChanged(this.#bucket.delete(orderKey(table), { previousSeq: revision }));
  }

  /** Calls `listener` when a backfill is asked for, until the signal fires. */
  async onRequest(listener: (state: CopyState) => void, signal: AbortSignal): Promise<void> {
    await this.#watch('table.*', signal, (entry) => {
      const state = entry.json<CopyState>();
      if (state.state === 'pending') listener(state);
    });
  }

  /** Resolves when a reset is asked for, or the signal fires. */
  async resetAsked(signal: AbortSignal): Promise<void> {
    const found = new AbortController();
    await this.#watch('reset', AbortSignal.any([signal, found.signal]), () => found.abort());
  }

  async #watch(key: string, signal: AbortSignal, each: (entry: KvEntry) => void): Promise<void> {
    const watch = await this.#bucket.watch({ key });
    const stop = (): void => watch.stop();
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    try {
      for await (const entry of watch) if (entry.operation === 'PUT') each(entry);
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }
}

/** The next state, with the time since when it is that. */
function dated(next: CopyState, known: CopyState | undefined): CopyState {
  const { since: _, ...rest } = next;
  if (known?.state === next.state) return known.since === undefined ? rest : { ...rest, since: known.since };
  return { ...rest, since: new Date().toISOString() };
}

/** Keys of a bucket allow few characters; names of tables allow all. */
function copyKey(table: string): string {
  return `table.${Buffer.from(table).toString('base64url')}`;
}

function orderKey(table: string): string {
  return `order.${Buffer.from(table).toString('base64url')}`;
}

async function unlessChanged(write: Promise<unknown>): Promise<boolean> {
  try {
    await write;
    return true;
  } catch (error) {
    if (error instanceof JetStreamApiError && error.code === wrongLastSequence) return false;
    throw error;
  }
}
