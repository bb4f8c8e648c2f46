import { detachDatabase, requestReset, type Operation } from '../pipeline/capture/operations.ts';
import { createLogger } from '../pipeline/runtime/logging.ts';
import type { Cli } from './cli.ts';
import { configOf } from './cli.ts';
import { withServers } from './connections.ts';
import { progressOn, type Progress } from './progress.ts';
import { loadCatalog } from './roles/catalog.ts';

/** Does an operator's action on the database and the log, and shows how far it has come. */
export async function act<T>(
  cli: Cli,
  data: string | undefined,
  action: (operation: Operation, progress: Progress) => Promise<T>,
): Promise<T> {
  const given = configOf(cli, { data });
  const log = createLogger(given.logLevel);
  const progress = progressOn(cli.err);
  try {
    return await withServers(given, log, cli.signal, async (config) =>
      action({ config, catalog: await loadCatalog(config), log, signal: cli.signal, progress: progress.show }, progress),
    );
  } finally {
    progress.end();
  }
}

/** Drops slot and publications. Returns a sentence that says what was done. */
export async function detach(operation: Operation): Promise<string> {
  const { slot, publications } = await detachDatabase(operation);
  if (!slot && publications === 0) return 'There was nothing to remove.';
  return `Removed ${slot ? `the slot ${operation.config.slot} and ` : ''}${publications} publications. The database keeps no more WAL for Headwater.`;
}

/** Begins a new epoch from a fresh snapshot. Returns a sentence that says what was done. */
export function resnapshot(operation: Operation): Promise<string> {
  return resetWith(operation, 'resnapshot');
}

/** The same, but goes on over the gap at once and copies all tables beside the stream. */
export function acceptGap(operation: Operation): Promise<string> {
  return resetWith(operation, 'accept_gap');
}

async function resetWith(operation: Operation, reset: 'resnapshot' | 'accept_gap'): Promise<string> {
  const outcome = await requestReset(operation, reset);
  return outcome === 'taken'
    ? 'A new epoch has begun; capture copies the tables. `headwater backfill list` shows how far it is.'
    : 'Noted: capture begins a new epoch when it starts.';
}
