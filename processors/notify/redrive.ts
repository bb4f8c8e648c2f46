import type { PgPool } from '../../pipeline/clients/postgres.ts';

/** Which of the dead letters to send again. Without any condition: all. */
export interface DeadLetterFilter {
  readonly ids?: readonly string[];
  readonly userId?: string;
  readonly ruleId?: string;
  readonly channel?: 'webhook' | 'email' | 'push';
  readonly reason?: 'failed' | 'gone' | 'expired';
}

/**
 * Sends notifications that were given up once more, under the same ids, for another day; targets that were gone are tried again.
 * @returns how many there were
 */
export async function redrive(pool: PgPool, { ids, userId, ruleId, channel, reason }: DeadLetterFilter): Promise<number> {
  const { rowCount } = await pool.query(
    `WITH again AS (
       UPDATE headwater.notification_jobs
          SET state = 'queued', reason = NULL, first_at = now(), next_attempt_at = now()
        WHERE state = 'dead' AND ($1::text[] IS NULL OR job_id = ANY($1)) AND ($2::text IS NULL OR user_id = $2)
          AND ($3::uuid IS NULL OR rule_id = $3) AND ($4::text IS NULL OR channel = $4) AND ($5::text IS NULL OR reason = $5)
       RETURNING user_id, target_key),
     enabled AS (
       DELETE FROM headwater.notification_targets t USING again WHERE t.user_id = again.user_id AND t.target_key = again.target_key)
     SELECT FROM again`,
    [ids ?? null, userId ?? null, ruleId ?? null, channel ?? null, reason ?? null],
  );
  return rowCount ?? 0;
}
