import { detachDatabase, requestBackfill, requestReset, type Operation } from '../pipeline/capture/operations.ts';

/** What `headwater backfill` was asked for. */
export interface BackfillRequest {
  /** `<schema>.<table>`; undefined: every captured table. */
  readonly table: string | undefined;
  /** An SQL condition on the rows. */
  readonly where: string | undefined;
  /** The log has a gap that this is to mend: a new epoch. */
  readonly acceptGap: boolean;
}

/** Logs the present rows of a table beside the stream. Returns a sentence that says what was done. */
export async function backfill(request: BackfillRequest, operation: Operation): Promise<string> {
  if (request.acceptGap) return resetWith(operation, 'accept_gap');
  const copied = await requestBackfill(operation, request.table === undefined ? undefined : [request.table], request.where);
  const rows = copied.reduce((sum, state) => sum + state.rows, 0);
  return copied.length === 1
    ? `${copied[0]!.table}: ${rows} rows are in the log.`
    : `${copied.length} tables: ${rows} rows are in the log.`;
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

async function resetWith(operation: Operation, reset: 'resnapshot' | 'accept_gap'): Promise<string> {
  const outcome = await requestReset(operation, reset);
  return outcome === 'taken'
    ? 'A new epoch has begun; capture copies the tables. `headwater status` shows how far it is.'
    : 'Noted: capture begins a new epoch when it starts.';
}
