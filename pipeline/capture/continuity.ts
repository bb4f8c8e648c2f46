import { refused, type HeadwaterError } from '../runtime/errors.ts';
import type { Seq } from '../log/event-log.ts';
import { formatId, formatLsn, type Lsn, type Position } from '../source/position.ts';

/** What the database, the slot, the log and the log's record say at a start. */
export interface Facts {
  readonly database: { readonly system: string; readonly timeline: number; readonly flushLsn: Lsn };
  /** Where the database left the timeline that the record names; undefined when it is still on it, or that is unknown. */
  readonly leftTimelineAt: Lsn | undefined;
  readonly slot: { readonly confirmed: Lsn; readonly walStatus: string; readonly plugin: string; readonly database: string } | undefined;
  readonly currentDatabase: string;
  readonly record: {
    readonly system: string | undefined;
    readonly timeline: number | undefined;
    readonly position: { readonly seq: Seq; readonly position: Position } | undefined;
    readonly epochStart: Seq;
  };
  /** The log's last sequence, and the position of the last event if it is still held and of this epoch. */
  readonly log: { readonly lastSeq: Seq; readonly last: Position | undefined };
}

/** `first`: slot and log are to be made; `stream`: go on after `position`, `copyAll` when the slot is there but the log never held anything. */
export type Decision = { readonly start: 'first' } | { readonly start: 'stream'; readonly position: Position; readonly copyAll: boolean };

const mend =
  'take a new snapshot: headwater resnapshot; or accept the gap and copy all tables again: headwater backfill --all --accept-gap';

function gap(code: string, message: string): HeadwaterError {
  return refused(code, `${message}. Going on could lose changes unseen`, mend);
}

/**
 * Proves that the stream can go on exactly where the log ends, or says why not.
 * @throws HeadwaterError (refused), with both positions named
 */
export function decideStart(facts: Facts): Decision {
  const { database, slot, record, log } = facts;
  if (record.system !== undefined && record.system !== database.system)
    throw gap('other_database', `the log is the history of database system ${record.system}, but DATABASE_URL leads to ${database.system}`);
  if (record.position && log.lastSeq < record.position.seq)
    throw gap('log_regressed', `the log ends at sequence ${log.lastSeq}, but ${record.position.seq} had been confirmed to PostgreSQL`);
  const position = log.last ?? keptPosition(facts);
  const empty = position === undefined;
  if (empty && log.lastSeq >= record.epochStart)
    throw gap(
      'log_trimmed',
      `the log's last event, sequence ${log.lastSeq}, has been trimmed, and the last position kept beside it is of sequence ${record.position?.seq ?? 'none'}: it is not known how far PostgreSQL (at ${formatLsn(database.flushLsn)}) has been read`,
    );
  if (slot && slot.database !== facts.currentDatabase)
    throw refused(
      'slot_elsewhere',
      `the slot belongs to database ${slot.database}, not ${facts.currentDatabase}`,
      'name another slot with HEADWATER_SLOT',
    );
  if (slot && slot.plugin !== 'pgoutput')
    throw refused('slot_plugin', `the slot uses the plugin ${slot.plugin}, not pgoutput`, 'name another slot with HEADWATER_SLOT');
  if (!slot) {
    if (empty) return { start: 'first' };
    throw gap(
      'slot_missing',
      `the log ends at ${formatId(position)}, but the replication slot is gone (PostgreSQL is at ${formatLsn(database.flushLsn)})`,
    );
  }
  if (slot.walStatus === 'lost')
    throw gap(
      'slot_lost',
      `PostgreSQL has removed WAL that the slot needed (it is at ${formatLsn(slot.confirmed)}; see max_slot_wal_keep_size)`,
    );
  if (empty) return { start: 'stream', position: { lsn: slot.confirmed - 1n, index: 0xffffffff }, copyAll: true };
  requireSameHistory(facts, position);
  if (slot.confirmed > position.lsn + 1n)
    throw gap(
      'slot_ahead',
      `the slot is confirmed up to ${formatLsn(slot.confirmed)}, but the log ends at ${formatId(position)} (${formatLsn(position.lsn)})`,
    );
  return { start: 'stream', position, copyAll: false };
}

/** The kept position, if nothing has been written since it was kept. */
function keptPosition({ record, log }: Facts): Position | undefined {
  const kept = record.position;
  return kept && kept.seq === log.lastSeq && kept.seq >= record.epochStart ? kept.position : undefined;
}

function requireSameHistory({ database, record, leftTimelineAt }: Facts, position: Position): void {
  if (database.flushLsn < position.lsn)
    throw gap(
      'database_behind',
      `PostgreSQL is at ${formatLsn(database.flushLsn)}, behind the log's ${formatLsn(position.lsn)}: it was restored, or a standby that had not everything was promoted`,
    );
  if (record.timeline === undefined || record.timeline === database.timeline) return;
  if (leftTimelineAt === undefined || leftTimelineAt <= position.lsn)
    throw gap(
      'timeline_switched',
      `PostgreSQL has switched from timeline ${record.timeline} to ${database.timeline} at ${leftTimelineAt === undefined ? 'an unknown position' : formatLsn(leftTimelineAt)}, before the log's ${formatLsn(position.lsn)}`,
    );
}
