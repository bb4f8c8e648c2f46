import type { PgPool } from '../../pipeline/clients/postgres.ts';
import type { Attempt, Notice } from './channel.ts';
import type { ChannelName, NotifyOptions } from './options.ts';
import { firingFirst } from './plan.ts';
import { begin } from './plan-store.ts';
import type { StoredChannel } from './targets.ts';

/** A job that this process alone works on, until its lease lapses. */
export interface ClaimedJob {
  readonly jobId: string;
  readonly userId: string;
  readonly channel: ChannelName;
  readonly targetKey: string;
  readonly address: { readonly url?: string; readonly to?: string; readonly deviceId?: string };
  readonly endpoint: string;
  readonly notice: Notice;
  /** 1 for the first. */
  readonly attempt: number;
  /** The one attempt that may find out whether a failing endpoint is back. */
  readonly probe: boolean;
  /** The channels, as they are now, of the rules that it tells of; empty when they are gone. */
  readonly channels: readonly (readonly StoredChannel[])[];
  readonly device: { readonly endpoint: string; readonly p256dh: string; readonly auth: string } | null;
}

/** What is to be kept of an attempt. */
export interface Verdict {
  readonly state: 'delivered' | 'queued' | 'dead' | 'suppressed';
  readonly reason: string | null;
  /** Not again before this time has passed, when `queued`. */
  readonly delayMs: number;
  readonly attempt: Attempt;
  readonly latencyMs: number;
  /** What the attempt says of the endpoint. */
  readonly endpoint: 'well' | 'failing' | 'unknown';
}

interface ClaimedRow {
  job_id: string;
  user_id: string;
  channel: ChannelName;
  target_key: string;
  target: ClaimedJob['address'];
  endpoint: string;
  notice: Notice;
  attempts: number;
  probe: boolean;
  channels: StoredChannel[][] | null;
  device: ClaimedJob['device'];
}

/**
 * Takes a job to work on: compare-and-set on its state, so of two that want it one gets it. While the endpoint's breaker is open
 * nobody does; once its time is over, one at a time.
 */
const claimSql = (which: string): string => `
WITH door AS (SELECT open_until FROM headwater.notification_endpoints WHERE endpoint = $1 AND open_until IS NOT NULL),
next AS (
  SELECT job_id FROM headwater.notification_jobs
   WHERE endpoint = $1 AND state = 'queued' AND next_attempt_at <= now() AND NOT EXISTS (SELECT FROM door WHERE open_until > now()) ${which}
   LIMIT 1 FOR UPDATE SKIP LOCKED),
probe AS (
  UPDATE headwater.notification_endpoints SET open_until = now() + $2 * interval '1 millisecond', updated_at = now()
   WHERE endpoint = $1 AND open_until <= now() AND EXISTS (SELECT FROM next) RETURNING endpoint)
UPDATE headwater.notification_jobs j
   SET state = 'delivering', attempts = j.attempts + 1, leased_until = now() + $2 * interval '1 millisecond'
  FROM next
 WHERE j.job_id = next.job_id AND (NOT EXISTS (SELECT FROM door) OR EXISTS (SELECT FROM probe))
RETURNING j.job_id, j.user_id, j.channel, j.target_key, j.target, j.endpoint, j.notice, j.attempts, EXISTS (SELECT FROM probe) AS probe,
  CASE WHEN j.rule_id IS NULL
    THEN (SELECT json_agg(r.channels ORDER BY r.id)
            FROM headwater.alert_rules r
           WHERE r.id IN (SELECT m.rule_id FROM headwater.notification_jobs m JOIN headwater.alert_rules o ON o.id = m.rule_id
                           WHERE m.digest_id = j.job_id
                             AND o.channels @> jsonb_build_array(jsonb_build_object('type', j.channel) || CASE j.channel WHEN 'push' THEN '{}' ELSE j.target END)
                           GROUP BY m.rule_id LIMIT 20))
    ELSE (SELECT json_agg(r.channels) FROM headwater.alert_rules r WHERE r.id = j.rule_id) END AS channels,
  (SELECT json_build_object('endpoint', d.endpoint, 'p256dh', d.p256dh, 'auth', d.auth)
     FROM headwater.user_devices d WHERE j.channel = 'push' AND d.id = (j.target ->> 'deviceId')::uuid) AS device`;

