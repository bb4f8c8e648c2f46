import type { RedisClient } from '../../pipeline/clients/redis.ts';
import type { EventLog, Seq } from '../../pipeline/log/event-log.ts';
import type { DeadLetters } from '../../pipeline/runner/dead-letters.ts';
import { microsOf } from '../../pipeline/runner/event-head.ts';
import type { Processor } from '../../pipeline/runner/processor.ts';
import { unfitOffset } from '../../pipeline/runner/mending.ts';
import { RebuildLetters } from '../../pipeline/runner/rebuild/letters.ts';
import { holesAt } from '../../pipeline/runner/rebuild/redis-record.ts';
import type { RedisKeys } from '../../pipeline/runner/redis-keys.ts';
import { RedisStateStore } from '../../pipeline/runner/redis-state-store.ts';
import { startRunner, type RunnerParts } from '../../pipeline/runner/runner.ts';
import type { Offset } from '../../pipeline/runner/state-store.ts';
import { HeadwaterError, messageOf, refused } from '../../pipeline/runtime/errors.ts';
import type { RoleContext } from '../../pipeline/runtime/lifecycle.ts';
import { tablesNamed, tableToken } from '../../schemas/subjects.ts';
import { AggregateEngine } from './engine/aggregate-engine.ts';
import type { AggregateEffects } from './engine/effects.ts';
import { missingColumns } from './columns.ts';
import type { AggregateMetrics } from './metrics.ts';
import type { Definition } from './model.ts';
import type { DefinitionRunner } from './role.ts';
import { redisAggregates } from './store/commit.ts';
import { namespaceOf } from './store/keys.ts';
import { loadMeta, loadNeeds } from './store/load.ts';
import { forgetChanges, noteBeginning, skipLost, statePatterns } from './store/mend.ts';
import { processorName } from './store/registry.ts';

export interface DefinitionParts {
  readonly redis: RedisClient;
  readonly eventLog: EventLog;
  readonly deadLetters: DeadLetters;
  readonly metrics: AggregateMetrics;
  /** How long an instance that died keeps the others waiting (default 10 s). */
  readonly leaseMs?: number;
  /** Most records of windows, points and rows that stay in memory. */
  readonly mostRecords?: number;
}

/** What folds a definition: the parts of a runner, without its store. */
export function definitionFold(
  context: RoleContext,
  definition: Definition,
  { redis, eventLog, deadLetters, mostRecords }: Omit<DefinitionParts, 'metrics'>,
): { readonly engine: AggregateEngine; readonly fold: Omit<RunnerParts<AggregateEffects>, 'store'> } {
  const keys = namespaceOf(definition.name, definition.hash);
  const engine = new AggregateEngine(definition, mostRecords === undefined ? {} : { mostRecords });
  const fold = {
    eventLog,
    deadLetters,
    // Only what is stored may leave its memory.
    onCommitted: (_effects: AggregateEffects, { seq }: Offset) => engine.committed(seq),
    processor: aggregateProcessor(definition, engine, { redis, keys, context }),
    load: async () => {
      await noteBeginning(redis, keys, eventLog, definition.of);
      engine.restore(await loadMeta(redis, keys));
    },
  };
  return { engine, fold };
}

/**
 * One definition at work: its own offset and lease, in its own namespace.
 * @param building it has not taken its place yet: metrics and health call it by another name, and what operators want redriven is for the one that is served
 */
export function startDefinition(context: RoleContext, definition: Definition, building: boolean, parts: DefinitionParts): DefinitionRunner {
  const { redis, eventLog, deadLetters, metrics, leaseMs } = parts;
  const keys = namespaceOf(definition.name, definition.hash);
  const { engine, fold } = definitionFold(context, definition, parts);
  const store = new RedisStateStore(redis, processorName, keys, redisAggregates(definition), { listed: false });
  const stopMetrics = metrics.watch(definition.name, engine);
  const holes = (): Promise<readonly Seq[]> => holesAt(redis, keys.offset(processorName));
  const letters = building ? new RebuildLetters({ deadLetters, eventLog, processor: fold.processor, holes }, context.log) : undefined;
  const role = startRunner(context, {
    ...fold,
    store,
    ...(letters && { label: `${nameOf(definition)}.${definition.hash}`, deadLetters: letters }),
    mend: (reason) => mended(reason, { redis, keys, store, eventLog, definition, context }),
    ...(leaseMs !== undefined && { leaseMs }),
  });
  return {
    name: role.name,
    done: role.done,
    offset: () => store.offset(),
    completeLetters: async () => letters?.complete(),
    stop: async () => {
      await role.stop();
      stopMetrics();
    },
  };
}

