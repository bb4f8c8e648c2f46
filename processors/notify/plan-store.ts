import { randomUUID } from 'node:crypto';
import type { Queryable } from '../../pipeline/clients/postgres.ts';
import type { OutboxRow } from './notices.ts';
import type { ChannelName } from './options.ts';
import { entityKey, firingFirst, pairKey, type Known, type KnownRule, type PlannedJob, type Silence, type Way } from './plan.ts';
import type { Device, StoredChannel } from './targets.ts';

/** A moment of this database's clock, and the minute it is in, for digests. */
export interface Now {
  readonly begins: string;
  readonly ends: string;
  /** Names this turn, and no other one ever. */
  readonly turn: string;
}

const micros = (expression: string): string => `(extract(epoch FROM ${expression}) * 1000000)::bigint::float8`;

/** Begins a transaction that the server gives up, with its locks, when nothing is heard of us: a host can vanish in the middle of one. */
export const begin = `BEGIN; SET LOCAL idle_in_transaction_session_timeout = '10s'`;

/** Begins a transaction and takes the planner's turn until its end; undefined while another planner has it. */
export async function takeTurn(client: Queryable, minuteMs: number): Promise<Now | undefined> {
  await client.query(begin);
  const { rows } = await client.query<{ mine: boolean; ms: number }>(
    `SELECT pg_try_advisory_xact_lock(7453010355071242) AS mine, floor(extract(epoch FROM clock_timestamp()) * 1000)::float8 AS ms`,
  );
  if (!rows[0]?.mine) return undefined;
  const begins = Math.floor(rows[0].ms / minuteMs) * minuteMs;
  return { begins: new Date(begins).toISOString(), ends: new Date(begins + minuteMs).toISOString(), turn: randomUUID() };
}

/**
 * The next transitions, in the order of the log. Times stay text: they are µs.
 * @param maxBytes of all their events; one row comes in any case
 */
export async function nextRows(client: Queryable, limit: number, maxBytes: number): Promise<{ rows: readonly OutboxRow[]; more: boolean }> {
  const { rows } = await client.query<OutboxRow & { seen: number }>(
    `SELECT id::text, alert_id, transition, rule_id, revision, user_id, alert, rule, event, seen
       FROM (SELECT next.*, count(*) OVER ()::int AS seen, row_number() OVER ordered AS n, sum(octet_length(event::text)) OVER ordered AS bytes
               FROM (SELECT * FROM headwater.alert_outbox ORDER BY id LIMIT $1) next WINDOW ordered AS (ORDER BY id)) o
      WHERE n = 1 OR bytes <= $2 ORDER BY o.id`,
    [limit, maxBytes],
  );
  const seen = rows[0]?.seen ?? 0;
  return { rows, more: seen === limit || rows.length < seen };
}

/** All that the decisions about these rows are made of. */
export async function loadKnown(
  client: Queryable,
  rows: readonly OutboxRow[],
  configured: ReadonlySet<ChannelName>,
  minute: Now,
): Promise<Known> {
  const users = [...new Set(rows.map(({ user_id }) => user_id))];
  const rules = await loadRules(client, rows);
  const push = [...rules.values()].some(({ channels }) => channels.some(({ type }) => type === 'push'));
  return {
    rules,
    devices: push ? await loadDevices(client, users) : new Map(),
    silences: await loadSilences(client, users),
    disabled: await loadDisabled(client, users),
    configured,
    notified: await loadNotified(client, rows, rules),
    fired: await loadFired(client, rows),
    digests: await loadDigests(client, users),
    ...(await loadCounts(client, users, minute)),
  };
}

async function loadRules(client: Queryable, rows: readonly OutboxRow[]): Promise<Map<string, KnownRule>> {
  const { rows: found } = await client.query<{ id: string; channels: StoredChannel[]; cooldown: number; updated: number }>(
    `SELECT id, channels, cooldown_seconds AS cooldown, ${micros('updated_at')} AS updated FROM headwater.alert_rules WHERE id = ANY($1)`,
    [[...new Set(rows.map(({ rule_id }) => rule_id))]],
  );
  return new Map(
    found.map(({ id, channels, cooldown, updated }) => [id, { channels, cooldownMicros: cooldown * 1_000_000, updatedAt: updated }]),
  );
}

async function loadDevices(client: Queryable, users: readonly string[]): Promise<Map<string, readonly Device[]>> {
  const { rows } = await client.query<Device & { user_id: string }>(
    `SELECT id, user_id, endpoint FROM headwater.user_devices WHERE user_id = ANY($1) ORDER BY created_at, id`,
    [users],
  );
  return grouped(rows, ({ user_id }) => user_id);
}

