import type { Catalog } from '../../schemas/catalog.ts';
import { connectNats, openBucket } from '../clients/nats.ts';
import { connectPostgres, escapeIdentifier, stableText, type PgClient } from '../clients/postgres.ts';
import { pause } from '../runtime/backoff.ts';
import type { Config } from '../runtime/config.ts';
import { HeadwaterError, messageOf, refused, usage } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logging.ts';
import { describeTable, selectRows } from '../source/table-reader.ts';
import { TypeRegistry } from '../source/types.ts';
import { suggestion } from '../../schemas/nearest.ts';
import { findSlot } from './database.ts';
import { LogRecord, recordBucket, type CopyState } from './log-record.ts';
import type { Reset } from './reset.ts';
import { publicationList } from './publications.ts';
import { selectTables, type CapturedTable } from './tables.ts';

const pollMs = 250;
const takenUpMs = 10_000;

/** What an operator's action stands on. */
export interface Operation {
  readonly config: Config;
  readonly catalog: Catalog;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Shows how far it has come. */
  readonly progress: (text: string) => void;
}

async function withServers<T>({ config, log }: Operation, work: (control: PgClient, record: LogRecord) => Promise<T>): Promise<T> {
  const control = await connectPostgres(config.databaseUrl!, 'headwater operator', log);
  try {
    for (const setting of stableText) await control.query(setting);
    const connection = await connectNats(config.natsUrl!, 'operator', log);
    try {
      return await work(control, new LogRecord(await openBucket(connection, recordBucket(config), Number(config.replicas))));
    } finally {
      await connection.close();
    }
  } finally {
    await control.end();
  }
}

/**
 * Asks capture to copy tables beside the stream, and follows it to the end. Interrupted, the request stays and is carried out.
 * @param names `<schema>.<table>`; undefined for every captured table
 */
export function requestBackfill(
  operation: Operation,
  names: readonly string[] | undefined,
  where: string | undefined,
): Promise<CopyState[]> {
  return withServers(operation, async (control, record) => {
    const tables = await tablesToCopy(control, operation, names);
    if (where !== undefined) for (const table of tables) await requireCondition(control, operation, table, where);
    for (const table of tables) {
      if ((await record.copy(table.name))?.state === 'running')
        throw refused('backfill_running', `a backfill of ${table.name} is under way`, '`headwater status` shows how far it is');
      await record.putCopy({ table: table.name, oid: table.oid, state: 'pending', rows: 0, total: Math.max(0, table.estimate), where });
    }
    const done: CopyState[] = [];
    for (const table of tables) done.push(await follow(operation, control, record, table.name));
    return done;
  });
}

async function tablesToCopy(
  control: PgClient,
  { catalog }: Operation,
  names: readonly string[] | undefined,
): Promise<readonly CapturedTable[]> {
  const { tables, leftOut } = await selectTables(control, catalog);
  if (!names) return tables.filter((table) => table.hasKey);
  return names.map((name) => {
    const table = tables.find((candidate) => candidate.name === name);
    const reason = leftOut.find((other) => other.name === name)?.reason;
    if (!table)
      throw usage(
        'not_captured',
        `${name} is not captured${
          reason
            ? `: ${reason}`
            : suggestion(
                name,
                tables.map((other) => other.name),
              )
        }`,
      );
    if (!table.hasKey)
      throw usage(
        'no_primary_key',
        `${name} has no primary key, so its rows cannot be read in chunks`,
        'add one, or take a new snapshot: headwater resnapshot',
      );
    return table;
  });
}

async function requireCondition(control: PgClient, { catalog, config }: Operation, table: CapturedTable, where: string): Promise<void> {
  const readable = await describeTable(control, table, new TypeRegistry(), catalog, config.subject);
  await control.query('BEGIN READ ONLY');
  try {
    await control.query(`EXPLAIN ${selectRows(readable, { where, limit: 1 })}`);
  } catch (error) {
    throw usage('bad_condition', `--where is not a condition on ${table.name}: ${messageOf(error)}`);
  } finally {
    await control.query('ROLLBACK');
  }
}

async function follow({ config, progress, signal }: Operation, control: PgClient, record: LogRecord, table: string): Promise<CopyState> {
  const begun = performance.now();
  for (;;) {
    const state = await record.copy(table);
    if (!state) throw new HeadwaterError('backfill_gone', `the request for ${table} is gone from the log's record`);
    if (state.state === 'done' || state.state === 'none') return state;
    if (state.state === 'failed') throw new HeadwaterError('backfill_failed', `${table}: ${state.error ?? 'no reason given'}`);
    if (state.state === 'running') progress(progressText(state, (performance.now() - begun) / 1_000));
    else if (performance.now() - begun > takenUpMs && !(await findSlot(control, config.slot))?.activePid) {
      throw new HeadwaterError('capture_away', `capture is not running: ${table} is copied when it is`, {
        hint: 'start capture; the request is kept',
      });
    } else progress(`${table}: waiting for capture`);
    await pause(pollMs, signal);
    signal.throwIfAborted();
  }
}

function progressText({ table, rows, total = 0 }: CopyState, seconds: number): string {
  const rate = rows / Math.max(seconds, 0.001);
  if (total <= 0) return `${table}: ${rows} rows, ${Math.round(rate)} rows/s`;
  const share = Math.min(1, rows / total);
  const bar = '█'.repeat(Math.round(share * 20)).padEnd(20, '░');
  const eta = rate > 0 ? `${Math.ceil(Math.max(0, total - rows) / rate)} s left` : '';
  return `${table} ${bar} ${Math.round(share * 100)} %, ${rows} rows, ${Math.round(rate)} rows/s, ${eta}`;
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
  const control = await connectPostgres(config.databaseUrl!, 'headwater operator', log);
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
