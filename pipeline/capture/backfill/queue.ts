import type { Catalog } from '../../../schemas/catalog.ts';
import { closePostgres, connectPostgres } from '../../clients/postgres.ts';
import { backoffMs, pause } from '../../runtime/backoff.ts';
import { HeadwaterError, messageOf, refused } from '../../runtime/errors.ts';
import type { Logger } from '../../runtime/logging.ts';
import { linked, untilFirst } from '../../runtime/tasks.ts';
import type { Backfill } from './backfill.ts';
import { notPublished } from './faults.ts';
import type { CopyOrder, CopyState, LogRecord } from '../log-record.ts';
import type { BackfillMetrics } from '../metrics.ts';
import { findJoining } from '../publications.ts';
import { selectTables, type CapturedTable } from '../tables.ts';

export interface BackfillQueueParts {
  readonly record: LogRecord;
  readonly backfill: Backfill;
  readonly metrics: Pick<BackfillMetrics, 'paused' | 'queue'>;
  readonly url: string;
  /** Base name of the publications. */
  readonly publication: string;
  readonly catalog: Catalog;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/**
 * Runs the backfills that are noted in the log's record, one after the other: what was begun, what is pending, what is asked
 * for. Orders to pause, go on or give up are carried out at once; a running copy ends with its chunk first.
 */
export class BackfillQueue {
  readonly #parts: BackfillQueueParts;
  readonly #waiting: string[] = [];
  readonly #paused = new Set<string>();
  readonly #orders: { readonly order: CopyOrder; readonly revision: number }[] = [];
  /** The table that is being copied, or about to be. */
  #current: { readonly table: string; readonly interrupt: AbortController } | undefined;
  readonly #sleeping = new Set<() => void>();

  constructor(parts: BackfillQueueParts) {
    this.#parts = parts;
  }

  async run(): Promise<void> {
    const { record, signal } = this.#parts;
    for (const { table, state } of (await record.copies()).values()) {
      if (state === 'running') this.#add(table);
      if (state === 'paused') this.#paused.add(table);
    }
    this.#count();
    const noted = (order: CopyOrder, revision: number): void => {
      this.#orders.push({ order, revision });
      this.#wakeUp();
    };
    try {
      await untilFirst(
        signal,
        (ending) => record.onRequest((state) => this.#add(state.table), ending),
        (ending) => record.onOrder(noted, ending),
        (ending) => this.#work(ending),
        (ending) => this.#carryOutOrders(ending),
      );
    } finally {
      // Whoever works from now on counts.
      this.#parts.metrics.queue.set(0);
      this.#parts.metrics.paused.set(0);
    }
  }

  #add(table: string): void {
    if (!this.#waiting.includes(table)) this.#waiting.push(table);
    this.#count();
    this.#wakeUp();
  }

  #count(): void {
    const { metrics, signal } = this.#parts;
    if (signal.aborted) return;
    metrics.queue.set(this.#waiting.length + (this.#current && !this.#waiting.includes(this.#current.table) ? 1 : 0));
    metrics.paused.set(this.#paused.size);
  }

  #wakeUp(): void {
    for (const wake of this.#sleeping) wake();
    this.#sleeping.clear();
  }

  /** Until there may be something to do. */
  async #sleep(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    let wake!: () => void;
    const woken = new Promise<void>((resolve) => (wake = resolve));
    this.#sleeping.add(wake);
    signal.addEventListener('abort', wake, { once: true });
    await woken;
    signal.removeEventListener('abort', wake);
    this.#sleeping.delete(wake);
  }

  async #work(signal: AbortSignal): Promise<void> {
    const { record } = this.#parts;
    while (!signal.aborted) {
      const name = this.#waiting.shift();
      if (name === undefined) {
        await this.#sleep(signal);
        continue;
      }
      const interrupt = new AbortController();
      this.#current = { table: name, interrupt };
      const state = this.#orders.some(({ order }) => order.table === name) ? undefined : await record.copy(name);
      if (state?.state === 'pending' || state?.state === 'running')
        await linked(signal, interrupt, () => this.#copy(state, interrupt.signal));
      this.#current = undefined;
      this.#count();
      this.#wakeUp();
    }
  }

  async #copy(state: CopyState, interrupt: AbortSignal): Promise<void> {
    const { backfill, log } = this.#parts;
    const { table: name } = state;
    const table = await this.#found(state, interrupt);
    if (table === undefined) return;
    if (table instanceof HeadwaterError) {
      await backfill.failed(state, table);
      return;
    }
    const othersWait = (): boolean => this.#waiting.some((other) => other !== name);
    if ((await backfill.run(table, state, { interrupt, othersWait })) === 'ended') return;
    log.info({ table: name }, 'backfill: others go first');
    this.#waiting.splice(0, this.#waiting.length, ...this.#waiting.filter((other) => other !== name), name);
  }

