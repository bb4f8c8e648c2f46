import { randomUUID } from 'node:crypto';
import { migrate } from '../../../../deploy/migrate.ts';
import { createPool, type PgPool } from '../../../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import type { Role } from '../../../../pipeline/runtime/lifecycle.ts';
import { webhookChannel } from '../../../../processors/notify/channels/webhook.ts';
import type { Channels } from '../../../../processors/notify/delivery.ts';
import { defaultOptions, type NotifyOptions } from '../../../../processors/notify/options.ts';
import { Notify } from '../../../../processors/notify/role.ts';
import { printCondition } from '../../../../schemas/condition/print.ts';
import { redisNamespace, type RedisNamespace } from '../../../support/redis-namespace.ts';
import { roleContext } from '../../../support/role-context.ts';
import { freshDatabase } from '../../../support/servers.ts';

/** A day in log time, so that nothing depends on the clock of this machine. */
const epoch = Date.UTC(2026, 0, 1);

/** Text of a log time, `seconds` after the beginning. */
export function logTime(seconds: number): string {
  return new Date(epoch + seconds * 1_000).toISOString().replace('Z', '000Z');
}

export interface RuleToBe {
  readonly user?: string;
  readonly channels: readonly object[];
  readonly cooldown?: number;
}

export interface Firing {
  readonly rule: string;
  readonly user?: string;
  readonly alert?: string;
  readonly entity?: Record<string, unknown>;
  readonly transition?: 'firing' | 'resolved';
  readonly reason?: string;
  /** Seconds of log time. */
  readonly at?: number;
  readonly event?: string;
}

export interface Job {
  readonly job_id: string;
  readonly alert_id: string | null;
  readonly transition: string;
  readonly channel: string;
  readonly state: string;
  readonly reason: string | null;
  readonly digest_id: string | null;
  readonly attempts: number;
}

/** A database, a Redis prefix, and the role `notify` on them. */
export interface NotifyWorld {
  readonly pool: PgPool;
  readonly redis: RedisNamespace;
  readonly databaseUrl: string;
  rule(rule: RuleToBe): Promise<string>;
  /** Puts transitions into the outbox as the engine does, in one transaction; answers the alerts' ids. */
  fire(...firings: Firing[]): Promise<string[]>;
  jobs(where?: string): Promise<readonly Job[]>;
  /** Whether nothing that was planned is still to be done. */
  settled(): Promise<boolean>;
  /** Webhooks that went by BullMQ, so far. */
  queuedJobs(): Promise<number>;
  start(options?: Partial<NotifyOptions>, parts?: { readonly channels?: Channels; readonly redisUrl?: string }): Role;
  close(): Promise<void>;
}

export async function notifyWorld(): Promise<NotifyWorld> {
  const database = await freshDatabase();
  await migrate(database.url, { demo: false, log: silentLogger() });
  const pool = createPool(database.url, 'test', silentLogger(), 4);
  const redis = await redisNamespace();
  const roles: { role: Role; pool: PgPool }[] = [];
  async function jobs(where = 'true'): Promise<readonly Job[]> {
    const { rows } = await pool.query<Job>(
      `SELECT job_id, alert_id, transition, channel, state, reason, digest_id, attempts FROM headwater.notification_jobs
        WHERE ${where} ORDER BY at, planned_at, job_id`,
    );
    return rows;
  }
  return {
    pool,
    redis,
    databaseUrl: database.url,
    async rule({ user = 'u1', channels, cooldown = 0 }) {
      const { rows } = await pool.query<{ id: string }>(
        `INSERT INTO headwater.alert_rules (user_id, name, table_name, condition, channels, cooldown_seconds)
         VALUES ($1, 'a rule', 'public.prices', '{"field":"price","op":"gt","value":50}', $2, $3) RETURNING id`,
        [user, JSON.stringify(channels), cooldown],
      );
      return rows[0]!.id;
    },
    async fire(...firings) {
      const rows = firings.map(outboxRow);
      await pool.query(
        `WITH put AS (
           INSERT INTO headwater.alert_outbox (alert_id, transition, rule_id, revision, user_id, alert, rule, event)
           SELECT alert_id, transition, rule_id, 1, user_id, alert, rule, event
             FROM ROWS FROM (json_to_recordset($1::json) AS (alert_id uuid, transition text, rule_id uuid, user_id text, alert jsonb, rule jsonb),
                  unnest($2::json[])) WITH ORDINALITY AS r (alert_id, transition, rule_id, user_id, alert, rule, event, n) ORDER BY n)
         SELECT pg_notify('headwater_outbox', '')`,
        [JSON.stringify(rows), firings.map(({ event = '{"v":1}' }) => event)],
      );
      return rows.map(({ alert_id }) => alert_id);
    },
    jobs,
    settled: async () => (await jobs(`state IN ('queued', 'delivering', 'collecting')`)).length === 0,
    async queuedJobs() {
      const events = (await redis.client.xrange(`${redis.keys.prefix}:bull:hw-webhook:events`, '-', '+')) as [string, string[]][];
      return events.filter(([, fields]) => fields.includes('completed')).length;
    },
    start(options = {}, parts = {}) {
      const channels = { webhook: webhookChannel({ rules: { allowPrivate: true }, userAgent: 'Headwater/test' }) };
      const own = createPool(database.url, 'test notify', silentLogger(), 8);
      const role = new Notify(roleContext(), {
        pool: own,
        databaseUrl: database.url,
        redisUrl: redis.url,
        prefix: `${redis.keys.prefix}:bull`,
        channels,
        text: printCondition,
        ...parts,
        options: { ...defaultOptions, sweepMs: 100, retryBaseMs: 50, breakerBaseMs: 100, breakerCapMs: 400, ...options },
      });
      roles.push({ role, pool: own });
      return role;
    },
    async close() {
      for (const { role, pool: own } of roles) {
        await role.stop();
        await own.end();
      }
      await pool.end();
      await redis.close();
      await database.drop();
    },
  };
}

function outboxRow(firing: Firing): { readonly alert_id: string } {
  const { rule, user = 'u1', alert = randomUUID(), entity = { id: 1 }, transition = 'firing', reason, at = 0 } = firing;
  const row = {
    alert_id: alert,
    transition,
    rule_id: rule,
    user_id: user,
    alert: {
      id: alert,
      rule_id: rule,
      revision: 1,
      user_id: user,
      entity,
      severity: 'warning',
      state: transition,
      value: '51.10',
      fired_at: logTime(transition === 'firing' ? at : 0),
      fired_seq: 7,
      resolved_at: transition === 'resolved' ? logTime(at) : null,
      resolved_seq: transition === 'resolved' ? 8 : null,
      reason: transition === 'resolved' ? (reason ?? 'condition') : null,
    },
    rule: {
      name: 'a rule',
      table: 'public.prices',
      condition: { field: 'price', op: 'gt', value: 50 },
      clear: null,
      severity: 'warning',
    },
  };
  return row;
}