const claimNextSql = claimSql('ORDER BY next_attempt_at, job_id');
const claimOneSql = claimSql('AND job_id = $3');

/**
 * Every attempt is logged, also one whose job was meanwhile given to somebody else. When an endpoint that was left alone is back, what
 * waits for it need not wait any longer, unless the endpoint itself has said until when.
 */
const finishSql = `
WITH job AS (
  UPDATE headwater.notification_jobs
     SET state = CASE WHEN $3 = 'queued' AND first_at + $6 * interval '1 millisecond' <= now() THEN 'dead' ELSE $3 END,
         reason = CASE WHEN $3 = 'queued' AND first_at + $6 * interval '1 millisecond' <= now() THEN 'expired' ELSE $4 END,
         next_attempt_at = CASE WHEN $3 = 'queued' THEN least(now() + $5 * interval '1 millisecond', first_at + $6 * interval '1 millisecond')
                                ELSE next_attempt_at END,
         delivered_at = CASE WHEN $3 = 'delivered' THEN now() END,
         leased_until = NULL, last_status = $7
   WHERE job_id = $1 AND attempts = $2 AND state IN ('delivering', 'queued')
  RETURNING state),
logged AS (
  INSERT INTO headwater.notification_logs
    (job_id, alert_id, rule_id, user_id, transition, channel, target, attempt, status, status_code, latency_ms, answer)
  SELECT job_id, alert_id, rule_id, user_id, transition, channel, $8, $2, $9, $7, $10, $11 FROM headwater.notification_jobs WHERE job_id = $1
  ON CONFLICT (job_id, attempt) DO UPDATE
    SET status = excluded.status, status_code = excluded.status_code, latency_ms = excluded.latency_ms, answer = excluded.answer),
well AS (
  UPDATE headwater.notification_endpoints SET failures = 0, open_until = NULL, failing_since = NULL, updated_at = now()
   WHERE endpoint = $12 AND $13 AND failures > 0),
back AS (
  UPDATE headwater.notification_jobs SET next_attempt_at = now()
   WHERE endpoint = $12 AND $13 AND state = 'queued' AND next_attempt_at > now() AND attempts > 0 AND reason IS NULL
     AND EXISTS (SELECT FROM headwater.notification_endpoints WHERE endpoint = $12 AND open_until IS NOT NULL))
SELECT state FROM job`;

/** Failures of attempts that were under way when the breaker opened say nothing new. */
const failingSql = `
INSERT INTO headwater.notification_endpoints AS e (endpoint, failures, failing_since, open_until)
VALUES ($1, 1, now(), CASE WHEN $2 <= 1 THEN now() + $3 * interval '1 millisecond' END)
ON CONFLICT (endpoint) DO UPDATE
  SET failures = e.failures + 1, failing_since = coalesce(e.failing_since, now()), updated_at = now(),
      open_until = CASE WHEN e.failures + 1 >= $2
        THEN now() + least($4, $3 * 2 ^ least(e.failures + 1 - $2, 20)) * (0.75 + random() / 2) * interval '1 millisecond' END
WHERE e.open_until IS NULL OR $5`;

/** The probe did not get as far as the endpoint: the next one may try. */
const unprobedSql = 'UPDATE headwater.notification_endpoints SET open_until = now() WHERE endpoint = $1 AND open_until IS NOT NULL';