  /** The table of a copy, or why there is none. Whatever keeps it from looking it waits for: the stream has its own connections. */
  async #found(state: CopyState, interrupt: AbortSignal): Promise<CapturedTable | HeadwaterError | undefined> {
    const { record, log } = this.#parts;
    let known = state.note;
    for (let attempt = 0; !interrupt.aborted; attempt++) {
      try {
        return await this.#find(state.table, interrupt);
      } catch (error) {
        if (error instanceof HeadwaterError) return error;
        const note = `waits for the database: ${messageOf(error)}`;
        if (note !== known && !interrupt.aborted) {
          log.warn({ table: state.table }, `backfill ${note}`);
          await record.putCopy({ ...state, note }).catch(() => undefined);
        }
        known = note;
        await pause(backoffMs(attempt), interrupt);
      }
    }
    return undefined;
  }

  /**
   * On a connection of its own, which the signal cuts: it may have to wait for a lock, and capture's must not.
   * @throws HeadwaterError `not_captured`, `not_published` (refused)
   */
  async #find(name: string, signal: AbortSignal): Promise<CapturedTable> {
    const { url, catalog, log, publication } = this.#parts;
    const client = await connectPostgres(url, 'headwater backfill', log);
    const cut = (): void => void closePostgres(client);
    signal.addEventListener('abort', cut, { once: true });
    if (signal.aborted) cut();
    try {
      const table = (await selectTables(client, catalog)).tables.find((candidate) => candidate.name === name);
      if (!table) throw refused('not_captured', 'the table is not captured, or no longer there', 'headwater backfill cancel gives it up');
      if ((await findJoining(client, publication, [table])).length > 0) throw notPublished(name);
      return table;
    } finally {
      signal.removeEventListener('abort', cut);
      await closePostgres(client);
    }
  }

  /** Carries out orders. One for the table that is being copied waits until that has come to a stop, so that one writes at a time. */
  async #carryOutOrders(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const current = this.#current;
      const next = this.#orders.find(({ order }) => order.table !== current?.table);
      if (next) {
        await this.#carryOut(next.order, next.revision);
        this.#orders.splice(this.#orders.indexOf(next), 1);
        // Only now: a table is not copied as long as there is an order for it.
        const now = await this.#parts.record.copy(next.order.table);
        if (now?.state === 'pending' || now?.state === 'running') this.#add(now.table);
        continue;
      }
      if (this.#orders.length > 0) current?.interrupt.abort();
      await this.#sleep(signal);
    }
  }

  async #carryOut(order: CopyOrder, revision: number): Promise<void> {
    const { record, backfill, log } = this.#parts;
    const { table } = order;
    const state = await record.copy(table);
    // It has waited for the chunk that was under way, and can have been taken back meanwhile, or another one given.
    if ((await record.noted(table))?.revision !== revision) return;
    const next = state && ordered(state, order);
    // How one has ended that was not under way any more is in the log already.
    if (next?.state === 'cancelled' && state?.state !== 'failed' && state?.state !== 'cancelled') await backfill.cancelled(next);
    // Of the copy as it is by now: somebody may have asked for another one.
    const put = next && (await record.changeCopy(table, (known) => known && ordered(known, order)));
    if (put?.state === 'paused') this.#paused.add(table);
    else this.#paused.delete(table);
    this.#count();
    if (put) log.info({ table, rows: put.rows }, `backfill: ${order.order}, as was asked for`);
    await record.removeOrder(table, revision);
  }
}

/** Nobody wants what has failed any more, so nobody need be told of it. */
function givenUp(copy: CopyState): CopyState | undefined {
  const { state, whole } = copy;
  if (state !== 'failed' && whole?.state !== 'failed') return undefined;
  return { ...copy, state: state === 'failed' ? 'cancelled' : state, ...(whole && { whole: { ...whole, state: 'cancelled' } }) };
}

/** What an order makes of a copy; undefined when there is nothing to do. */
function ordered(state: CopyState, { order, rate }: CopyOrder): CopyState | undefined {
  if (state.state !== 'pending' && state.state !== 'running' && state.state !== 'paused')
    return order === 'cancel' ? givenUp(state) : undefined;
  const rest: CopyState = { ...state, speed: undefined, note: undefined, attempts: undefined };
  if (order === 'cancel') return { ...rest, state: 'cancelled' };
  // Nothing tells from `paused` whether it had begun, but the mark.
  if (order === 'pause') return { ...rest, state: 'paused', begun: state.begun === true || state.state === 'running' };
  return {
    ...rest,
    state: state.begun ? 'running' : state.state === 'paused' ? 'pending' : state.state,
    rate: rate === undefined ? state.rate : rate || undefined,
  };
}
