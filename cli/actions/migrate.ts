import { migrate as applyMigrations } from '../../deploy/migrate.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { configOf, type Cli } from '../cli.ts';
import { locate, withPostgres } from '../connections.ts';

/** Applies the migrations that the database lacks, and says which. */
export async function migrate(cli: Cli, { data, json }: { data?: string; json?: boolean }): Promise<void> {
  const config = await locate(configOf(cli, { data }), 'databaseUrl');
  const log = silentLogger();
  const { applied } = await withPostgres(config, log, () => applyMigrations(config.databaseUrl, { demo: false, log }));
  if (json) await cli.out.line(JSON.stringify({ applied }));
  else await cli.out.line(applied.length === 0 ? 'The schema is up to date.' : `Applied ${applied.join(', ')}.`);
}
