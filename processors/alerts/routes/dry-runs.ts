import { setImmediate as turn } from 'node:timers/promises';
import type { EventLog, LogEvent, Seq } from '../../../pipeline/log/event-log.ts';
import { HeadwaterError } from '../../../pipeline/runtime/errors.ts';
import { RequestFault, unavailable } from '../../../pipeline/runtime/request-fault.ts';
import type { RuleCondition } from '../../../schemas/condition/condition.ts';
import { parseDuration } from '../../../schemas/duration.ts';
import { AlertEngine } from '../engine/alert-engine.ts';
import type { AlertEffects } from '../engine/saved.ts';
import type { Alert, Micros } from '../model.ts';
import type { RuleContent } from './rule-resource.ts';
import { tailOfTable } from './table-tail.ts';
import type { RuleTable } from './tables.ts';

export interface DryRunParts {
  readonly eventLog: EventLog;
  /** First token of the log's subjects. */
  readonly subject: string;
}

/** What a rule would have done. */
export interface DryRun {
  readonly alerts: readonly object[];
  /** Entities with which the rule was waiting for its `for` at the end. */
  readonly pending: number;
  readonly events: { readonly count: number; readonly firstSeq?: Seq; readonly lastSeq?: Seq; readonly complete: boolean };
}

/** How long the log may be read (ms), and how much of it. */
const [mostMs, mostBytes] = [5_000, 32 * 1024 ** 2];
const mostAtOnce = 4;
/** Events that are evaluated before others get their turn. */
const slice = 200;
const anyRule = '00000000-0000-0000-0000-000000000000';

/** Runs rules over what the log holds. Nothing is written, and nobody is told. */
export class DryRuns {
  readonly #parts: DryRunParts;
  readonly #owners = new Set<string>();

  constructor(parts: DryRunParts) {
    this.#parts = parts;
  }

  /**
   * Runs the rule over the newest `count` events of its table.
   * @throws RequestFault `rate_limited`, `unavailable`
   */
  async run(owner: string, content: RuleContent, table: RuleTable, count: number): Promise<DryRun> {
    if (this.#owners.has(owner)) throw new RequestFault('rate_limited', 'another test of yours is running: wait for its answer');
    if (this.#owners.size >= mostAtOnce) throw new RequestFault('rate_limited', 'too many tests are running, try again');
    this.#owners.add(owner);
    try {
      return await this.#run(owner, content, table, count);
    } catch (error) {
      if (error instanceof RequestFault) throw error;
      throw Object.assign(unavailable('the log cannot be read now, try again'), { cause: error });
    } finally {
      this.#owners.delete(owner);
    }
  }

  async #run(owner: string, content: RuleContent, table: RuleTable, count: number): Promise<DryRun> {
    const { eventLog, subject } = this.#parts;
    const limits = { count, bytes: mostBytes, horizon: horizonOf(content), signal: AbortSignal.timeout(mostMs) };
    const tail = await tailOfTable(eventLog, subject, table, limits);
    const [first, last] = [tail.events[0], tail.events.at(-1)];
    const effects = first ? await evaluate(engineWith(owner, content, table, first.seq - 1), tail.events) : undefined;
    return {
      alerts: effects ? alertsOf(effects) : [],
      pending: effects ? [...effects.episodes.values()].filter((episode) => episode?.phase === 'pending').length : 0,
      events: { count: tail.count, ...(first && last && { firstSeq: first.seq, lastSeq: last.seq }), complete: tail.complete },
    };
  }
}

function engineWith(owner: string, content: RuleContent, { schema, table, columns }: RuleTable, since: Seq): AlertEngine {
  const engine = new AlertEngine();
  engine.reset();
  engine.loadTables([
    { table: `${schema}.${table}`, columns: Object.fromEntries([...columns].map(([name, type]) => [name, [type, since] as const])) },
  ]);
  const row = {
    id: anyRule,
    user_id: owner,
    revision: 1,
    name: content.name,
    table_name: content.table,
    match: content.match,
    group_by: content.groupBy ?? null,
    condition: content.when,
    clear_condition: content.clear ?? null,
    for_seconds: content.forSeconds,
    keep_firing_for_seconds: content.keepFiringForSeconds,
    cooldown_seconds: content.cooldownSeconds,
    severity: content.severity,
    enabled: true,
  };
  engine.loadRules([{ id: anyRule, seq: since, row }]);
  return engine;
}

/** How long after its last event an entity can still change its state: all of the rule's durations, one after the other. */
function horizonOf({ when, clear, forSeconds, keepFiringForSeconds }: RuleContent): Micros {
  let total = (forSeconds + keepFiringForSeconds) * 1_000_000;
  const add = (condition: RuleCondition): void => {
    if ('and' in condition) condition.and.forEach(add);
    else if ('or' in condition) condition.or.forEach(add);
    else if ('not' in condition) add(condition.not);
    else if ('absent_for' in condition) total += parseDuration(condition.absent_for) ?? 0;
    else if ('change' in condition) total += parseDuration(condition.change) ?? 0;
  };
  for (const condition of [when, clear]) if (condition) add(condition);
  return total;
}

async function evaluate(engine: AlertEngine, events: readonly LogEvent[]): Promise<AlertEffects> {
  const effects = engine.begin();
  for (const [i, event] of events.entries()) {
    if (i % slice === slice - 1) await turn();
    try {
      engine.apply(event, effects);
    } catch (error) {
      // The live rule would not be stopped by such an event either.
      if (!(error instanceof HeadwaterError)) throw error;
    }
  }
  return effects;
}

/** Each alert as it was in the end, in the order of firing. */
function alertsOf({ transitions }: AlertEffects): readonly object[] {
  const alerts = new Map<string, Alert>();
  for (const { alert } of transitions) alerts.set(alert.id, alert);
  return [...alerts.values()].map((alert) => ({
    entity: alert.entity,
    severity: alert.severity,
    state: alert.state,
    value: alert.value,
    firedAt: isoOf(alert.firedAt),
    firedSeq: alert.firedSeq,
    ...(alert.resolvedAt !== undefined && { resolvedAt: isoOf(alert.resolvedAt) }),
    ...(alert.resolvedSeq !== undefined && { resolvedSeq: alert.resolvedSeq }),
    ...(alert.reason !== undefined && { reason: alert.reason }),
  }));
}

/** ISO 8601 with microseconds. */
function isoOf(at: Micros): string {
  const micros = at % 1_000;
  return new Date((at - micros) / 1_000).toISOString().replace('Z', `${String(micros).padStart(3, '0')}Z`);
}
