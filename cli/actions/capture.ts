import { detachDatabase, requestReset, type Operation } from '../../pipeline/capture/operations.ts';
import { createLogger } from '../../pipeline/runtime/logging.ts';
import { configOf, type Cli } from '../cli.ts';
import { confirm } from '../confirm.ts';
import { withServers } from '../connections.ts';
import { progressOn, type Progress } from '../progress.ts';
import { loadCatalog } from '../roles/catalog.ts';

interface Confirmed {
  readonly yes?: boolean;
  readonly data?: string;
}

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

/** Drops slot and publications. */
export async function detach(cli: Cli, { yes, data }: Confirmed): Promise<void> {
  await confirm(cli, yes, 'Changes after this are never captured. Drop the slot and the publications?');
  await cli.out.line(await act(cli, data, dropAll));
}

/** Begins a new epoch from a fresh snapshot. */
export async function resnapshot(cli: Cli, { yes, data }: Confirmed): Promise<void> {
  await confirm(cli, yes, 'Every reader has to begin anew. Start a new epoch?');
  await cli.out.line(await act(cli, data, (operation) => resetWith(operation, 'resnapshot')));
}

/** Goes on over a gap at once, in a new epoch, and copies all tables beside the stream. Returns a sentence that says what was done. */
export function acceptGap(operation: Operation): Promise<string> {
  return resetWith(operation, 'accept_gap');
}

async function dropAll(operation: Operation): Promise<string> {
  const { slot, publications } = await detachDatabase(operation);
  if (!slot && publications === 0) return 'There was nothing to remove.';
  return `Removed ${slot ? `the slot ${operation.config.slot} and ` : ''}${publications} publications. The database keeps no more WAL for Headwater.`;
}

async function resetWith(operation: Operation, reset: 'resnapshot' | 'accept_gap'): Promise<string> {
  const outcome = await requestReset(operation, reset);
  return outcome === 'taken'
    ? 'A new epoch has begun; capture copies the tables. `headwater backfill list` shows how far it is.'
    : 'Noted: capture begins a new epoch when it starts.';
}
