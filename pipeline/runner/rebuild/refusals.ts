import { refused, type HeadwaterError } from '../../runtime/errors.ts';
import type { Seq } from '../../log/event-log.ts';
import type { Offset } from '../state-store.ts';
import type { BesideStatus, Comparison, RebuildOptions } from './model.ts';

/** What stands beside is not what this rebuild has worked on. */
export function overtaken(name: string): HeadwaterError {
  return refused(
    'rebuild_overtaken',
    `what stands beside ${name} has been flipped or removed by another command meanwhile`,
    '`headwater rebuild --status` shows what is there',
  );
}

/** There is nothing that could be flipped. */
function nothingBeside(name: string): HeadwaterError {
  return refused(
    'rebuild_missing',
    `nothing stands beside ${name} that could be flipped`,
    `\`headwater rebuild ${name}\` fills, compares and flips`,
  );
}

/**
 * Is this something to work on?
 * @throws HeadwaterError `rebuild_missing`, `rebuild_kept`
 */
export function requireWorkable(
  name: string,
  status: BesideStatus | undefined,
  { back, existing }: Pick<RebuildOptions, 'back' | 'existing'>,
): void {
  const state = status?.state;
  if (existing && (state === undefined || state === 'dropping')) throw nothingBeside(name);
  if (back && state !== 'kept')
    throw refused('rebuild_missing', `there is no former state of ${name} to go back to`, `\`headwater rebuild ${name}\` makes a new one`);
  if (!back && state === 'kept')
    throw refused(
      'rebuild_kept',
      `the former state of ${name} is still kept, since ${status!.since}`,
      `remove it with \`headwater rebuild ${name} --drop\`, or go back to it with --flip`,
    );
}

/**
 * False when there is nothing to remove.
 * @throws HeadwaterError `rebuild_kept`, `rebuild_filling`
 */
export function removable(name: string, status: BesideStatus | undefined, expected: 'filling' | 'kept'): boolean {
  if (status?.state === 'kept' && expected === 'filling')
    throw refused(
      'rebuild_kept',
      `the rebuild of ${name} has been flipped; what stands beside is the former state`,
      '--drop removes it, --flip goes back to it',
    );
  if (status?.state === 'filling' && expected === 'kept')
    throw refused('rebuild_filling', `what stands beside ${name} has not been flipped yet`, '--flip flips it, --abort removes it');
  return status !== undefined;
}

/** A state that began with the log as it is would lack rows that the log was to have again. */
export function incomplete(name: string, why: string): HeadwaterError {
  return refused(
    'rebuild_incomplete',
    `${name} made anew would lack rows: ${why}. The live state is as it was`,
    `see to that and give the same command again, or do without those rows: headwater rebuild ${name} --no-backfill`,
  );
}

/** From where on a fold has all that there ever was. */
export interface Whole {
  readonly epoch: string;
  /** It begins here or before. */
  readonly by: Seq;
}

/**
 * May a state begin after this offset?
 * @param whole undefined: rows may be missing
 * @throws HeadwaterError `rebuild_incomplete`
 */
export function requireWhole(name: string, { seq, epoch }: Offset, whole: Whole | undefined): void {
  if (!whole || whole.epoch !== epoch || seq < whole.by) return;
  throw incomplete(
    name,
    `it needs the log from ${whole.by} on, which was trimmed up to ${seq} before the fold began; the log has to be large enough for a copy of every table (HEADWATER_LOG_MAX_BYTES, HEADWATER_LOG_MAX_AGE)`,
  );
}

/**
 * Has it been compared?
 * @throws HeadwaterError `rebuild_uncompared`
 */
export function requireCompared(name: string, { uncompared }: Comparison, { insist }: Pick<RebuildOptions, 'insist'>): void {
  if (uncompared === undefined || insist) return;
  throw refused(
    'rebuild_uncompared',
    `${name} was not compared, and has not been flipped: ${uncompared}`,
    `give the same command again when less changes, or flip it as it is: headwater rebuild ${name} --flip`,
  );
}

/** The live one has something to do before another state takes its place. */
export function liveStopped(name: string, why: string): HeadwaterError {
  return refused(
    'rebuild_live_stopped',
    `${name} is not running, and has not been flipped: ${why}. Its role goes on from there by itself, and tells what has ended`,
    `start it, and give the same command again`,
  );
}
