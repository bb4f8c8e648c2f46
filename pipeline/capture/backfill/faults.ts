import { DatabaseError } from '../../clients/postgres.ts';
import { HeadwaterError, refused } from '../../runtime/errors.ts';

/**
 * SQLSTATEs (PostgreSQL manual, appendix A) by which the server's state is to blame, and another attempt may do better: connections,
 * transactions that ended, authorisation, databases that are away, conflicts, resources, locks and other objects' states,
 * interventions, faults of the system, old snapshots, internal errors. Of two of the classes not the faults of whoever asks: 08P01
 * is one of the protocol, and 25006 a write in a transaction that does not allow it.
 */
const ofTheServer = /^(08(?!P01)|25P|28|3D|40|53|55|57|58|72|F0|XX)/;

/** Is this what a statement can be to blame for, whatever its functions raise, and not the server's state? */
export function isFaultOfStatement(error: unknown): boolean {
  return error instanceof DatabaseError && error.code !== undefined && !ofTheServer.test(error.code);
}

/**
 * Errors of a backfill that another attempt will not change: a fault in values, in the statement or in a function that a condition
 * calls, an unknown column or table, a missing privilege.
 */
export function isFaultOfRequest(error: unknown): boolean {
  // A table that is gone is not the fault of whoever takes a snapshot, who begins anew: only a request for it ends.
  if (error instanceof HeadwaterError) return error.reaction === 'usage' || error.code === 'no_such_table';
  return isFaultOfStatement(error);
}

/** The table is locked by somebody who changes its definition. */
export function isLocked(error: unknown): boolean {
  return (error as { code?: unknown }).code === '55P03';
}

/** What is copied before its changes are captured would stand in the log for ever, whatever becomes of it meanwhile. */
export function notPublished(table: string): HeadwaterError {
  return refused('not_published', `changes of ${table} are not captured yet`, 'restart capture: it copies the table then');
}
