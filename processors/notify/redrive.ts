import type { PgPool } from '../../pipeline/clients/postgres.ts';

/** Which of the dead letters. Without any condition: all. */
export interface DeadLetterFilter {
  readonly ids?: readonly string[];
  readonly userId?: string;
  readonly ruleId?: string;
  readonly channel?: 'webhook' | 'email' | 'push';
  readonly reason?: 'failed' | 'gone' | 'expired';
  /** Given their first attempt before, or since. */
  readonly before?: Date;
  readonly since?: Date;
}

/** A notification that was given up. */
export interface DeadNotification {
  readonly id: string;
  readonly userId: string;
  readonly alertId: string | null;
  readonly ruleId: string | null;
  readonly transition: 'firing' | 'resolved' | 'digest';
  readonly channel: string;
  /** An address, a device, or of a webhook its origin: the rest of it may be secret. */
  readonly target: string;
  readonly reason: string;
  readonly attempts: number;
  /** When the attempts began. */
  readonly at: Date;
  /** What the last attempt was answered. */
  readonly status: number | null;
  readonly answer: string | null;
}

const where = `state = 'dead' AND ($1::text[] IS NULL OR job_id = ANY($1)) AND ($2::text IS NULL OR user_id = $2)
  AND ($3::uuid IS NULL OR rule_id = $3) AND ($4::text IS NULL OR channel = $4) AND ($5::text IS NULL OR reason = $5)
  AND ($6::timestamptz IS NULL OR first_at < $6) AND ($7::timestamptz IS NULL OR first_at >= $7)`;

function valuesOf({ ids, userId, ruleId, channel, reason, before, since }: DeadLetterFilter): unknown[] {
  return [ids ?? null, userId ?? null, ruleId ?? null, channel ?? null, reason ?? null, before ?? null, since ?? null];
}

/** The oldest first. */
export async function listDead(pool: PgPool, filter: DeadLetterFilter, limit: number): Promise<readonly DeadNotification[]> {
  const { rows } = await pool.query<DeadNotification>(
    `SELECT j.job_id AS id, j.user_id AS "userId", j.alert_id AS "alertId", j.rule_id AS "ruleId", j.transition, j.channel, j.reason,
            coalesce(j.target ->> 'to', j.target ->> 'deviceId', j.endpoint) AS target,
            j.attempts, j.first_at AS at, j.last_status AS status,
            (SELECT l.answer FROM headwater.notification_logs l WHERE l.job_id = j.job_id ORDER BY l.attempt DESC LIMIT 1) AS answer
       FROM headwater.notification_jobs j WHERE ${where} ORDER BY j.first_at, j.job_id LIMIT $8`,
    [...valuesOf(filter), limit],
  );
  return rows;
}

export async function countDead(pool: PgPool, filter: DeadLetterFilter): Promise<number> {
  const { rows } = await pool.query<{ n: number }>(
    `SELECT count(*)::int AS n FROM headwater.notification_jobs WHERE ${where}`,
    valuesOf(filter),
  );
  return rows[0]!.n;
}

/**
 * Sends notifications that were given up once more, under the same ids, for another day; targets that were gone are tried again.
 * @returns how many there were
 */
export async function redrive(pool: PgPool, filter: DeadLetterFilter): Promise<number> {
  const { rowCount } = await pool.query(
    `WITH again AS (
       UPDATE headwater.notification_jobs
          SET state = 'queued', reason = NULL, first_at = now(), next_attempt_at = now()
        WHERE ${where}
       RETURNING user_id, target_key),
     enabled AS (
       DELETE FROM headwater.notification_targets t USING again WHERE t.user_id = again.user_id AND t.target_key = again.target_key)
     SELECT FROM again`,
    valuesOf(filter),
  );
  return rowCount ?? 0;
}

/**
 * Gives notifications up for good. Why is in the log of their attempts, as one more.
 * @returns how many there were
 */
export async function dropDead(pool: PgPool, filter: DeadLetterFilter, why: string, by: string): Promise<number> {
  const { rowCount } = await pool.query(
    `WITH dropped AS (
       UPDATE headwater.notification_jobs SET state = 'suppressed', reason = 'dropped', attempts = attempts + 1
        WHERE ${where}
       RETURNING job_id, alert_id, rule_id, user_id, transition, channel, endpoint, attempts),
     logged AS (
       INSERT INTO headwater.notification_logs (job_id, alert_id, rule_id, user_id, transition, channel, target, attempt, status, answer)
       SELECT job_id, alert_id, rule_id, user_id, transition, channel, endpoint, attempts, 'dropped', $8 FROM dropped)
     SELECT FROM dropped`,
    [...valuesOf(filter), `${by}: ${why}`.slice(0, 1_000)],
  );
  return rowCount ?? 0;
}
