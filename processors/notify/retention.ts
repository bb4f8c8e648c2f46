import type { PgPool } from '../../pipeline/clients/postgres.ts';
import { pause } from '../../pipeline/runtime/backoff.ts';

/** Small, so that no statement holds up the others, with a rest after each. */
const batchRows = 1_000;
const restMs = 50;

/**
 * The next of the jobs that are finished and old. Some stay: what went out for an alert that still fires, since the end will be told
 * where the beginning was; and what a digest tells of, until the digest has gone.
 */
const jobsSql = `
WITH old AS (
  SELECT job_id, planned_at FROM headwater.notification_jobs
   WHERE state IN ('delivered', 'dead', 'suppressed') AND planned_at < now() - $1 * interval '1 millisecond'
     AND (planned_at, job_id) > ($2::timestamptz, $3) ORDER BY planned_at, job_id LIMIT ${batchRows}),
gone AS (
  DELETE FROM headwater.notification_jobs j USING old
   WHERE j.job_id = old.job_id AND j.state IN ('delivered', 'dead', 'suppressed')
     AND NOT EXISTS (SELECT FROM headwater.alert_history h WHERE h.id = j.alert_id AND h.state = 'firing')
     AND NOT EXISTS (SELECT FROM headwater.alert_outbox o WHERE o.alert_id = j.alert_id)
     AND NOT EXISTS (SELECT FROM headwater.notification_jobs d WHERE d.job_id = j.digest_id))
SELECT planned_at::text AS at, job_id AS id FROM old ORDER BY planned_at DESC, job_id DESC LIMIT 1`;

/** Attempts are numbered in the order of time. */
const logsSql = `
DELETE FROM headwater.notification_logs WHERE created_at < now() - $1 * interval '1 millisecond'
   AND id IN (SELECT id FROM headwater.notification_logs ORDER BY id LIMIT ${batchRows})`;

/** An endpoint that something waits for is asked, and its row written, each minute. */
const endpointsSql = `DELETE FROM headwater.notification_endpoints WHERE updated_at < now() - $1 * interval '1 millisecond'`;

/** Deletes, in small batches, what became of notifications longer than `keepMs` ago. Ends early when the signal fires. */
export async function prune(pool: PgPool, keepMs: number, signal: AbortSignal): Promise<void> {
  let last = { at: '-infinity', id: '' };
  while (!signal.aborted) {
    const { rows } = await pool.query<typeof last>(jobsSql, [keepMs, last.at, last.id]);
    if (!rows[0]) break;
    last = rows[0];
    await pause(restMs, signal);
  }
  while (!signal.aborted && (await pool.query(logsSql, [keepMs])).rowCount! > 0) await pause(restMs, signal);
  await pool.query(endpointsSql, [keepMs]);
}
