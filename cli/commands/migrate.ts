import type { Command } from 'commander';
import type { Cli } from '../cli.ts';
import { verb } from '../verb.ts';

/** `headwater migrate` */
export function migrateCommand(cli: Cli): Command {
  return verb(cli, 'migrate', 'Bring the schema "headwater" of the database up to date. Nothing outside it is touched.', [
    ['migrate', 'the running local database'],
    ['migrate --json', 'what was applied, for scripts'],
  ])
    .dataOption()
    .option('--json', 'print {"applied":[…]}')
    .does(async () => (await import('../actions/migrate.ts')).migrate);
}
