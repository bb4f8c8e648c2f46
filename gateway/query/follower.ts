import { Visibility } from '../../pipeline/capture/visibility.ts';
import type { Queryable } from '../../pipeline/clients/postgres.ts';
import type { LogEvent, Seq } from '../../pipeline/log/event-log.ts';
import { backoffMs, pause } from '../../pipeline/runtime/backoff.ts';
import { messageOf } from '../../pipeline/runtime/errors.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import { decodeToken } from '../../schemas/subjects.ts';
import { parse } from '../channels.ts';
import { DependencyIndex } from './dependencies.ts';
import type { Dependency } from './model.ts';
import { within } from './service-patience.ts';
import { UnseenTransactions, type Reading } from './visibility.ts';

/** This node's reader at the end of the log. */
export interface TailPosition {
  /** The last event that the follower has been given. */
  readonly position: Seq;
  readonly epoch: string;
  readonly epochStart: Seq;
  /** The end of the log has been reached once. */
  readonly ready: boolean;
  reached(seq: Seq, signal: AbortSignal): Promise<void>;
}

/** What the database says of itself when a node begins. */
export interface Standing {
  /** The lower 32 bits of the number that the next transaction gets. */
  readonly nextXid: number;
  /** Commits may wait for a standby: then they are in the log long before they can be seen. */
  readonly synchronous: boolean;
}

/** Asks for it; any role may. */
export async function readStanding(client: Pick<Queryable, 'query'>): Promise<Standing> {
  const { rows } = await client.query<{ distance: string; synchronous: boolean }>(
    // The distance to the lowest number, 3, which goes round like the numbers themselves.
    `SELECT age('3'::xid)::text AS distance, current_setting('synchronous_standby_names') <> '' AS synchronous`,
  );
  const { distance, synchronous } = rows[0]!;
  return { nextXid: (Number(distance) + 3 + 2 ** 32) % 2 ** 32, synchronous };
}

export interface FollowerParts {
  readonly tail: TailPosition;
  readonly standing: (signal: AbortSignal) => Promise<Standing>;
  /** `pg_current_snapshot()`, as text. */
  readonly snapshot: (signal: AbortSignal) => Promise<string>;
  readonly log: Logger;
}

/** What a reading of the database is known to hold. */
export interface Seen {
  /** Every event up to here. */
  readonly asOf: Seq;
  readonly epoch: string;
}

interface Route {
  readonly table: string;
  readonly op: string;
}

interface Waiter {
  readonly seq: Seq;
  readonly resolve: () => void;
}

const maxRoutes = 100_000;
/** With more transactions than this to look at, the database is asked for a snapshot although nobody has read. */
const pollAbove = 5_000;
const pollMs = { first: 5, most: 250 };

/** Follows the log for queries: what the database shows of it, and when what was changed. */
export class Follower {
  readonly #parts: FollowerParts;
  readonly #unseen = new UnseenTransactions();
  readonly #dependencies = new DependencyIndex();
  readonly #routes = new Map<string, Route | undefined>();
  readonly #closing = new AbortController();
  /** False until events come, and after the position was lost. */
  #following = false;
  #priming: { readonly ending: AbortController; readonly done: Promise<void> } | undefined;
  #primed = false;
  readonly #waiters = new Set<Waiter>();
  #polling = false;

  constructor(parts: FollowerParts) {
    this.#parts = parts;
    this.lost();
  }

  close(): void {
    this.#closing.abort();
    this.lost();
  }

