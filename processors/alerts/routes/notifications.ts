import type { FastifyInstance } from 'fastify';
import { notFound } from '../../../pipeline/runtime/request-fault.ts';
import { isUuid, readQuery } from '../../../pipeline/runtime/request-query.ts';
import type { OwnedRows } from './owned-rows.ts';
import { isoTime } from './rule-resource.ts';

interface JobRow {
  readonly job_id: string;
  readonly transition: string;
  readonly channel: string;
  readonly target: object;
  readonly state: string;
  readonly reason: string | null;
  readonly digest_id: string | null;
  readonly attempts: number;
  readonly at: string;
  readonly planned_at: string;
  readonly next_attempt_at: string;
  readonly delivered_at: string | null;
  readonly last_status: number | null;
}

interface LogRow {
  readonly job_id: string;
  readonly attempt: number;
  readonly status: string;
  readonly status_code: number | null;
  readonly latency_ms: number | null;
  readonly answer: string | null;
  readonly at: string;
}

const jobColumns = `job_id, transition, channel, target, state, reason, digest_id, attempts, ${isoTime('at')} AS at,
  ${isoTime('planned_at')} AS planned_at, ${isoTime('next_attempt_at')} AS next_attempt_at, ${isoTime('delivered_at')} AS delivered_at, last_status`;
const logColumns = `job_id, attempt, status, status_code, latency_ms, answer, ${isoTime('created_at')} AS at`;
/** A rule has few channels, and a day of retries few attempts; devices may be many. */
const [mostJobs, mostAttempts] = [500, 2_000];

/** `/v2/alerts/<id>/notifications`: to whom an alert was, or was not, told, and each attempt to do so. */
export function notificationRoutes(app: FastifyInstance, rows: OwnedRows): void {
  app.get<{ Params: { id: string } }>('/v2/alerts/:id/notifications', async (request, reply) => {
    readQuery(request);
    const { id } = request.params;
    const { owner } = request.principal;
    if (!isUuid(id)) throw notFound('alert');
    const items = await rows.as(owner, async (statements) => {
      const alerts = await statements.query('SELECT id FROM headwater.alert_history WHERE id = $1 AND user_id = $2', [id, owner]);
      if (alerts.length === 0) throw notFound('alert');
      const jobs = await statements.query<JobRow>(
        `SELECT ${jobColumns} FROM headwater.notification_jobs WHERE alert_id = $1 AND user_id = $2 ORDER BY planned_at, job_id LIMIT ${mostJobs}`,
        [id, owner],
      );
      const ids = jobs.flatMap(({ job_id, digest_id }) => [job_id, ...(digest_id === null ? [] : [digest_id])]);
      const logs = await statements.query<LogRow>(
        `SELECT ${logColumns} FROM headwater.notification_logs WHERE job_id = ANY ($1) AND user_id = $2 ORDER BY job_id, attempt LIMIT ${mostAttempts}`,
        [ids, owner],
      );
      return jobs.map((job) => notificationResource(job, logs));
    });
    return reply.send({ items });
  });
}

/** `log`: the attempts at this notification, or at the digest that tells of it. */
function notificationResource(job: JobRow, logs: readonly LogRow[]): object {
  const own = logs.filter(({ job_id }) => job_id === (job.digest_id ?? job.job_id));
  return {
    id: job.job_id,
    transition: job.transition,
    channel: job.channel,
    target: job.target,
    state: job.state,
    ...(job.reason !== null && { reason: job.reason }),
    ...(job.digest_id !== null && { digestId: job.digest_id }),
    at: job.at,
    plannedAt: job.planned_at,
    ...(job.state === 'queued' && { nextAttemptAt: job.next_attempt_at }),
    ...(job.delivered_at !== null && { deliveredAt: job.delivered_at }),
    attempts: job.attempts,
    ...(job.last_status !== null && { lastStatus: job.last_status }),
    log: own.map((entry) => ({
      attempt: entry.attempt,
      status: entry.status,
      ...(entry.status_code !== null && { statusCode: entry.status_code }),
      ...(entry.latency_ms !== null && { latencyMs: entry.latency_ms }),
      ...(entry.answer !== null && { answer: entry.answer }),
      at: entry.at,
    })),
  };
}
