import type { Config } from './config.ts';
import { HeadwaterError, messageOf, usage } from './errors.ts';
import { settings } from './settings.ts';
import { withoutSecrets } from './without-secrets.ts';

/** The settings that say where a server is. */
export type ServerSetting = 'databaseUrl' | 'natsUrl' | 'redisUrl';

/** What PostgreSQL answers to a user, a password or the name of a database that it does not accept (its SQLSTATE). */
const notLetIn = new Set(['28000', '28P01', '3D000']);

/**
 * Turns a failed connection into an error that says which server it is, and what to do: `unreachable`, or `postgres_unauthorized` (usage).
 * Errors of ours stay as they are.
 * @param from where the address came from, for the message
 */
export function unreachable(what: string, config: Config, server: ServerSetting, from = ''): (error: unknown) => never {
  return (error) => {
    if (error instanceof HeadwaterError) throw error;
    const { env } = settings[server];
    const local = config.provenance[server] === 'local';
    const where = `${what} at ${withoutSecrets(config[server] ?? '')}${from}`;
    if (notLetIn.has(String((error as { code?: unknown } | null)?.code)))
      throw usage(
        'postgres_unauthorized',
        `${where} does not let us in: ${messageOf(error)}`,
        `correct ${env}: user, password and database`,
      );
    throw new HeadwaterError('unreachable', `${where} does not answer: ${messageOf(error)}`, {
      hint: local ? 'is `npm start` still running? Start it again' : `check ${env}, and that the server is up`,
      cause: error,
    });
  };
}
