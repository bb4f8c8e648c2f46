import type { PgPool } from '../pipeline/clients/postgres.ts';
import type { EventLog } from '../pipeline/log/event-log.ts';
import { PostgresStateStore } from '../pipeline/runner/postgres-state-store.ts';
import type { Processor } from '../pipeline/runner/processor.ts';
import { rebuildable } from '../pipeline/runner/rebuild/rebuild.ts';
import { besideName } from '../pipeline/runner/rebuild/postgres.ts';
import { startRunner } from '../pipeline/runner/runner.ts';
import type { HeadwaterError } from '../pipeline/runtime/errors.ts';
import type { Logger } from '../pipeline/runtime/logging.ts';
import { AlertEngine } from './alerts/engine/alert-engine.ts';
import type { AlertEffects, RuleRow } from './alerts/engine/saved.ts';
import { defineRule } from './alerts/engine/rule-row.ts';
import { alertMetrics } from './alerts/metrics.ts';
import { alertsBeside } from './alerts/rebuild.ts';
import { alertEffects } from './alerts/store/alert-effects.ts';
import { loadState } from './alerts/store/load-state.ts';
import { beginAnew, skipTo, type StoredAlerts } from './alerts/store/mend-state.ts';
import type { ProcessorFactory } from './processor-factory.ts';

const name = 'alerts';
/** A commit costs a round trip and an fsync, whatever it holds. */
const limits = { events: 4_000 };

/** Evaluates the rules on the log: what fires and is resolved goes to the history and to the outbox, in PostgreSQL. */
export const alerts: ProcessorFactory = {
  name,
  async start(context, connections) {
    const { eventLog, deadLetters } = await connections.log();
    const pool = connections.postgres();
    const engine = new AlertEngine();
    const metrics = alertMetrics(context.metrics, engine);
    const store = new PostgresStateStore<AlertEffects>(pool, name, alertEffects());
    return startRunner(context, {
      eventLog,
      deadLetters,
      store,
      processor: alertProcessor(engine),
      limits,
      onCommitted: (effects) => metrics.committed(effects),
      load: () => loaded(pool, name, engine, context.log),
      mend: (reason) => mended(reason, { pool, store, processor: name }, eventLog, context.log),
    });
  },
  async rebuild(context, connections) {
    const { eventLog, deadLetters } = await connections.log();
    const pool = connections.postgres();
    const engine = new AlertEngine();
    const beside = alertsBeside(pool, name);
    const load = (): Promise<void> => loaded(pool, besideName(name), engine, context.log);
    return [rebuildable(context, { eventLog, deadLetters, beside, processor: alertProcessor(engine), limits, load })];
  },
};

async function loaded(pool: PgPool, processor: string, engine: AlertEngine, log: Logger): Promise<void> {
  const begun = performance.now();
  await loadState(pool, processor, engine);
  const { rules, pending, firing, entities } = engine.counts();
  const seconds = ((performance.now() - begun) / 1_000).toFixed(1);
  log.info(`alerts: loaded ${rules} rules, ${entities} entities, ${pending} pending and ${firing} firing in ${seconds} s`);
}

/** The engine as the runner drives it. */
function alertProcessor(engine: AlertEngine): Processor<AlertEffects> {
  return {
    name,
    begin: () => engine.begin(),
    apply: (event, effects) => engine.apply(event, effects),
    reset: () => engine.reset(),
    // It is as if the row changed now: what was of then is told nobody.
    redrive: { under: 'tick', concerns: (event) => engine.groupsOf(event) },
  };
}

/**
 * A new epoch says by itself what holds. Events that have been trimmed before they were evaluated are lost to alerts, and that is said;
 * alerts go on all the same, for an alert that comes is worth more than none at all. A log that has gone back is for the
 * operator to judge.
 */
async function mended(reason: HeadwaterError, stored: StoredAlerts, eventLog: EventLog, log: Logger): Promise<boolean> {
  if (reason.code === 'epoch_changed') {
    log.warn(`alerts: ${reason.message}; what was firing is resolved, and evaluated anew from the copy of all rows`);
    await beginAnew(stored);
    return true;
  }
  if (reason.code !== 'offset_expired') return false;
  const { first } = await eventLog.bounds();
  const lost = await skipTo(first, stored, isUsable);
  log.error(
    `alerts: ${lost ?? 'some'} events were trimmed from the log before their rules were evaluated, and alerts that they would have raised ` +
      `are lost; going on at sequence ${first}. Keep the log for longer than this role may be away: HEADWATER_LOG_MAX_AGE, HEADWATER_LOG_MAX_BYTES`,
  );
  return true;
}

function isUsable(row: RuleRow): boolean {
  try {
    defineRule(row);
    return true;
  } catch {
    return false;
  }
}
