import { refused, type HeadwaterError } from '../../runtime/errors.ts';
import type { BesideStatus, RebuildOptions } from './model.ts';

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
