import type { Catalog } from '../../schemas/catalog.ts';
import { connectNats, isUnanswered, openBucket } from '../clients/nats.ts';
import { closePostgres, connectPostgres, escapeIdentifier, isConnectionLost, stableText, type PgClient } from '../clients/postgres.ts';
import { pause } from '../runtime/backoff.ts';
import type { Config } from '../runtime/config.ts';
import { refused } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logging.ts';
import { unreachable } from '../runtime/unreachable.ts';
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

/** Opens a connection to the database for one piece of work. */
export async function withDatabase<T>({ config, log }: Operation, work: (control: PgClient) => Promise<T>): Promise<T> {
  const away = unreachable('PostgreSQL', config, 'databaseUrl');
  const control = await connectPostgres(config.databaseUrl!, 'headwater operator', log).catch(away);
  try {
    for (const setting of stableText) await control.query(setting);
    return await work(control);
  } catch (error) {
    throw isConnectionLost(error) ? away(error) : error;
  } finally {
    await closePostgres(control);
  }
}

/** Opens the log's record for one piece of work. */
export async function withRecord<T>({ config, log }: Operation, work: (record: LogRecord) => Promise<T>): Promise<T> {
  const away = unreachable('NATS', config, 'natsUrl');
  const connection = await connectNats(config.natsUrl!, 'operator', log).catch(away);
  try {
    return await work(new LogRecord(await openBucket(connection, recordBucket(config), Number(config.replicas))));
  } catch (error) {
    throw isUnanswered(error) ? away(error) : error;
  } finally {
    await connection.close();
  }
}

/** Opens what most actions need: both. */
export function withServers<T>(operation: Operation, work: (control: PgClient, record: LogRecord) => Promise<T>): Promise<T> {
  return withDatabase(operation, (control) => withRecord(operation, (record) => work(control, record)));
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
export function detachDatabase(operation: Operation): Promise<{ slot: boolean; publications: number }> {
  const { config } = operation;
  return withDatabase(operation, async (control) => {
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
  });
}
