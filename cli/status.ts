import type { PgPool } from '../pipeline/clients/postgres.ts';
import type { RedisClient } from '../pipeline/clients/redis.ts';
import type { Bounds, EventLog } from '../pipeline/log/event-log.ts';
import { RedisKeys } from '../pipeline/runner/redis-keys.ts';
import type { ConnectionRecord } from '../gateway/presence.ts';
import { aggregateOffsets } from './aggregates-status.ts';
import { alertsProblems, type AlertsStatus } from './alerts-status.ts';
import { backfillsProblems, type BackfillStatus } from './backfills-status.ts';
import { plural } from './progress-text.ts';
import type { RebuildStatus } from './rebuilds-status.ts';

/** The log as it is held. `lastAt` is the commit time of its last event. */
export interface LogStatus extends Bounds {
  readonly lastAt: string | undefined;
}

/** A row of pg_replication_slots, as far as it concerns health. */
export interface SlotStatus {
  readonly name: string;
  readonly active: boolean;
  /** WAL that the server must keep for this slot. */
  readonly retainedBytes: number;
  readonly confirmedFlushLsn: string | undefined;
  readonly walStatus: string | undefined;
}

export interface ProcessorStatus {
  readonly name: string;
  /** Last sequence whose effects are stored. */
  readonly seq: number;
  readonly epoch: string;
  /** Events of the log after it. */
  readonly lagEvents: number;
  /** Age of the oldest of them; 0 when there is none. */
  readonly lagSeconds: number;
  /** It has the past to catch up with, and nothing depends on it yet. */
  readonly building?: true;
}

/** The connections of one API key, on all gateways. */
export interface KeyConnections {
  readonly keyId: string;
  readonly connections: number;
  readonly subscriptions: number;
}

/** Who is connected to the gateways, as they last wrote it, some seconds ago. */
export interface ConnectionsStatus {
  readonly connections: number;
  readonly subscriptions: number;
  /** Most connections first. */
  readonly keys: readonly KeyConnections[];
}

/** Everything `headwater status` says. A part is undefined when its server could not be asked; then `problems` says so. */
export interface Status {
  readonly healthy: boolean;
  readonly problems: readonly string[];
  readonly log: LogStatus | undefined;
  readonly slot: SlotStatus | undefined;
  readonly processors: readonly ProcessorStatus[] | undefined;
  readonly connections: ConnectionsStatus | undefined;
  readonly deadLetters: number | undefined;
  /** By processor. */
  readonly deadLettersOf?: Readonly<Record<string, number>> | undefined;
  readonly alerts: AlertsStatus | undefined;
  /** Copies of tables that are under way, wait, are paused or have failed; empty when there is none. */
  readonly backfills: readonly BackfillStatus[] | undefined;
  /** What stands beside live states: of the servers that answered. */
  readonly rebuilds: readonly RebuildStatus[] | undefined;
}

/** From here on an operator should look. */
const limits = { silenceSeconds: 30, lagSeconds: 60, retainedBytes: 4 * 1024 ** 3 };

/** Slots behind which the server has, or is about to have, removed WAL that is still needed. */
const endangered: Readonly<Record<string, string>> = {
  lost: 'WAL it needs has been removed: `headwater resnapshot` makes a new epoch',
  unreserved: 'WAL it needs is about to be removed: let capture catch up, or raise max_slot_wal_keep_size',
};

export async function logStatus(log: EventLog): Promise<LogStatus> {
  const [bounds, last] = [await log.bounds(), await log.last()];
  return { ...bounds, lastAt: last && commitTime(last.data) };
}

export async function slotStatus(pool: PgPool, slot: string): Promise<SlotStatus | undefined> {
  const { rows } = await pool.query<{ active: boolean; retained: string | null; confirmed: string | null; wal_status: string | null }>(
    `SELECT active, wal_status, confirmed_flush_lsn::text AS confirmed,
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, restart_lsn)::text AS retained
     FROM pg_replication_slots WHERE slot_name = $1`,
    [slot],
  );
  const row = rows[0];
  return (
    row && {
      name: slot,
      active: row.active,
      retainedBytes: Number(row.retained ?? 0),
      confirmedFlushLsn: row.confirmed ?? undefined,
      walStatus: row.wal_status ?? undefined,
    }
  );
}

/** A processor's offset as it is stored. */
export type StoredOffset = Pick<ProcessorStatus, 'name' | 'seq' | 'epoch' | 'building'>;

