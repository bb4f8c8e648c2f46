import type { Catalog } from '../../schemas/catalog.ts';
import { closePostgres, connectPostgres } from '../clients/postgres.ts';
import type { Logger } from '../runtime/logging.ts';
import { linked } from '../runtime/tasks.ts';
import type { Backfill } from './backfill.ts';
import type { CopyOrder, CopyState, LogRecord } from './log-record.ts';
import { selectTables, type CapturedTable } from './tables.ts';

export interface BackfillQueueParts {
  readonly record: LogRecord;
  readonly backfill: Backfill;
  readonly url: string;
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
  readonly #orders: { readonly order: CopyOrder; readonly revision: number }[] = [];
  /** The table that is being copied, or about to be. */
  #current: { readonly table: string; readonly interrupt: AbortController } | undefined;
  #wake = new Map<'work' | 'obey', () => void>();

  constructor(parts: BackfillQueueParts) {
    this.#parts = parts;
  }

  async run(): Promise<void> {
    const { record, signal } = this.#parts;
    for (const state of (await record.copies()).values()) if (state.state === 'running') this.#add(state.table);
    const requests = record.onRequest((state) => this.#add(state.table), signal);
    const orders = record.onOrder((order, revision) => {
      this.#orders.push({ order, revision });
      this.#wakeUp();
    }, signal);
    const wakeUp = (): void => this.#wakeUp();
    signal.addEventListener('abort', wakeUp, { once: true });
    try {
      await Promise.race([requests, orders, this.#work(), this.#obey()]);
    } finally {
      signal.removeEventListener('abort', wakeUp);
    }
  }

  #add(table: string): void {
    if (!this.#waiting.includes(table)) this.#waiting.push(table);
    this.#wakeUp();
  }

  #wakeUp(): void {
    for (const wake of this.#wake.values()) wake();
  }

  async #sleep(who: 'work' | 'obey'): Promise<void> {
    await new Promise<void>((resolve) => this.#wake.set(who, resolve));
  }

  async #work(): Promise<void> {
    const { record, signal } = this.#parts;
    while (!signal.aborted) {
      const name = this.#waiting.shift();
      if (name === undefined) {
        await this.#sleep('work');
        continue;
      }
      const interrupt = new AbortController();
      this.#current = { table: name, interrupt };
      const state = this.#orders.some(({ order }) => order.table === name) ? undefined : await record.copy(name);
      if (state?.state === 'pending' || state?.state === 'running')
        await linked(signal, interrupt, () => this.#copy(state, interrupt.signal));
      this.#current = undefined;
      this.#wakeUp();
    }
  }

  async #copy(state: CopyState, interrupt: AbortSignal): Promise<void> {
    const { record, backfill, log } = this.#parts;
    const table = await this.#find(state.table);
    if (table) return backfill.run(table, state, interrupt);
    log.warn({ table: state.table }, 'not captured, or no longer there: no backfill');
    await record.putCopy({ ...state, state: 'failed', error: 'the table is not captured, or no longer there' });
  }

  /** On a connection of its own: it may have to wait for a lock, and capture's must not. */
  async #find(name: string): Promise<CapturedTable | undefined> {
    const { url, catalog, log } = this.#parts;
    const client = await connectPostgres(url, 'headwater backfill', log);
    try {
      return (await selectTables(client, catalog)).tables.find((candidate) => candidate.name === name);
    } finally {
      await closePostgres(client);
    }
  }

  /** Carries out orders. One for the table that is being copied waits until that has come to a stop, so that one writes at a time. */
  async #obey(): Promise<void> {
    while (!this.#parts.signal.aborted) {
      const current = this.#current;
      const next = this.#orders.find(({ order }) => order.table !== current?.table);
      if (next) {
        await this.#carryOut(next.order, next.revision);
        this.#orders.splice(this.#orders.indexOf(next), 1);
        continue;
      }
      if (this.#orders.length > 0) current?.interrupt.abort();
      await this.#sleep('obey');
    }
  }

  async #carryOut(order: CopyOrder, revision: number): Promise<void> {
    const { record, backfill, log } = this.#parts;
    const state = await record.copy(order.table);
    const next = state && obeying(state, order);
    if (next?.state === 'cancelled') await backfill.cancelled(next);
    if (next) {
      await record.putCopy(next);
      log.info({ table: order.table, rows: next.rows }, `backfill: ${order.order}, as was asked for`);
    }
    await record.removeOrder(order.table, revision);
    const now = next ?? state;
    if (now?.state === 'pending' || now?.state === 'running') this.#add(now.table);
  }
}

/** What an order makes of a copy; undefined when there is nothing to do. */
function obeying(state: CopyState, { order, rate }: CopyOrder): CopyState | undefined {
  if (state.state !== 'pending' && state.state !== 'running' && state.state !== 'paused') return undefined;
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
