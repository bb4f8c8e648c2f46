import type { Command } from 'commander';
import { settings } from '../../pipeline/runtime/settings.ts';
import type { Cli } from '../cli.ts';
import { verb } from '../verb.ts';

/** `headwater up` */
export function upCommand(cli: Cli): Command {
  return verb(cli, 'up', 'Start everything in one process: local servers where no URL is set, and every role.', [
    ['up', 'local servers, all roles, the demo market'],
    ['up --no-demo --port 0 --json', 'for scripts: one line of JSON when it is ready'],
  ])
    .option('--demo', 'feed the demo market (the default on a local database)')
    .option('--no-demo', 'do not')
    .option('--no-snapshot', 'begin without a copy of the rows that are there')
    .option('--json', 'when ready, print one line {"gateway","databaseUrl","natsUrl","redisUrl","key"}')
    .value(
      '--port <port>',
      `port of the gateway, 0 for any (default: ${settings.port.env}, else ${settings.port.default})`,
      settings.port.type.parse,
    )
    .value(
      '--rate <rows>',
      `rows a second of the demo market (default: ${settings.demoRate.env}, else ${settings.demoRate.default})`,
      settings.demoRate.type.parse,
    )
    .dataOption()
    .does(async () => (await import('../actions/up.ts')).up);
}
