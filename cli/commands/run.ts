import type { Command } from 'commander';
import type { Cli } from '../cli.ts';
import { verb } from '../verb.ts';

/** `headwater run` */
export function runCommand(cli: Cli): Command {
  return verb(cli, 'run', 'Run one or several roles in this process, on servers that are there.', [
    ['run capture', 'one role, as in production'],
    ['run cache gateway', 'two roles'],
  ])
    .argument('<role...>', 'capture, cache, alerts, aggregates, notify, gateway, and those of HEADWATER_PROCESSORS')
    .option('--no-snapshot', 'capture: begin without a copy of the rows that are there')
    .dataOption()
    .does(async () => (await import('../actions/run.ts')).run);
}
