import type { Command } from 'commander';
import { HeadwaterError } from '../pipeline/runtime/errors.ts';
import type { Cli } from './cli.ts';
import { verb } from './verb.ts';

/** `headwater run` */
export function runCommand(cli: Cli): Command {
  return verb(cli, 'run', 'Run one or several roles in this process.', [['run capture cache', 'two roles']])
    .argument('<role...>', 'capture, cache, alerts, aggregates, notify, gateway')
    .action(() => {
      throw new HeadwaterError('not_available', 'run is not available in this version');
    });
}
