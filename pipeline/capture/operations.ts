import type { Catalog } from '../../schemas/catalog.ts';
import { connectNats, openBucket } from '../clients/nats.ts';
import { connectPostgres, escapeIdentifier, stableText, type PgClient } from '../clients/postgres.ts';
import { pause } from '../runtime/backoff.ts';
import type { Config } from '../runtime/config.ts';
import { HeadwaterError, messageOf, refused } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logging.ts';
import { withoutSecrets } from '../runtime/without-secrets.ts';
import { settings } from '../runtime/settings.ts';
import { findSlot } from './database.ts';
import { LogRecord, recordBucket } from './log-record.ts';
import type { Reset } from './reset.ts';
import { publicationList } from './publications.ts';

/** How often it is looked whether something has been done, in ms. */
export const pollMs = 250;
/** How long capture may take to take something up, in ms. */
export const takenUpMs = 10_000;

/** What an operator's action stands on. */
export interface Operation {
  readonly config: Config;
  readonly catalog: Catalog;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Shows how far it has come. */
  readonly progress: (text: string) => void;
}

function away(what: string, config: Config, server: 'databaseUrl' | 'natsUrl'): (error: unknown) => never {
  return (error) => {
    if (error instanceof HeadwaterError) throw error;
    const local = config.provenance[server] === 'local';
    throw new HeadwaterError('unreachable', `${what} at ${withoutSecrets(config[server]!)} does not answer: ${messageOf(error)}`, {
      hint: local ? 'is `npm start` still running? Start it again' : `check ${settings[server].env}, and that the server is up`,
      cause: error,
    });
  };
}

/** Opens what an action needs: a connection to the database, and the log's record. */
export async function withServers<T>({ config, log }: Operation, work: (control: PgClient, record: LogRecord) => Promise<T>): Promise<T> {
  const control = await connectPostgres(config.databaseUrl!, 'headwater operator', log).catch(away('PostgreSQL', config, 'databaseUrl'));
  try {
    for (const setting of stableText) await control.query(setting);
    const connection = await connectNats(config.natsUrl!, 'operator', log).catch(away('NATS', config, 'natsUrl'));
    try {
      return await work(control, new LogRecord(await openBucket(connection, recordBucket(config), Number(config.replicas))));
    } finally {
      await connection.close();
    }
  } finally {
    await control.end();
  }
}

/** Asks capture to begin a new epoch: at once when it runs, else at its next start. */
export function requestReset(operation: Operation, reset: Reset): Promise<'taken' | 'kept'> {
  return withServers(operation, async (control, record) => {
    await record.put('reset', reset);
    const until = performance.now() + takenUpMs;
    while (performance.now() < until) {
      if ((await record.get('reset')) === undefined) return 'taken';
      if (!(await findSlot(control, operation.config.slot))?.activePid && performance.now() > until - takenUpMs / 2) return 'kept';
      operation.progress('waiting for capture');
      await pause(pollMs, operation.signal);
      operation.signal.throwIfAborted();
    }
    return 'kept';
  });
}

/**
 * Drops slot and publications.
 * @throws HeadwaterError `slot_active` (refused) while capture streams
 */
export async function detachDatabase({ config, log }: Operation): Promise<{ slot: boolean; publications: number }> {
  const control = await connectPostgres(config.databaseUrl!, 'headwater operator', log).catch(away('PostgreSQL', config, 'databaseUrl'));
  try {
    const slot = await findSlot(control, config.slot);
    if (slot?.activePid)
      throw refused(
        'slot_active',
        `slot ${config.slot} is in use by process ${slot.activePid} of PostgreSQL: capture runs`,
        'stop capture first, then detach',
      );
    if (slot) await control.query('SELECT pg_drop_replication_slot($1)', [config.slot]);
    let publications = 0;
    for (const name of publicationList(config.publication)) {
      const { rowCount } = await control.query('SELECT FROM pg_publication WHERE pubname = $1', [name]);
      await control.query(`DROP PUBLICATION IF EXISTS ${escapeIdentifier(name)}`);
      publications += rowCount ?? 0;
    }
    return { slot: slot !== undefined, publications };
  } finally {
    await control.end();
  }
}
