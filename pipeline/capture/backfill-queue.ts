import { closePostgres, connectPostgres } from '../clients/postgres.ts';
import type { Logger } from '../runtime/logging.ts';
import type { Catalog } from '../../schemas/catalog.ts';
import type { Backfill } from './backfill.ts';
import type { CopyState, LogRecord } from './log-record.ts';
import { selectTables, type CapturedTable } from './tables.ts';

/** Runs the backfills that are noted in the log's record, one after the other: what was begun, what is pending, what is asked for. */
export class BackfillQueue {
  readonly #waiting: string[] = [];
  #wake: (() => void) | undefined;

  async run(parts: {
    record: LogRecord;
    backfill: Backfill;
    url: string;
    catalog: Catalog;
    log: Logger;
    signal: AbortSignal;
  }): Promise<void> {
    const { record, signal } = parts;
    for (const state of (await record.copies()).values()) if (state.state === 'running') this.#add(state);
    const requests = record.onRequest((state) => this.#add(state), signal);
    signal.addEventListener('abort', () => this.#wake?.(), { once: true });
    await Promise.race([requests, this.#work(parts)]);
  }

  #add(state: CopyState): void {
    if (!this.#waiting.includes(state.table)) this.#waiting.push(state.table);
    this.#wake?.();
  }

  async #work(parts: Parameters<BackfillQueue['run']>[0]): Promise<void> {
    const { record, backfill, log, signal } = parts;
    while (!signal.aborted) {
      const name = this.#waiting.shift();
      if (name === undefined) {
        await new Promise<void>((resolve) => (this.#wake = resolve));
        continue;
      }
      const state = await record.copy(name);
      if (!state || (state.state !== 'pending' && state.state !== 'running')) continue;
      const table = await find(name, parts);
      if (table) await backfill.run(table, state);
      else {
        log.warn({ table: name }, 'not captured, or no longer there: no backfill');
        await record.putCopy({ ...state, state: 'failed', error: 'the table is not captured, or no longer there' });
      }
    }
  }
}

/** On a connection of its own: it may have to wait for a lock, and capture's must not. */
async function find(
  name: string,
  { url, catalog, log }: { readonly url: string; readonly catalog: Catalog; readonly log: Logger },
): Promise<CapturedTable | undefined> {
  const client = await connectPostgres(url, 'headwater backfill', log);
  try {
    return (await selectTables(client, catalog)).tables.find((candidate) => candidate.name === name);
  } finally {
    await closePostgres(client);
  }
}
