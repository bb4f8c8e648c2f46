import type { Config } from '../pipeline/runtime/config.ts';
import { HeadwaterError } from '../pipeline/runtime/errors.ts';
import type { Logger } from '../pipeline/runtime/logging.ts';

/** What `headwater backfill` was asked for. */
export interface BackfillRequest {
  /** `<schema>.<table>`; undefined: every captured table. */
  readonly table: string | undefined;
  /** An SQL condition on the rows. */
  readonly where: string | undefined;
  /** The log has a gap that this is to mend: a new epoch. */
  readonly acceptGap: boolean;
}

/** What an action on capture is given. The three URLs are known. */
export interface ActionContext {
  readonly config: Config;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Shows how far it has come. */
  readonly progress: (text: string) => void;
}

/** Logs the present rows of a table beside the stream. Returns a sentence that says what was done. */
export async function backfill(_request: BackfillRequest, _context: ActionContext): Promise<string> {
  throw new HeadwaterError('not_available', 'backfill is not available in this version');
}

/** Drops slot and publications. Returns a sentence that says what was done. */
export async function detach(_context: ActionContext): Promise<string> {
  throw new HeadwaterError('not_available', 'detach is not available in this version');
}

/** Begins a new epoch from a fresh snapshot. Returns a sentence that says what was done. */
export async function resnapshot(_context: ActionContext): Promise<string> {
  throw new HeadwaterError('not_available', 'resnapshot is not available in this version');
}