async function loadSilences(client: Queryable, users: readonly string[]): Promise<Map<string, readonly Silence[]>> {
  const { rows } = await client.query<Silence & { user_id: string }>(
    `SELECT user_id, rule_id AS "ruleId", match, ${micros('starts_at')} AS "from", ${micros('ends_at')} AS until
       FROM headwater.silences WHERE user_id = ANY($1)`,
    [users],
  );
  return grouped(rows, ({ user_id }) => user_id);
}

async function loadDisabled(client: Queryable, users: readonly string[]): Promise<Map<string, number>> {
  const { rows } = await client.query<{ user_id: string; target_key: string; at: number }>(
    `SELECT user_id, target_key, ${micros('disabled_at')} AS at FROM headwater.notification_targets WHERE user_id = ANY($1)`,
    [users],
  );
  return new Map(rows.map(({ user_id, target_key, at }) => [pairKey(user_id, target_key), at]));
}

/** The last firing of each entity that was told of, where a rule has a cooldown. */
async function loadNotified(
  client: Queryable,
  rows: readonly OutboxRow[],
  rules: ReadonlyMap<string, KnownRule>,
): Promise<Map<string, number>> {
  const wanted = rows.filter(({ transition, rule_id }) => transition === 'firing' && (rules.get(rule_id)?.cooldownMicros ?? 0) > 0);
  if (wanted.length === 0) return new Map();
  const { rows: found } = await client.query<{ rule_id: string; entity_key: string; at: number }>(
    `SELECT w.rule_id, w.entity_key, ${micros('last.at')} AS at
       FROM (SELECT DISTINCT rule_id, entity_key FROM unnest($1::uuid[], $2::text[]) AS u (rule_id, entity_key)) w
      CROSS JOIN LATERAL (SELECT max(j.at) AS at FROM headwater.notification_jobs j
                           WHERE j.rule_id = w.rule_id AND j.entity_key = w.entity_key AND j.transition = 'firing'
                             AND (j.state <> 'suppressed' OR j.digest_id IS NOT NULL)) last
      WHERE last.at IS NOT NULL`,
    [wanted.map(({ rule_id }) => rule_id), wanted.map(({ alert }) => entityKey(alert.entity))],
  );
  return new Map(found.map(({ rule_id, entity_key, at }) => [pairKey(rule_id, entity_key), at]));
}

/** Where the firings of what is over now went. */
async function loadFired(client: Queryable, rows: readonly OutboxRow[]): Promise<Known['fired']> {
  const alerts = rows.filter(({ transition }) => transition === 'resolved').map(({ alert_id }) => alert_id);
  const fired: Known['fired'] = new Map();
  if (alerts.length === 0) return fired;
  const { rows: found } = await client.query<{ alert_id: string; target_key: string; way: Way }>(
    `SELECT alert_id, target_key,
            CASE WHEN digest_id IS NOT NULL THEN 'digest' WHEN state IN ('queued', 'delivering') THEN 'underway' ELSE 'single' END AS way
       FROM headwater.notification_jobs
      WHERE alert_id = ANY($1) AND transition = 'firing' AND (state <> 'suppressed' OR digest_id IS NOT NULL)`,
    [alerts],
  );
  for (const { alert_id, target_key, way } of found) {
    const ways = fired.get(alert_id) ?? new Map<string, Way>();
    fired.set(alert_id, ways.set(target_key, way));
  }
  return fired;
}

/** Digests that more can be added to. Planners take turns, and close them in their turn. */
async function loadDigests(client: Queryable, users: readonly string[]): Promise<Map<string, string>> {
  const { rows } = await client.query<{ user_id: string; target_key: string; job_id: string }>(
    `SELECT user_id, target_key, job_id FROM headwater.notification_jobs WHERE state = 'collecting' AND user_id = ANY($1)`,
    [users],
  );
  return new Map(rows.map(({ user_id, target_key, job_id }) => [pairKey(user_id, target_key), job_id]));
}