  /** The log's next events, right after the tail's position has moved behind them. */
  observe(events: readonly LogEvent[]): void {
    const first = events[0];
    if (!first) return;
    if (!this.#following || first.seq !== this.#unseen.position + 1) this.#restart(first.seq - 1);
    const { epochStart } = this.#parts.tail;
    for (const { seq, subject, data } of events) {
      const route = this.#routeOf(subject);
      // The numbers of transactions of another history mean nothing in this database.
      const xid = seq < epochStart ? undefined : xidOf(data);
      this.#unseen.note(seq, xid, route !== undefined && xid === undefined);
      if (route) this.#dependencies.note({ seq, ...route, row: () => parse(data) });
    }
    this.#prime();
    if (this.#unseen.size > pollAbove) this.#poll();
  }

  /** The tail has lost its position: nothing is known until it has another one, so everything may have changed. */
  lost(): void {
    this.#following = false;
    this.#primed = false;
    this.#priming?.ending.abort();
    this.#priming = undefined;
    this.#unseen.reset(0);
    this.#dependencies.reset(Infinity);
  }

  /** The last event that can have changed what the answer depends on; it may be later than that event. `Infinity` while nothing is known. */
  lastChange(dependency: Dependency): Seq {
    this.#follow();
    return this.#dependencies.last(dependency);
  }

  /** Resolves when the database has said what was under way at the beginning, or after a while. Until then readings are of unknown content. */
  async prepared(withinMs: number): Promise<void> {
    this.#follow();
    if (this.#priming) await within(withinMs, this.#priming.done);
  }

  /** To be called before the database is asked, and `end` exactly once after that. */
  begin(): Reading {
    this.#follow();
    return this.#unseen.begin();
  }

  /**
   * @param snapshot of the transaction that has read, as text; undefined when it failed
   * @returns what the reading holds, or undefined when that is not known
   */
  end(reading: Reading, snapshot: string | undefined): Seen | undefined {
    const visibility = snapshot === undefined ? undefined : new Visibility(snapshot);
    const asOf = this.#unseen.end(reading, visibility);
    if (asOf === undefined) return undefined;
    for (const waiter of this.#waiters) if (waiter.seq <= asOf) waiter.resolve();
    const { epoch } = this.#parts.tail;
    return epoch === '' ? undefined : { asOf, epoch };
  }

  /** Resolves when whoever begins to read sees every event up to `seq`, or the signal fires. */
  async visible(seq: Seq, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        this.#waiters.delete(waiter);
        signal.removeEventListener('abort', done);
        resolve();
      };
      const waiter: Waiter = { seq, resolve: done };
      signal.addEventListener('abort', done, { once: true });
      this.#waiters.add(waiter);
      this.#poll();
    });
  }

  /** An idle log has no events, yet a position. */
  #follow(): void {
    const { tail } = this.#parts;
    if (!this.#following && tail.ready && !this.#closing.signal.aborted) this.#restart(tail.position);
    this.#prime();
  }

  #restart(floor: Seq): void {
    this.lost();
    this.#following = true;
    this.#unseen.reset(floor);
    this.#dependencies.reset(floor);
  }

  /**
   * Transactions with events of before the first one read here may not be visible yet. Without a synchronous standby that takes a
   * moment, which the events read until the end of the log was reached have long outlasted. With one, all that are under way have to end.
   */
  #prime(): void {
    const { tail, standing, log } = this.#parts;
    if (this.#primed || this.#priming || !this.#following || !tail.ready || this.#closing.signal.aborted) return;
    const lookedBack = this.#unseen.size > 0;
    const ending = new AbortController();
    const ask = async (): Promise<void> => {
      for (let attempt = 0; !ending.signal.aborted; attempt++) {
        try {
          const { nextXid, synchronous } = await standing(ending.signal);
          if (ending.signal.aborted) return;
          this.#unseen.prime(synchronous || !lookedBack ? nextXid : undefined);
          this.#primed = true;
          this.#priming = undefined;
          return;
        } catch (error) {
          log.debug({ error: messageOf(error) }, 'queries: the database does not say what is under way, asking again');
          await pause(backoffMs(attempt), ending.signal);
        }
      }
    };
    this.#priming = { ending, done: ask() };
  }

  /** Asks for snapshots while somebody waits for one, or there is much to forget. */
  #poll(): void {
    if (this.#polling) return;
    this.#polling = true;
    const { signal } = this.#closing;
    const ask = async (): Promise<void> => {
      for (let n = 0; !signal.aborted && (this.#waiters.size > 0 || this.#unseen.size > pollAbove); n++) {
        const reading = this.begin();
        this.end(reading, await this.#parts.snapshot(signal).catch(() => undefined));
        if (this.#waiters.size > 0 || this.#unseen.size > pollAbove) await pause(Math.min(pollMs.most, pollMs.first * 2 ** n), signal);
      }
    };
    void ask().finally(() => (this.#polling = false));
  }

  #routeOf(subject: string): Route | undefined {
    const known = this.#routes.get(subject);
    if (known || this.#routes.has(subject)) return known;
    if (this.#routes.size >= maxRoutes) this.#routes.clear();
    const route = routeOf(subject);
    this.#routes.set(subject, route);
    return route;
  }
}

/** `ev.<schema>.<table>.<op>` or `ev._schema.<schema>.<table>`; all others have fewer tokens. */
function routeOf(subject: string): Route | undefined {
  const [, first, second, third, ...more] = subject.split('.');
  if (first === undefined || second === undefined || third === undefined || more.length > 0) return undefined;
  if (first === '_schema') return { table: `${decodeToken(second)}.${decodeToken(third)}`, op: 'schema' };
  return { table: `${decodeToken(first)}.${decodeToken(second)}`, op: third };
}

const tailLength = 160;
/** An event ends with its transaction and its time. Braces tell it from the same text within a row. */
const transaction = /,"tx":\{"xid":(\d+),"idx":\d+(?:,"last":true)?\},"at":"[^"]*"\}$/;

/** The number of the event's transaction, 32 bits; undefined for what is outside of one. */
export function xidOf(data: Uint8Array): number | undefined {
  const end = Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('latin1', Math.max(0, data.length - tailLength));
  const xid = transaction.exec(end)?.[1];
  return xid === undefined ? undefined : Number(xid);
}
