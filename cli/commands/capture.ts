import type { Command } from 'commander';
import { act, detach, resnapshot } from '../capture-actions.ts';
import type { Cli } from '../cli.ts';
import { confirm } from '../confirm.ts';
import { verb } from '../verb.ts';

interface Confirmed {
  readonly yes?: boolean;
  readonly data?: string;
}

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
    .action(async ({ yes, data }: Confirmed) => {
      await confirm(cli, yes, 'Changes after this are never captured. Drop the slot and the publications?');
      await cli.out.line(await act(cli, data, detach));
    });
}

/** `headwater resnapshot` */
export function resnapshotCommand(cli: Cli): Command {
  return verb(cli, 'resnapshot', 'Begin a new epoch from a fresh snapshot of every table. Positions and tokens of before become invalid.', [
    ['resnapshot', 'asks first'],
    ['resnapshot --yes', 'does not ask'],
  ])
    .option('--yes', 'do not ask')
    .dataOption()
    .action(async ({ yes, data }: Confirmed) => {
      await confirm(cli, yes, 'Every reader has to begin anew. Start a new epoch?');
      await cli.out.line(await act(cli, data, resnapshot));
    });
}
