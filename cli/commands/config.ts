import type { Command } from 'commander';
import type { Cli } from '../cli.ts';
import { verb } from '../verb.ts';

/** `headwater config` */
export function configCommand(cli: Cli): Command {
  return verb(cli, 'config', 'Show every setting: its value, where it comes from, its type and what it means. Passwords are hidden.', [
    ['config', 'a table'],
    ['config --json', 'for scripts'],
    ['config --markdown > docs/configuration.md', 'the documentation'],
  ])
    .option('--json', 'print a JSON array')
    .option('--markdown', 'print the documentation of all settings')
    .does(async () => (await import('../actions/config.ts')).config);
}
