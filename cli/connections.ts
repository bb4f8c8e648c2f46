import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { NatsConnection } from '../pipeline/clients/nats.ts';
import type { PgPool } from '../pipeline/clients/postgres.ts';
import { withLocal, type Config } from '../pipeline/runtime/config.ts';
import { HeadwaterError, messageOf, usage } from '../pipeline/runtime/errors.ts';
import type { Logger } from '../pipeline/runtime/logging.ts';
import { withoutSecrets } from '../pipeline/runtime/without-secrets.ts';
import { settings } from '../pipeline/runtime/settings.ts';
import { unreachable as unreachableServer, type ServerSetting } from '../pipeline/runtime/unreachable.ts';
import { readRunFile, runFilePath } from './run-file.ts';

/** A configuration in which the named servers' URLs are known. */
export type Located<S extends ServerSetting> = Config & { readonly [K in S]: string };

/**
 * Finds the servers a command needs: the URL that is configured, else what a running `up` has written.
 * @throws HeadwaterError `nothing_running` (usage)
 */
export async function locate<S extends ServerSetting>(config: Config, ...needed: readonly S[]): Promise<Located<S>> {
  const missing = needed.filter((server) => config[server] === undefined);
  if (missing.length === 0) return config as Located<S>;
  const run = await readRunFile(config.data);
  if (!run) {
    const variables = missing.map((server) => settings[server].env).join(', ');
    throw usage(
      'nothing_running',
      `nothing is running in ${config.data} (there is no ${runFilePath(config.data)})`,
      `start it with \`npm start\`, or set ${variables}, or name its directory with HEADWATER_DATA`,
    );
  }
  return withLocal(config, Object.fromEntries(missing.map((server) => [server, run[server]]))) as Located<S>;
}

/**
 * Uses Postgres for one piece of work, and says in plain words when it cannot be reached. Its client is loaded only now: few
 * commands ask every server.
 */
export async function withPostgres<T>(config: Located<'databaseUrl'>, log: Logger, work: (pool: PgPool) => Promise<T>): Promise<T> {
  const { createPool } = await import('../pipeline/clients/postgres.ts');
  const pool = createPool(config.databaseUrl, 'headwater-cli', log, 2);
  try {
    await pool.query('SELECT 1').catch(unreachable('PostgreSQL', config, 'databaseUrl'));
    return await work(pool).catch(withoutSchema);
  } finally {
    await pool.end();
  }
}

/** The same for NATS. */
export async function withNats<T>(config: Located<'natsUrl'>, log: Logger, work: (connection: NatsConnection) => Promise<T>): Promise<T> {
  const { connectNats } = await import('../pipeline/clients/nats.ts');
  const connection = await connectNats(config.natsUrl, 'cli', log).catch(unreachable('NATS', config, 'natsUrl'));
  try {
    return await work(connection).catch(notPermitted(config));
  } finally {
    await connection.close();
  }
}

/** A server lets a user do what it is for: teams read their own consumer, and nothing else. */
function notPermitted({ natsUrl }: Located<'natsUrl'>): (error: unknown) => never {
  return (error) => {
    const why = messageOf(error);
    if (!/permissions violation/i.test(why)) throw error;
    const { username } = new URL(natsUrl);
    throw new HeadwaterError('not_permitted', `the user '${username}' of ${withoutSecrets(natsUrl)} may not do this: ${why}`, {
      reaction: 'refused',
      hint: `a team's user reads its own consumer and nothing else: give the operator's URL in ${settings.natsUrl.env}, or unset it beside a running \`npm start\``,
      cause: error,
    });
  };
}

/** The same as of the pipeline, and says where the address came from. */
export function unreachable(what: string, config: Config, server: ServerSetting): (error: unknown) => never {
  const local = config.provenance[server] === 'local';
  return unreachableServer(what, config, server, local ? ` (from ${runFilePath(config.data)})` : '');
}

function withoutSchema(error: unknown): never {
  if ((error as { code?: unknown } | null)?.code === '42P01' && messageOf(error).includes('headwater.'))
    throw new HeadwaterError('not_migrated', `the database has no schema of Headwater's yet: ${messageOf(error)}`, {
      hint: 'run `headwater migrate`',
      cause: error,
    });
  throw error;
}

/**
 * Runs an action on the database and the log; when nothing runs on a local data directory, its servers are started for the
 * time of the action (capture refuses to start until an operator has decided, so they may well be down).
 */
export async function withServers<T>(config: Config, log: Logger, signal: AbortSignal, work: (config: Config) => Promise<T>): Promise<T> {
  const need = { postgres: config.databaseUrl === undefined, nats: config.natsUrl === undefined, redis: false };
  const down = (need.postgres || need.nats) && !(await readRunFile(config.data)) && existsSync(join(config.data, 'secrets.json'));
  if (!down) return work(await locate(config, 'databaseUrl', 'natsUrl'));
  const { startLocalServices } = await import('../deploy/local/services.ts');
  const services = await startLocalServices({ data: config.data, need, install: false, log, signal });
  try {
    const { databaseUrl, nats } = services;
    return await work(withLocal(config, { ...(databaseUrl ? { databaseUrl } : {}), ...(nats ? { natsUrl: nats.operator } : {}) }));
  } finally {
    await services.stop();
  }
}