const reapSql = `
WITH lapsed AS (
  SELECT job_id FROM headwater.notification_jobs WHERE state = 'delivering' AND leased_until < now() LIMIT 500 FOR UPDATE SKIP LOCKED),
free AS (
  UPDATE headwater.notification_jobs j SET state = 'queued', leased_until = NULL, next_attempt_at = now()
    FROM lapsed WHERE j.job_id = lapsed.job_id RETURNING j.*)
INSERT INTO headwater.notification_logs (job_id, alert_id, rule_id, user_id, transition, channel, target, attempt, status, answer)
SELECT job_id, alert_id, rule_id, user_id, transition, channel, endpoint, attempts, 'unknown', 'the process ended before the outcome was known'
  FROM free
ON CONFLICT (job_id, attempt) DO NOTHING`;

/** What had to wait until its firing was told of, or given up; from then on there is a day for it, too. */
const releaseSql = `
UPDATE headwater.notification_jobs r SET reason = NULL, first_at = now(), next_attempt_at = now()
 WHERE r.state = 'queued' AND r.reason = '${firingFirst}'
   AND NOT EXISTS (SELECT FROM headwater.notification_jobs f
                    WHERE f.alert_id = r.alert_id AND f.transition = 'firing' AND f.channel = r.channel AND f.target_key = r.target_key
                      AND f.state IN ('queued', 'delivering'))`;

/** Each endpoint once, whatever waits for it: from one to the next by the index. */
const dueSql = `
WITH RECURSIVE known AS (
  (SELECT endpoint, next_attempt_at FROM headwater.notification_jobs WHERE state = 'queued' ORDER BY endpoint, next_attempt_at, job_id LIMIT 1)
  UNION ALL
  SELECT j.endpoint, j.next_attempt_at FROM known, LATERAL (
    SELECT endpoint, next_attempt_at FROM headwater.notification_jobs
     WHERE state = 'queued' AND endpoint > known.endpoint ORDER BY endpoint, next_attempt_at, job_id LIMIT 1) j)
SELECT k.endpoint FROM known k LEFT JOIN headwater.notification_endpoints e USING (endpoint)
 WHERE k.next_attempt_at <= now() AND (e.open_until IS NULL OR e.open_until <= now())`;

/** One that was never tried, though nothing said that its endpoint fails, is not given up: it was we who were away. */
const expireSql = `
UPDATE headwater.notification_jobs j SET state = 'dead', reason = 'expired'
 WHERE state = 'queued' AND first_at + $1 * interval '1 millisecond' <= now()
   AND (attempts > 0 OR EXISTS (SELECT FROM headwater.notification_endpoints e WHERE e.endpoint = j.endpoint AND e.open_until IS NOT NULL))
RETURNING channel`;

/** Depth of the queues. */
export interface QueueDepth {
  readonly channel: ChannelName;
  readonly queued: number;
  readonly dead: number;
  /** Age in seconds of the oldest that is to be delivered. */
  readonly oldestSeconds: number;
}

/** The jobs in PostgreSQL, which alone says what is to be delivered. */
export class JobStore {
  readonly #pool: PgPool;
  readonly #options: NotifyOptions;

  constructor(pool: PgPool, options: NotifyOptions) {
    this.#pool = pool;
    this.#options = options;
  }

