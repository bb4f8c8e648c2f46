import type { Command } from 'commander';
import type { Cli } from '../cli.ts';
import { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { verb } from '../verb.ts';

/** `headwater up` */
export function upCommand(cli: Cli): Command {
  return verb(cli, 'up', 'Start local services and all roles in one process.', [['up --demo', 'with the demo market']]).action(() => {
    throw new HeadwaterError('not_available', 'up is not available in this version');
  });
}
