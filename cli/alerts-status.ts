import type { PgPool } from '../pipeline/clients/postgres.ts';
import type { StoredOffset } from './status.ts';

/** Alerts and what becomes of them, as the database has it. */
export interface AlertsStatus {
  /** Rules that are enabled. */
  readonly rules: number;
  readonly pending: number;
  readonly firing: number;
  /** Transitions whose notifications are not planned yet. */
  readonly outbox: number;
  /** Notifications that are planned and not delivered, nor given up. */
  readonly undelivered: number;
  /** Age of the oldest transition in the outbox; 0 when there is none. */
  readonly outboxSeconds: number;
  /** Age of the oldest notification that is planned and not delivered; 0 when there is none. */
  readonly undeliveredSeconds: number;
}

/** From here on an operator should look: planning takes a moment. */
const outboxLimitSeconds = 30;

/** Is there such a table of Headwater's? */
export async function tableExists(pool: PgPool, table: string): Promise<boolean> {
  const { rows } = await pool.query<{ there: boolean }>('SELECT to_regclass($1) IS NOT NULL AS there', [`headwater.${table}`]);
  return rows[0]!.there;
}

/** Undefined while the database has no tables for alerts. */
export async function alertsStatus(pool: PgPool): Promise<AlertsStatus | undefined> {
  if (!(await tableExists(pool, 'alert_outbox'))) return undefined;
  const jobs = (await tableExists(pool, 'notification_jobs'))
    ? `SELECT planned_at AS at FROM headwater.notification_jobs WHERE state IN ('queued', 'delivering', 'collecting')`
    : 'SELECT NULL::timestamptz AS at WHERE false';
  const { rows } = await pool.query<AlertsStatus>(
    `SELECT (SELECT count(*) FROM headwater.alert_rules WHERE enabled)::float8 AS rules,
       (SELECT count(*) FROM headwater.alert_state_episodes WHERE processor = namespace AND phase = 'pending')::float8 AS pending,
       (SELECT count(*) FROM headwater.alert_state_episodes WHERE processor = namespace AND phase = 'firing')::float8 AS firing,
       outbox.count AS outbox, outbox.seconds AS "outboxSeconds", jobs.count AS undelivered, jobs.seconds AS "undeliveredSeconds"
     FROM (SELECT count(*)::float8 AS count, ${age('created_at')} AS seconds FROM headwater.alert_outbox) outbox,
       (SELECT count(*)::float8 AS count, ${age('at')} AS seconds FROM (${jobs}) AS undelivered) jobs,
       (SELECT coalesce(max(namespace), 'alerts') AS namespace FROM headwater.processor_offsets WHERE processor = 'alerts') live`,
  );
  return rows[0];
}

function age(column: string): string {
  return `coalesce(greatest(0, extract(epoch FROM now() - min(${column}))), 0)::float8`;
}

/** Every processor that has stored an offset in the database. Ask before the log's bounds: asked after them, an offset may be beyond. */
export async function databaseOffsets(pool: PgPool): Promise<StoredOffset[]> {
  if (!(await tableExists(pool, 'processor_offsets'))) return [];
  const { rows } = await pool.query<StoredOffset>(
    `SELECT processor AS name, seq::float8 AS seq, epoch FROM headwater.processor_offsets
     WHERE seq IS NOT NULL AND processor NOT LIKE '%~rebuild' ORDER BY processor`,
  );
  return rows;
}

/** What is wrong with alerts. Undelivered notifications are the receivers' affair, and are only shown. */
export function alertsProblems(alerts: AlertsStatus | undefined): string[] {
  if (!alerts || alerts.outboxSeconds <= outboxLimitSeconds) return [];
  return [`${alerts.outbox} alerts wait for their notifications, the oldest for ${Math.round(alerts.outboxSeconds)} s: is notify running?`];
}
