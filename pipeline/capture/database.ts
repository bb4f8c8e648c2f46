import type { PgClient } from '../clients/postgres.ts';
import type { Config } from '../runtime/config.ts';
import { HeadwaterError, refused, usage } from '../runtime/errors.ts';
import { parseLsn, type Lsn } from '../source/position.ts';
import { publicationList } from './publications.ts';

/** Who the server is and how far it has come (`IDENTIFY_SYSTEM` of the replication protocol). */
export interface SystemIdentity {
  readonly system: string;
  readonly timeline: number;
  readonly flushLsn: Lsn;
}

export interface Slot {
  readonly confirmed: Lsn;
  readonly walStatus: string;
  readonly plugin: string;
  readonly database: string;
  readonly activePid: number | undefined;
}

/**
 * Checks what capture needs of the server, all faults at once.
 * @throws HeadwaterError `database_unfit` (usage), `database_is_standby` (refused)
 */
export async function requireFitDatabase(
  client: PgClient,
  { slot, publication }: Pick<Config, 'slot' | 'publication'>,
  streamedBefore: boolean,
): Promise<void> {
  const { rows } = await client.query<Record<string, string | number | boolean | null>>(
    `SELECT current_setting('server_version_num')::int AS version, current_setting('wal_level') AS wal_level, current_setting('server_encoding') AS encoding,
            current_setting('max_replication_slots')::int AS max_slots, (SELECT count(*)::int FROM pg_catalog.pg_replication_slots WHERE slot_name <> $1) AS slots,
            current_setting('max_wal_senders')::int AS max_senders, pg_catalog.pg_is_in_recovery() AS standby, current_user::text AS role, current_database()::text AS database,
            (SELECT rolreplication OR rolsuper OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = 'rds_replication' AND pg_catalog.pg_has_role(current_user, r.oid, 'USAGE')) FROM pg_catalog.pg_roles WHERE rolname = current_user) AS may_replicate,
            pg_catalog.has_database_privilege(current_database(), 'CREATE') OR (SELECT count(*) = 2 FROM pg_catalog.pg_publication WHERE pubname = ANY($2)) AS may_create`,
    [slot, publicationList(publication)],
  );
  const server = rows[0]!;
  if (server['standby']) {
    const message = 'DATABASE_URL leads to a standby; changes are captured on the primary';
    if (streamedBefore)
      throw new HeadwaterError('database_is_standby', `${message}: waiting for the failover to end`, { reaction: 'retry' });
    throw refused('database_is_standby', message, 'set DATABASE_URL to the primary');
  }
  const faults: string[] = [];
  if (Number(server['version']) < 140_000) faults.push('it is older than PostgreSQL 14: upgrade it');
  if (server['wal_level'] !== 'logical')
    faults.push(`wal_level is ${server['wal_level']}: ALTER SYSTEM SET wal_level = logical; then restart PostgreSQL`);
  if (server['encoding'] === 'SQL_ASCII')
    faults.push('its encoding is SQL_ASCII, so its text may not be valid UTF-8: use a database with encoding UTF8');
  if (Number(server['slots']) >= Number(server['max_slots']))
    faults.push(`all ${server['max_slots']} replication slots are in use: raise max_replication_slots and restart PostgreSQL`);
  if (Number(server['max_senders']) < 1) faults.push('max_wal_senders is 0: set it to 10 and restart PostgreSQL');
  if (!server['may_replicate']) faults.push(`role ${server['role']} may not replicate: ALTER ROLE "${server['role']}" REPLICATION`);
  if (!server['may_create'])
    faults.push(
      `role ${server['role']} may not create publications: GRANT CREATE ON DATABASE "${server['database']}" TO "${server['role']}"`,
    );
  if (faults.length > 0)
    throw usage(
      'database_unfit',
      `the database cannot be captured:\n${faults.map((fault) => `  - ${fault}`).join('\n')}`,
      'correct this, then start again',
    );
}

/** Asked on a replication connection. */
export async function identifySystem(replication: PgClient): Promise<SystemIdentity> {
  const { rows } = await replication.query<{ systemid: string; timeline: number | string; xlogpos: string }>('IDENTIFY_SYSTEM');
  const row = rows[0]!;
  return { system: row.systemid, timeline: Number(row.timeline), flushLsn: parseLsn(row.xlogpos) };
}

/** Where the server's history left a timeline; undefined when it does not say. Asked on a replication connection. */
export async function leftTimelineAt(replication: PgClient, current: number, left: number): Promise<Lsn | undefined> {
  if (current === left) return undefined;
  const { rows } = await replication.query<{ content: Buffer | string }>(`TIMELINE_HISTORY ${current}`).catch(() => ({ rows: [] }));
  for (const line of String(rows[0]?.content ?? '').split('\n')) {
    const [timeline, lsn] = line.trim().split(/\s+/);
    if (Number(timeline) === left && lsn) return parseLsn(lsn);
  }
  return undefined;
}

export async function findSlot(client: PgClient, name: string): Promise<Slot | undefined> {
  const { rows } = await client.query<{
    confirmed: string | null;
    wal_status: string | null;
    plugin: string;
    database: string;
    active_pid: number | null;
  }>(
    'SELECT confirmed_flush_lsn::text AS confirmed, wal_status, plugin, database::text AS database, active_pid FROM pg_catalog.pg_replication_slots WHERE slot_name = $1',
    [name],
  );
  const row = rows[0];
  // A slot whose creation was interrupted has no confirmed position yet; Postgres removes it by itself.
  if (!row?.confirmed) return undefined;
  return {
    confirmed: parseLsn(row.confirmed),
    walStatus: row.wal_status ?? 'unknown',
    plugin: row.plugin,
    database: row.database,
    activePid: row.active_pid ?? undefined,
  };
}
