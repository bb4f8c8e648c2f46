import type { Command } from 'commander';
import type { Cli } from '../cli.ts';
import { verb } from '../verb.ts';

/** `headwater detach` */
export function detachCommand(cli: Cli): Command {
  return verb(
    cli,
    'detach',
    'Drop Headwater’s slot and publications from the database, so that it keeps no more WAL for it. The log stays.',
    [
      ['detach', 'asks first'],
      ['detach --yes', 'does not ask'],
    ],
  )
    .option('--yes', 'do not ask')
    .dataOption()
    .does(async () => (await import('../actions/capture.ts')).detach);
}

/** `headwater resnapshot` */
export function resnapshotCommand(cli: Cli): Command {
  return verb(cli, 'resnapshot', 'Begin a new epoch from a fresh snapshot of every table. Positions and tokens of before become invalid.', [
    ['resnapshot', 'asks first'],
    ['resnapshot --yes', 'does not ask'],
  ])
    .option('--yes', 'do not ask')
    .dataOption()
    .does(async () => (await import('../actions/capture.ts')).resnapshot);
}
