import type { Command } from 'commander';
import type { Cli } from '../cli.ts';
import { verb } from '../verb.ts';

/** `headwater status` */
export function statusCommand(cli: Cli): Command {
  return verb(
    cli,
    'status',
    'Show the log, the slot, each processor, backfills, rebuilds, the dead letters, alerts and who is connected. Exits 1 when something is unhealthy, and says what.',
    [
      ['status', 'now'],
      ['status --watch', 'again each second, until Ctrl-C'],
      ['status --json', 'for scripts and monitoring'],
    ],
  )
    .option('--json', 'print a JSON object (with --watch: a line each second)')
    .option('--watch', 'refresh each second')
    .dataOption()
    .does(async () => (await import('../actions/status.ts')).showStatus);
}