/** What this minute has seen already. */
async function loadCounts(client: Queryable, users: readonly string[], { begins }: Now): Promise<Pick<Known, 'userCount' | 'ruleCount'>> {
  const { rows } = await client.query<{ user_id: string; rule_id: string; target_key: string; notice: string }>(
    `SELECT user_id, rule_id, target_key, alert_id || transition AS notice FROM headwater.notification_jobs
      WHERE user_id = ANY($1) AND planned_at >= $2 AND state <> 'suppressed' AND transition <> 'digest'`,
    [users, begins],
  );
  const ruleCount = new Map<string, number>();
  for (const { rule_id, target_key } of rows) {
    const key = pairKey(rule_id, target_key);
    ruleCount.set(key, (ruleCount.get(key) ?? 0) + 1);
  }
  const notices = grouped(rows, ({ user_id }) => user_id);
  return { ruleCount, userCount: new Map([...notices].map(([user, all]) => [user, new Set(all.map(({ notice }) => notice)).size])) };
}

/**
 * Keeps what was decided, and takes the rows out of the outbox.
 * @param times `ends`: when digests are closed; `maxAgeMs`: how long any job is tried, so that one which waits for another waits no longer
 */
export async function keepPlan(
  client: Queryable,
  jobs: readonly PlannedJob[],
  rows: readonly OutboxRow[],
  { ends, maxAgeMs }: { readonly ends: string; readonly maxAgeMs: number },
): Promise<void> {
  await client.query(
    `WITH done AS (DELETE FROM headwater.alert_outbox WHERE id = ANY($5::bigint[]))
     INSERT INTO headwater.notification_jobs
       (job_id, transition, alert_id, rule_id, user_id, entity_key, at, channel, target_key, target, endpoint, notice, state, reason, digest_id,
        planned_at, first_at, next_attempt_at)
     SELECT job_id, transition, alert_id, rule_id, user_id, entity_key, at, channel, target_key, target, endpoint, notice, state, reason, digest_id,
            clock_timestamp(), now(),
            CASE WHEN state = 'collecting' THEN $2::timestamptz WHEN reason = '${firingFirst}' THEN now() + $4 * interval '1 millisecond' ELSE now() END
       FROM ROWS FROM (json_to_recordset($1::json) AS (job_id text, transition text, alert_id uuid, rule_id uuid, user_id text, entity_key text,
              at timestamptz, channel text, target_key text, target jsonb, endpoint text, state text, reason text, digest_id text),
            unnest($3::json[]))
         AS j (job_id, transition, alert_id, rule_id, user_id, entity_key, at, channel, target_key, target, endpoint, state, reason, digest_id, notice)
     ON CONFLICT (job_id) DO NOTHING`,
    // Notices by themselves, as JSON that Postgres does not take apart: an event may hold `\u0000`, which it has no text for.
    [
      JSON.stringify(jobs.map((job) => ({ ...job, notice: undefined }))),
      ends,
      jobs.map(({ notice }) => notice && JSON.stringify(notice)),
      maxAgeMs,
      rows.map(({ id }) => id),
    ],
  );
}

/** A job that can be delivered at once. */
export interface ReadyJob {
  readonly job_id: string;
  readonly channel: ChannelName;
  readonly endpoint: string;
}

/** How many alerts a digest shows; it counts all. */
const shown = 20;

/** Puts together the digests whose minute is over. */
export async function closeDigests(client: Queryable, limit: number): Promise<readonly ReadyJob[]> {
  const { rows } = await client.query<ReadyJob>(
    `WITH over AS (
       SELECT job_id, at FROM headwater.notification_jobs
        WHERE state = 'collecting' AND next_attempt_at <= clock_timestamp() ORDER BY next_attempt_at LIMIT $1 FOR UPDATE)
     UPDATE headwater.notification_jobs d
        SET state = 'queued', first_at = now(), next_attempt_at = now(),
            notice = json_build_object('id', d.job_id, 'type', 'alert.digest',
              'timestamp', to_char(d.next_attempt_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
              'data', json_build_object('firing', m.firing, 'resolved', m.resolved, 'alerts', m.alerts))
       FROM over CROSS JOIN LATERAL (
         SELECT count(*) FILTER (WHERE transition = 'firing') AS firing, count(*) FILTER (WHERE transition = 'resolved') AS resolved,
                json_agg(notice ORDER BY n) FILTER (WHERE n <= ${shown}) AS alerts
           FROM (SELECT transition, notice, row_number() OVER (ORDER BY at, job_id) AS n
                   FROM headwater.notification_jobs WHERE digest_id = over.job_id) members) m
      WHERE d.job_id = over.job_id
     RETURNING d.job_id, d.channel, d.endpoint`,
    [limit],
  );
  return rows;
}

function grouped<T>(items: readonly T[], key: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(key(item));
    if (group) group.push(item);
    else groups.set(key(item), [item]);
  }
  return groups;
}