  /** The next due job of an endpoint, or this one if it is due; undefined when there is none to be had. */
  async claim(endpoint: string, jobId?: string): Promise<ClaimedJob | undefined> {
    const values = [endpoint, this.#options.leaseMs, ...(jobId === undefined ? [] : [jobId])];
    const name = jobId === undefined ? 'claim-next' : 'claim-one';
    const { rows } = await this.#pool.query<ClaimedRow>({ name, text: jobId === undefined ? claimNextSql : claimOneSql, values });
    return rows[0] && claimed(rows[0]);
  }

  /** Keeps how an attempt ended; answers what became of the job, undefined when somebody else has it by now. */
  async finish(job: ClaimedJob, verdict: Verdict, shownTarget: string): Promise<string | undefined> {
    const { attempt } = verdict;
    const client = await this.#pool.connect();
    let broken: Error | undefined;
    try {
      await client.query(begin);
      const { rows } = await client.query<{ state: string }>({
        name: 'finish',
        text: finishSql,
        values: [
          ...[job.jobId, job.attempt, verdict.state, verdict.reason, verdict.delayMs, this.#options.maxAgeMs, attempt.status ?? null],
          ...[
            shownTarget,
            attempt.outcome,
            Math.round(verdict.latencyMs),
            attempt.answer ?? null,
            job.endpoint,
            verdict.endpoint === 'well',
          ],
        ],
      });
      if (verdict.endpoint === 'failing') {
        const { breakerFailures, breakerBaseMs, breakerCapMs } = this.#options;
        await client.query(failingSql, [job.endpoint, breakerFailures, breakerBaseMs, breakerCapMs, job.probe]);
      }
      if (verdict.endpoint === 'unknown' && job.probe) await client.query(unprobedSql, [job.endpoint]);
      if (attempt.outcome === 'gone') for (const [text, values] of forgetTarget(job)) await client.query(text, values);
      await client.query('COMMIT');
      return rows[0]?.state;
    } catch (error) {
      broken = error instanceof Error ? error : new Error(String(error));
      throw error;
    } finally {
      client.release(broken);
    }
  }

  /** Frees jobs of processes that have died while they worked on them. */
  async reap(): Promise<number> {
    return (await this.#pool.query(reapSql)).rowCount ?? 0;
  }

  /** Lets go what waited for the notice of its firing. */
  async release(): Promise<void> {
    await this.#pool.query(releaseSql);
  }

  /** Endpoints with something due that may be tried. */
  async due(): Promise<readonly string[]> {
    const { rows } = await this.#pool.query<{ endpoint: string }>(dueSql);
    return rows.map(({ endpoint }) => endpoint);
  }

  /** Gives up what has been tried for too long. Answers the channels of each. */
  async expire(): Promise<readonly ChannelName[]> {
    const { rows } = await this.#pool.query<{ channel: ChannelName }>(expireSql, [this.#options.maxAgeMs]);
    return rows.map(({ channel }) => channel);
  }

  async depths(): Promise<readonly QueueDepth[]> {
    const { rows } = await this.#pool.query<QueueDepth>(
      `SELECT channel, count(*) FILTER (WHERE state <> 'dead')::int AS queued, count(*) FILTER (WHERE state = 'dead')::int AS dead,
              coalesce(extract(epoch FROM now() - min(first_at) FILTER (WHERE state <> 'dead')), 0)::float8 AS "oldestSeconds"
         FROM headwater.notification_jobs WHERE state = 'queued' OR state = 'delivering' OR state = 'dead' GROUP BY channel`,
    );
    return rows;
  }

  /** Endpoints that are left alone now. */
  async openBreakers(): Promise<number> {
    const { rows } = await this.#pool.query<{ n: number }>(
      'SELECT count(*)::int AS n FROM headwater.notification_endpoints WHERE open_until IS NOT NULL',
    );
    return rows[0]!.n;
  }
}

function claimed(row: ClaimedRow): ClaimedJob {
  return {
    jobId: row.job_id,
    userId: row.user_id,
    channel: row.channel,
    targetKey: row.target_key,
    address: row.target,
    endpoint: row.endpoint,
    notice: row.notice,
    attempt: row.attempts,
    probe: row.probe,
    channels: row.channels ?? [],
    device: row.device,
  };
}

/** No other job of the user goes to a target that is gone; a device that is gone is no device. */
function forgetTarget(job: ClaimedJob): readonly (readonly [string, unknown[]])[] {
  const forget: readonly [string, unknown[]] =
    job.channel === 'push'
      ? ['DELETE FROM headwater.user_devices WHERE id = $1', [job.address.deviceId]]
      : [
          `INSERT INTO headwater.notification_targets (user_id, target_key) VALUES ($1, $2)
           ON CONFLICT (user_id, target_key) DO UPDATE SET disabled_at = now()`,
          [job.userId, job.targetKey],
        ];
  const others = `UPDATE headwater.notification_jobs SET state = 'dead', reason = 'gone'
                   WHERE endpoint = $1 AND state = 'queued' AND user_id = $2 AND target_key = $3`;
  return [forget, [others, [job.endpoint, job.userId, job.targetKey]]];
}
