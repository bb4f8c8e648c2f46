import { statfs } from 'node:fs/promises';
import { escapeIdentifier, type PgClient } from '../clients/postgres.ts';
import type { EventLog } from '../log/event-log.ts';
import type { Config } from '../runtime/config.ts';
import { refused } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logging.ts';
import { formatLsn, parseLsn, type Lsn, type Position } from '../source/position.ts';
import { decideStart, type Decision } from './continuity.ts';
import { findSlot, identifySystem, leftTimelineAt } from './database.ts';
import { endsTransaction, positionOf, type LogEnd } from './log-writer.ts';
import type { CopyState, LogRecord } from './log-record.ts';
import type { CapturedTable } from './tables.ts';

/** How a session begins: where the log ends, and what the continuity check decided. */
export interface Start {
  readonly decision: Decision;
  readonly end: LogEnd;
  readonly epochStart: number;
  /** The log is known to end between two transactions, not within one. */
  readonly between: boolean;
}

/** Gathers what database, slot, log and record say, and decides. Asks `control` in SQL and `replication` in its protocol. */
export async function findStart(
  control: PgClient,
  replication: PgClient,
  slotName: string,
  log: EventLog,
  record: LogRecord,
): Promise<Start> {
  const torn = await record.get('torn');
  if (torn !== undefined) throw refused('log_torn', torn, 'find and stop the other writer, then take a new snapshot: headwater resnapshot');
  const database = await identifySystem(replication);
  const slot = await findSlot(control, slotName);
  const { rows } = await control.query<{ name: string }>('SELECT current_database()::text AS name');
  const timeline = await record.get('timeline');
  const kept = await record.position();
  const { first, last, epochStart } = await log.bounds();
  const lastEvent = last >= first && last >= epochStart ? await log.get(last) : undefined;
  const lastPosition = lastEvent && positionOf(lastEvent);
  const decision = decideStart({
    database,
    leftTimelineAt: timeline === undefined ? undefined : await leftTimelineAt(replication, database.timeline, Number(timeline)),
    slot,
    currentDatabase: rows[0]!.name,
    record: {
      system: await record.get('system_identifier'),
      timeline: timeline === undefined ? undefined : Number(timeline),
      position: kept,
      epochStart,
    },
    log: { lastSeq: last, last: lastPosition },
  });
  const position: Position = decision.start === 'stream' ? decision.position : { lsn: 0n, index: 0 };
  await record.put('system_identifier', database.system);
  await record.put('timeline', String(database.timeline));
  const between = decision.start === 'first' || (lastEvent !== undefined && endsTransaction(lastEvent));
  return { decision, end: { seq: last, position }, epochStart, between };
}

export interface NewSlot {
  readonly consistentPoint: Lsn;
  /** Name of the exported snapshot, valid as long as the replication connection does nothing else. */
  readonly snapshot: string;
}

/** Makes the slot and exports the snapshot at its consistent point. Waits for transactions that are under way. */
export async function createSlot(replication: PgClient, name: string, log: Logger): Promise<NewSlot> {
  const waiting = setTimeout(
    () => log.info({ slot: name }, 'making the slot: PostgreSQL waits for the transactions that are under way'),
    3_000,
  );
  try {
    const { rows } = await replication.query<{ consistent_point: string; snapshot_name: string }>(
      `CREATE_REPLICATION_SLOT ${escapeIdentifier(name)} LOGICAL pgoutput EXPORT_SNAPSHOT`,
    );
    const { consistent_point, snapshot_name } = rows[0]!;
    log.info({ slot: name, consistentPoint: consistent_point }, 'replication slot made');
    return { consistentPoint: parseLsn(consistent_point), snapshot: snapshot_name };
  } finally {
    clearTimeout(waiting);
  }
}

/** The columns last logged of each table in this epoch. */
export async function loggedSchemas(log: EventLog, subject: string, epochStart: number): Promise<Map<string, string>> {
  const schemas = new Map<string, string>();
  for (const event of await log.lastPerSubject(`${subject}._schema.>`)) {
    if (event.seq < epochStart) continue;
    const { relation, columns } = JSON.parse(Buffer.from(event.data).toString('utf8')) as { relation: string; columns: object[] };
    schemas.set(relation, JSON.stringify(columns));
  }
  return schemas;
}

/**
 * Notes the copies that are due: of tables that are new, were made anew or are about to join, and those of all rows that had failed
 * and were never done. Returns their names.
 */
export async function notePendingCopies(
  record: LogRecord,
  tables: readonly CapturedTable[],
  joining: ReadonlySet<string>,
  state: 'pending' | 'done',
): Promise<readonly string[]> {
  const copies = await record.copies();
  const due = tables.filter(({ name, oid }) => {
    const known = copies.get(name);
    return !known || known.oid !== oid || failedFirst(known) || joining.has(name);
  });
  for (const { name, oid, estimate } of due) await record.putCopy({ table: name, oid, state, rows: 0, total: Math.max(0, estimate) });
  return due.map(({ name }) => name);
}

/** Not what copies some rows only: it is asked for again by whoever wants them. One that is under way is not replaced. */
function failedFirst({ state, where, again, whole }: CopyState): boolean {
  if (where === undefined) return state === 'failed' && !again;
  const ended = state === 'done' || state === 'failed' || state === 'cancelled';
  return ended && whole?.state === 'failed';
}

/**
 * Says what will be copied, and refuses when the disk of a local log cannot hold it.
 * @throws HeadwaterError `disk_too_small` (refused)
 */
export async function requireRoom(config: Config, tables: readonly CapturedTable[], log: Logger): Promise<void> {
  const bytes = tables.reduce((sum, table) => sum + table.size, 0);
  const needed = bytes * 2;
  const megabytes = (n: number): string => `${Math.ceil(n / 1024 ** 2)} MB`;
  log.info(
    { tables: tables.length, size: megabytes(bytes), needed: megabytes(needed) },
    'first copy: size of the tables, and the disk space that the log will need',
  );
  if (config.provenance.natsUrl !== 'local') return;
  const { bavail, bsize } = await statfs(config.data);
  if (bavail * bsize < needed)
    throw refused(
      'disk_too_small',
      `the log will need about ${megabytes(needed)}, but ${config.data} has ${megabytes(bavail * bsize)} free`,
      'free disk space, set HEADWATER_DATA to a larger disk, or exclude tables in the catalogue',
    );
}

/** One line on where streaming begins. */
export function describeStart(start: Start): string {
  const { lsn, index } = start.end.position;
  return `after sequence ${start.end.seq}, WAL position ${formatLsn(lsn)} (event ${index})`;
}
