import { backoffMs, pause } from '../../runtime/backoff.ts';
import { HeadwaterError, messageOf } from '../../runtime/errors.ts';
import type { CopyState } from '../log-record.ts';
import type { CapturedTable } from '../tables.ts';
import { isFaultOfRequest } from './faults.ts';
import { Run, StepAside, type BackfillOptions, type Turn } from './run.ts';
import { TableCopy } from './table-copy.ts';
import { ChunkWriter } from './writer.ts';

/** Backfills from their request to their end: what fails is tried again, given up, and noted in the log and in its record. */
export class Backfill {
  readonly #options: BackfillOptions;
  readonly #writer: ChunkWriter;
  readonly #tables: TableCopy;

  constructor(options: BackfillOptions) {
    this.#options = options;
    this.#writer = new ChunkWriter(options);
    this.#tables = new TableCopy(options);
  }

  /**
   * Copies one table from where its state says, until it is done or the signal fires, and keeps the state in the log's record.
   * Failures of the database are tried again; those of the request end it.
   * @returns `later` when it has made room for others and is to be run again
   */
  async run(table: CapturedTable, state: CopyState, turn: Turn): Promise<'ended' | 'later'> {
    const { log, signal, metrics } = this.#options;
    if (!table.hasKey) return this.#withoutKey(table, state);
    log.info({ table: table.name, from: state.after ?? 'the beginning' }, 'backfill begins');
    const run = new Run(this.#options, table, state, turn);
    // It may be waiting for an answer.
    const cut = (): void => void run.reader.close();
    signal.addEventListener('abort', cut, { once: true });
    try {
      return await this.#untilDone(run);
    } finally {
      metrics.chunkRows.set(0);
      signal.removeEventListener('abort', cut);
      await run.reader.close();
    }
  }

  async #untilDone(run: Run): Promise<'ended' | 'later'> {
    const { tracker, record, log, signal } = this.#options;
    const { name } = run.table;
    for (let failures = 0; !run.interrupt.aborted; failures++) {
      const { movedOnAt } = run;
      try {
        await this.#tables.copy(run);
        return 'ended';
      } catch (error) {
        if (signal.aborted) return 'ended';
        if (isFaultOfRequest(error)) {
          await this.failed(run.state, error);
          return 'ended';
        }
        if (error instanceof StepAside) {
          await record.putCopy(run.state);
          return 'later';
        }
        log.warn({ table: name, error: messageOf(error) }, 'backfill interrupted, going on from the last chunk');
        await run.note(`tries again: ${messageOf(error)}`);
        if (run.isStuck) return 'later';
        if (run.movedOnAt > movedOnAt) failures = 0;
        await pause(backoffMs(failures), run.interrupt);
        await run.reader.disconnect();
      } finally {
        tracker.untrack(name);
      }
    }
    return 'ended';
  }

  /** Notes in the log that a backfill has been given up. */
  async cancelled(state: CopyState): Promise<void> {
    this.#options.log.info({ table: state.table, rows: state.rows }, 'backfill cancelled');
    if (state.begun) await this.#writer.mark({ phase: 'cancelled', table: state.table, rows: state.rows });
  }

  /** Notes in the log and in its record that a backfill has failed, and why. */
  async failed(state: CopyState, cause: unknown): Promise<void> {
    const { record, log } = this.#options;
    const hint = cause instanceof HeadwaterError ? cause.hint : undefined;
    const error = messageOf(cause) + (hint === undefined ? '' : ` (${hint})`);
    log.error({ table: state.table, error }, 'backfill failed');
    if (state.begun) await this.#writer.mark({ phase: 'failed', table: state.table, rows: state.rows });
    await record.putCopy({ ...state, state: 'failed', note: undefined, error });
  }

  async #withoutKey(table: CapturedTable, state: CopyState): Promise<'ended'> {
    const { record, log } = this.#options;
    const note = 'the table has no primary key, so its earlier rows cannot be copied: it is in the log from here on';
    log.warn({ table: table.name }, note);
    await this.#writer.mark({ phase: 'skipped', table: table.name, note });
    await record.putCopy({ ...state, oid: table.oid, state: 'none', error: note });
    return 'ended';
  }
}