/** What it is called to dead letters, whatever its state is called: letters outlive states. */
function nameOf({ name }: Definition): string {
  return `${processorName}.${name}`;
}

/** The engine as the runner drives it. */
function aggregateProcessor(
  definition: Definition,
  engine: AggregateEngine,
  { redis, keys, context }: Pick<Mending, 'redis' | 'keys' | 'context'>,
): Processor<AggregateEffects> {
  const { log, config } = context;
  const { subject } = config;
  const name = nameOf(definition);
  // A dot may belong to the schema's name or to the table's; the engine, too, goes by the whole name.
  const tokens = tablesNamed(definition.table).map(({ schema, table }) => tableToken(schema, table));
  const schemas = tokens.map((token) => `${subject}._schema.${token}`);
  const warn = (missing: readonly string[]): void => {
    if (missing.length > 0) log.warn(`${name}: ${definition.table} has no column ${missing.join(', no column ')}`);
  };
  return {
    name,
    subjects: [...tokens.map((token) => `${subject}.${token}.>`), ...schemas],
    // Revisions of windows only grow, and whoever follows them looks for newer ones.
    redrive: { of: definition.of === 'rows' ? 'rows' : 'events', under: 'tick' },
    async prepare(events) {
      const steps = engine.prepare(events);
      for (let step = sound(name, () => steps.next()); !step.done;) {
        const loaded = await loadNeeds(redis, keys, definition, step.value);
        step = sound(name, () => steps.next(loaded));
      }
    },
    apply(event, effects) {
      engine.apply(event, effects);
      if (schemas.includes(event.subject)) warn(missingColumns(event, definition));
    },
    begin: () => engine.begin(),
    reset: () => engine.reset(),
  };
}

/** The store is waited for, for as long as it takes; the engine's own faults are not. */
function sound<T>(name: string, step: () => T): T {
  try {
    return step();
  } catch (error) {
    throw refused(
      'bad_state',
      `${name} cannot make sense of what Redis holds: ${messageOf(error)}`,
      'this is a fault of the program, or somebody else has written there: correct it and start it again, or remove its keys to have it made anew',
    );
  }
}

interface Mending {
  readonly redis: RedisClient;
  readonly keys: RedisKeys;
  readonly store: RedisStateStore<AggregateEffects>;
  readonly eventLog: EventLog;
  readonly definition: Definition;
  readonly context: RoleContext;
}

/**
 * Aggregates of rows are made anew: the log's copies of rows bring them back. Of changes nothing else is left of what has been trimmed, so they are
 * kept, and what is missing is said; a log that has gone back they leave to the operator.
 */
async function mended(reason: HeadwaterError, mending: Mending): Promise<boolean> {
  const { redis, keys, definition, context, store, eventLog } = mending;
  if (definition.of === 'changes') return reason.code !== 'log_regressed' && (await skipped(reason, mending));
  const expected = await unfitOffset(nameOf(definition), store, eventLog);
  if (!expected) return true;
  context.log.warn(
    `aggregates: making ${definition.name} anew, since ${reason.message}` +
      (reason.code === 'offset_expired' ? `; \`headwater backfill ${definition.table}\` brings back rows that do not change` : ''),
  );
  const { last } = await eventLog.bounds();
  // What was there and does not come back is told to nobody: whoever has seen it has to begin anew, also when this is interrupted.
  await forgetChanges(redis, keys, last);
  await store.wipe(statePatterns, expected);
  return true;
}

async function skipped(reason: HeadwaterError, { redis, keys, store, eventLog, definition, context }: Mending): Promise<boolean> {
  const { first, epochStart, epoch } = await eventLog.bounds();
  const seq = Math.max(first, epochStart);
  const event = await eventLog.get(seq);
  const end = event && microsOf(event);
  if (end === undefined) throw new HeadwaterError('log_empty', `the log does not hold event ${seq} yet`, { reaction: 'retry' });
  const expected = await store.offset();
  const start = expected && (await skipLost(redis, keys, { expected, next: { seq: seq - 1, epoch }, end }));
  if (start === undefined) return true;
  const iso = (micros: number): string => new Date(micros / 1_000).toISOString();
  context.log.error(
    `aggregates: changes of ${definition.table} between ${iso(start)} and ${iso(end)} are missing from ${definition.name}, since ${reason.message}; going on at sequence ${seq}. ` +
      'Keep the log for longer than this role may be away: HEADWATER_LOG_MAX_AGE, HEADWATER_LOG_MAX_BYTES',
  );
  return true;
}
