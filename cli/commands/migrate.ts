import type { Command } from 'commander';
import { migrate } from '../../deploy/migrate.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { configOf, type Cli } from '../cli.ts';
import { locate, withPostgres } from '../connections.ts';
import { verb } from '../verb.ts';

/** `headwater migrate` */
export function migrateCommand(cli: Cli): Command {
  return verb(cli, 'migrate', 'Bring the schema "headwater" of the database up to date. Nothing outside it is touched.', [
    ['migrate', 'the running local database'],
    ['migrate --json', 'what was applied, for scripts'],
  ])
    .dataOption()
    .option('--json', 'print {"applied":[…]}')
    .action(async ({ data, json }: { data?: string; json?: boolean }) => {
      const config = await locate(configOf(cli, { data }), 'databaseUrl');
      const log = silentLogger();
      const { applied } = await withPostgres(config, log, () => migrate(config.databaseUrl, { demo: false, log }));
      if (json) await cli.out.line(JSON.stringify({ applied }));
      else await cli.out.line(applied.length === 0 ? 'The schema is up to date.' : `Applied ${applied.join(', ')}.`);
    });
}
