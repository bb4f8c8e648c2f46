import { refused } from '../pipeline/runtime/errors.ts';
import type { Cli } from './cli.ts';

/**
 * Asks before something that cannot be undone, unless `yes` was given.
 * @throws HeadwaterError `not_confirmed` (refused)
 */
export async function confirm(cli: Cli, yes: boolean | undefined, question: string): Promise<void> {
  if (yes) return;
  if (!cli.ask)
    throw refused('not_confirmed', 'this has to be confirmed, and there is no terminal to ask on', 'give --yes if you are sure');
  const answer = await cli.ask(`${question} [y/N] `);
  if (!/^y(es)?$/i.test(answer.trim())) throw refused('not_confirmed', 'not confirmed: nothing was changed');
}