/** Every processor that has stored an offset in Redis. Ask before the log's bounds: asked after them, an offset may be beyond. */
export async function storedOffsets(redis: RedisClient): Promise<StoredOffset[]> {
  const keys = new RedisKeys();
  const offsets = await Promise.all(
    (await redis.smembers(keys.processors)).map(async (name) => {
      const [seq, epoch] = await redis.hmget(keys.offset(name), 'seq', 'epoch');
      return epoch == null ? [] : [{ name, seq: Number(seq ?? 0), epoch }];
    }),
  );
  return [...offsets.flat(), ...(await aggregateOffsets(redis))].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** How far behind the log's end an offset is. */
export async function lagOf(offset: StoredOffset, log: EventLog, bounds: Bounds): Promise<ProcessorStatus> {
  const next = offset.seq < bounds.last ? await log.get(Math.max(offset.seq + 1, bounds.first)) : undefined;
  return { ...offset, lagEvents: Math.max(0, bounds.last - offset.seq), lagSeconds: ageSeconds(next && commitTime(next.data)) };
}

/** Adds connections up. */
export function connectionsStatus(records: readonly ConnectionRecord[]): ConnectionsStatus {
  const keys = new Map<string, KeyConnections>();
  for (const { keyId, subscriptions } of records) {
    const sum = keys.get(keyId) ?? { keyId, connections: 0, subscriptions: 0 };
    keys.set(keyId, { keyId, connections: sum.connections + 1, subscriptions: sum.subscriptions + subscriptions });
  }
  const sorted = [...keys.values()].sort((a, b) => b.connections - a.connections || (a.keyId < b.keyId ? -1 : 1));
  return { connections: records.length, subscriptions: records.reduce((sum, record) => sum + record.subscriptions, 0), keys: sorted };
}

/** What is wrong, each with what to do about it. Only of parts that are there: the others have a problem of their own. */
export function problemsOf(
  {
    log,
    slot,
    processors,
    deadLetters,
    deadLettersOf,
    alerts,
    backfills,
  }: Omit<Status, 'healthy' | 'problems' | 'connections' | 'rebuilds'>,
  tickMs: number,
): string[] {
  const problems: string[] = [];
  if (log) {
    const silence = ageSeconds(log.lastAt);
    // Without ticks there is a heartbeat each 10 s.
    const allowed = Math.max(limits.silenceSeconds, (tickMs * 5) / 1_000);
    if (silence > allowed) problems.push(`nothing has been logged for ${Math.round(silence)} s: is capture running?`);
  }
  if (slot) {
    if (!slot.active) problems.push(`slot ${slot.name} is not in use: capture is not running, and the server keeps WAL for it`);
    const danger = endangered[slot.walStatus ?? ''];
    if (danger) problems.push(`slot ${slot.name} is ${slot.walStatus}: ${danger}`);
    if (slot.retainedBytes > limits.retainedBytes)
      problems.push(`slot ${slot.name} makes the server keep ${Math.round(slot.retainedBytes / 1024 ** 2)} MB of WAL`);
  }
  for (const processor of processors ?? []) problems.push(...processorProblems(processor, log));
  if (deadLetters)
    problems.push(
      `${plural(deadLetters, 'dead letter')}: events that ${Object.keys(deadLettersOf ?? {}).join(', ') || 'a processor'} could not apply. ` +
        '`headwater dlq list` shows them, `dlq redrive` applies them, `dlq drop` gives them up',
    );
  problems.push(...alertsProblems(alerts), ...backfillsProblems(backfills, slot?.active === true));
  return problems;
}

function processorProblems({ name, seq, epoch, lagSeconds, lagEvents, building }: ProcessorStatus, log: LogStatus | undefined): string[] {
  if (!log) return [];
  if (epoch !== log.epoch) return [`${name} stands in epoch ${epoch}, the log in ${log.epoch}: rebuild it`];
  if (seq > log.last) return [`${name} is at ${seq}, beyond the end of the log (${log.last}): the log has gone back`];
  if (seq + 1 < log.first) return [`${name} is at ${seq}, before the oldest event that is held (${log.first}): rebuild it`];
  return !building && lagSeconds > limits.lagSeconds
    ? [`${name} is ${lagEvents} events and ${Math.round(lagSeconds)} s behind: is it running?`]
    : [];
}

function commitTime(data: Uint8Array): string | undefined {
  try {
    return (JSON.parse(Buffer.from(data).toString('utf8')) as { at?: string }).at;
  } catch {
    return undefined;
  }
}

function ageSeconds(at: string | undefined): number {
  const time = at === undefined ? NaN : Date.parse(at);
  return Number.isNaN(time) ? 0 : Math.max(0, (Date.now() - time) / 1_000);
}
