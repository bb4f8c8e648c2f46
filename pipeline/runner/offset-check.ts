import type { Bounds } from '../log/event-log.ts';
import { OffsetExpired } from '../log/errors.ts';
import { HeadwaterError, refused } from '../runtime/errors.ts';
import type { Offset } from './state-store.ts';

/**
 * May a processor go on from this offset? An offset that says nothing about this log is an error, never a reason to skip.
 * @throws HeadwaterError `epoch_changed`, `log_regressed` (refused), `offset_expired`
 */
export function requireContinuity(processor: string, offset: Offset, bounds: Bounds): void {
  const rebuild = 'its state has to be made anew from the log';
  if (offset.epoch !== bounds.epoch)
    throw refused(
      'epoch_changed',
      `${processor} has folded the log's epoch ${offset.epoch} up to ${offset.seq}, but the log's epoch is ${bounds.epoch} now`,
      rebuild,
    );
  if (offset.seq > bounds.last)
    throw refused(
      'log_regressed',
      `${processor} has folded the log up to ${offset.seq}, but the log ends at ${bounds.last}: it has lost events, or is another log`,
      rebuild,
    );
  if (offset.seq + 1 < bounds.first) throw new OffsetExpired(offset.seq + 1, bounds.first);
}

/** Is this an error that stops a processor, rather than one to wait out? */
export function stopsProcessor(error: unknown): error is HeadwaterError {
  return error instanceof HeadwaterError && error.reaction !== 'retry';
}
