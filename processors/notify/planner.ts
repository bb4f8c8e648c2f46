import type { PgPool } from '../../pipeline/clients/postgres.ts';
import { messageOf } from '../../pipeline/runtime/errors.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import type { RuleCondition } from '../../schemas/condition/condition.ts';
import type { ChannelName, NotifyOptions } from './options.ts';
import type { OutboxRow } from './notices.ts';
import { planBatch, type PlannedJob } from './plan.ts';
import { closeDigests, keepPlan, loadKnown, nextRows, takeTurn, type ReadyJob } from './plan-store.ts';

export interface PlannerParts {
  readonly pool: PgPool;
  readonly options: NotifyOptions;
  /** The channels that can be delivered to. */
  readonly configured: ReadonlySet<ChannelName>;
  readonly text: (condition: RuleCondition) => string;
  readonly log: Logger;
}

export interface Planned {
  /** What can be delivered at once. */
  readonly ready: readonly ReadyJob[];
  /** More may be waiting. */
  readonly more: boolean;
}

const batchRows = 500;
/** Of events, in one batch: one event that a whole batch tells of must not be in memory as often as that. */
const batchBytes = 8 * 1_024 ** 2;
const batchDigests = 100;

/**
 * Plans the next transitions of the outbox in one transaction: jobs in, rows out, or neither. One planner at a time; while another
 * one plans there is nothing to do.
 */
export async function planNext({ pool, options, configured, text, log }: PlannerParts): Promise<Planned> {
  const client = await pool.connect();
  let broken: Error | undefined;
  try {
    const minute = await takeTurn(client, options.minuteMs);
    if (!minute) {
      await client.query('ROLLBACK');
      return { ready: [], more: false };
    }
    const { rows, more } = await nextRows(client, batchRows, batchBytes);
    let jobs: readonly PlannedJob[] = [];
    if (rows.length > 0) {
      const known = await loadKnown(client, rows, configured, minute);
      // Without the event: what people keep in their database is nothing for a log.
      const onFault = ({ alert_id, rule_id, transition }: OutboxRow, error: unknown): void =>
        log.error({ alert_id, rule_id, transition, error: messageOf(error) }, 'notify: a transition that makes no sense is left out');
      jobs = planBatch(rows, { known, minute, limits: options, text, onFault });
      await keepPlan(client, jobs, rows, { ...minute, maxAgeMs: options.maxAgeMs });
    }
    const digests = await closeDigests(client, batchDigests);
    await client.query('COMMIT');
    return { ready: [...jobs.filter(isReady), ...digests], more: more || digests.length === batchDigests };
  } catch (error) {
    broken = error instanceof Error ? error : new Error(messageOf(error));
    throw error;
  } finally {
    // A connection in an unknown state is not used again; closing it also ends the transaction.
    client.release(broken);
  }
}

function isReady(job: PlannedJob): job is PlannedJob & ReadyJob {
  return job.state === 'queued' && job.reason === null && job.channel !== 'none';
}
