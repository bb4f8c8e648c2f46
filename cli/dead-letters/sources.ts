import type { PgPool } from '../../pipeline/clients/postgres.ts';
import { DeadLetterDesk } from '../../pipeline/runner/redrive/desk.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { configOf, type Cli } from '../cli.ts';
import { locate, withNats, withPostgres } from '../connections.ts';

interface Where {
  /** Directory of the servers that run, if it was said. */
  readonly data?: string;
}

/** Works with the letters of the log's processors, which NATS has. */
export async function onDesk<T>(cli: Cli, options: Where, work: (desk: DeadLetterDesk) => Promise<T>): Promise<T> {
  const config = await locate(configOf(cli, { data: options.data }), 'natsUrl');
  return withNats(config, silentLogger(), async (connection) => work(await DeadLetterDesk.open(connection)));
}

/** Works with the notifications, which the database has. */
export async function onDatabase<T>(cli: Cli, options: Where, work: (pool: PgPool) => Promise<T>): Promise<T> {
  const config = await locate(configOf(cli, { data: options.data }), 'databaseUrl');
  return withPostgres(config, silentLogger(), work);
}
