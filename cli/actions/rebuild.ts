import { followBackfills, listBackfills, requestBackfill } from '../../pipeline/capture/backfill/operations.ts';
import type { CopyState } from '../../pipeline/capture/log-record.ts';
import type { Operation } from '../../pipeline/capture/operations.ts';
import { connectNats } from '../../pipeline/clients/nats.ts';
import { createPool, cutOffWhenAborted, type PgPool } from '../../pipeline/clients/postgres.ts';
import { closeRedis, connectRedis } from '../../pipeline/clients/redis.ts';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import { JetStreamDeadLetters } from '../../pipeline/runner/jetstream-dead-letters.ts';
import type { BesideStatus, Rebuildable, RebuildOutcome, RebuildProgress } from '../../pipeline/runner/rebuild/model.ts';
import { incomplete } from '../../pipeline/runner/rebuild/refusals.ts';
import { pause } from '../../pipeline/runtime/backoff.ts';
import { HeadwaterError, messageOf, usage } from '../../pipeline/runtime/errors.ts';
import { Health } from '../../pipeline/runtime/health.ts';
import type { RoleContext } from '../../pipeline/runtime/lifecycle.ts';
import { createLogger } from '../../pipeline/runtime/logging.ts';
import { createRegistry } from '../../pipeline/runtime/metrics.ts';
import type { ProcessorConnections, ProcessorFactory } from '../../processors/processor-factory.ts';
import type { Catalog } from '../../schemas/catalog.ts';
import { suggestion } from '../../schemas/nearest.ts';
import { configOf, type Cli } from '../cli.ts';
import { progressText } from '../backfill-text.ts';
import { locate, unreachable, type Located } from '../connections.ts';
import { progressOn, type Progress } from '../progress.ts';
import { comparisonLines, outcomeLine, pauseLines, rebuildLine, statusText } from '../rebuild-text.ts';
import { loadCatalog } from '../roles/catalog.ts';
import { allProcessors } from '../roles/own-processors.ts';

/** The options of `headwater rebuild`. */
export interface RebuildOptions {
  readonly flip?: boolean;
  readonly backfill: boolean;
  readonly status?: boolean;
  readonly abort?: boolean;
  readonly drop?: boolean;
  readonly json?: boolean;
  readonly data?: string;
}

type Target = Located<'databaseUrl' | 'natsUrl' | 'redisUrl'>;

const statusMs = 2_000;
/** So long after it was told to end, the command waits for no statement any more. */
const graceMs = 3_000;

/** Makes states anew beside the live ones, or does what else the options say with those that stand there. */
export async function rebuild(cli: Cli, name: string | undefined, options: RebuildOptions): Promise<void> {
  const { status, abort, drop } = options;
  const given = configOf(cli, { data: options.data });
  const factories = (await allProcessors(given)).filter((factory) => factory.rebuild);
  const processor = name?.split('.', 1)[0];
  const names = factories.map((factory) => factory.name);
  if (processor !== undefined && !names.includes(processor))
    throw usage(
      'bad_arguments',
      `${processor} cannot be rebuilt${suggestion(processor, names)}; these can: ${names.join(', ')}`,
      '`headwater rebuild --help` shows what it takes; processors of your own are named in HEADWATER_PROCESSORS',
    );
  const config = await locate(given, 'databaseUrl', 'natsUrl', 'redisUrl');
  const chosen = factories.filter((factory) => processor === undefined || factory.name === processor);
  await withRebuildables(cli, config, chosen, async (all, progress, context, catalog) => {
    const part = name === undefined || name === processor ? undefined : name;
    const found = part === undefined ? all : all.filter((one) => one.name === part);
    if (found.length === 0)
      throw usage(
        'unknown_part',
        part === undefined
          ? `${processor} has nothing to rebuild`
          : `there is no ${part}${suggestion(
              part,
              all.map((one) => one.name),
            )}`,
        'the catalogue defines the aggregates',
      );
    if (status) await show(cli, found, options);
    else if (abort || drop) await remove(cli, found, options, progress);
    else for (const one of found) await rebuildOne({ cli, one, options, progress, context, catalog, config });
  });
}

async function show(cli: Cli, found: readonly Rebuildable[], { json }: RebuildOptions): Promise<void> {
  const statuses = (await Promise.all(found.map((one) => one.status()))).filter((status) => status !== undefined);
  if (json) await cli.out.line(JSON.stringify({ rebuilds: statuses }));
  else await cli.out.line(statuses.length > 0 ? statusText(statuses, cli.out) : 'Nothing stands beside the live states.');
}

async function remove(cli: Cli, found: readonly Rebuildable[], { drop, json }: RebuildOptions, progress: Progress): Promise<void> {
  for (const one of found) {
    const removed = await one.remove(drop ? 'kept' : 'filling', (text) => progress.show(`${one.name}: ${text}`));
    progress.end();
    if (json) await cli.out.line(JSON.stringify({ name: one.name, removed }));
    else await cli.out.line(removed ? `${one.name}: removed. The live state is as it was.` : `${one.name}: there was nothing to remove.`);
  }
}

interface Rebuilding {
  readonly cli: Cli;
  readonly one: Rebuildable;
  readonly options: RebuildOptions;
  readonly progress: Progress;
  readonly context: RoleContext;
  readonly catalog: Catalog;
  readonly config: Target;
}

async function rebuildOne({ cli, one, options, progress, context, catalog, config }: Rebuilding): Promise<void> {
  const { name } = one;
  const { json } = options;
  const before = await one.status();
  const { signal, log } = context;
  const said = async (line: string): Promise<void> => {
    progress.end();
    await cli.err.line(line);
  };
  let outcome: RebuildOutcome;
  let at: RebuildProgress | undefined;
  try {
    outcome = await one.rebuild({
      flip: options.flip !== false,
      existing: options.flip === true,
      insist: options.flip === true,
      back: options.flip === true && before?.state === 'kept',
      onProgress(found) {
        at = found;
        progress.show(rebuildLine(found, cli.err.terminal));
      },
      onCompared(comparison) {
        const { changing: rows = 0, pauseMs: ms = 0 } = comparison;
        const lines = [...(json ? [] : comparisonLines(name, comparison)), ...pauseLines(name, { rows, ms })];
        if (lines.length > 0) void said(lines.join('\n'));
      },
      onPause(long) {
        for (const line of pauseLines(name, long)) void said(line);
      },
      async onTrimmed({ first, last }) {
        await said(`${name}: the log no longer holds what was before ${first}, so the rows that have not changed since are not in it.`);
        if (!options.backfill) {
          await said(`${name}: starting without them, as --no-backfill says.`);
          return undefined;
        }
        await said(`${name}: starting from a backfill of every table.`);
        const gone = await backfillAll({ config, catalog, log, signal, progress: progress.show }, cli.err.terminal);
        if (gone.length > 0) throw incomplete(name, `the backfill of ${gone.join(', ')} has not come to its end`);
        return last + 1;
      },
    });
  } catch (error) {
    progress.end();
    // A refusal has changed nothing, and says so itself.
    const unclear = at?.phase === 'flipping' && !(error instanceof HeadwaterError && error.reaction === 'refused');
    if (signal.aborted || unclear)
      await cli.err.line(`${name}: ${signal.aborted ? 'interrupted' : 'failed while it was flipped'}. ${await whatIsLive(one, before)}`);
    throw error;
  }
  progress.end();
  await cli.out.line(json ? JSON.stringify(outcome) : outcomeLine(outcome, `rebuild ${name}`));
}

/** Has every table that can be copied anew, from its first row on. Returns the tables whose copy has not come to its end. */
async function backfillAll(operation: Operation, withBar: boolean): Promise<readonly string[]> {
  const copied = async (names: readonly string[] | undefined): Promise<readonly string[]> => {
    const tables = await requestBackfill(operation, { names });
    const copies = await followBackfills(operation, tables, (copy, number, of) =>
      operation.progress(`(${number} of ${of}) ${progressText(copy, withBar)}`),
    );
    return copies.filter(({ state }) => state !== 'done').map(({ table }) => table);
  };
  // What was under way has begun earlier, at an event that the log may no longer hold.
  const begun = (await listBackfills(operation)).filter(hasBegun).map(({ table }) => table);
  const gone = await copied(undefined);
  return begun.length > 0 && gone.length === 0 ? copied(begun) : gone;
}

function hasBegun({ state, begun, rows }: CopyState): boolean {
  return state === 'running' || (state === 'pending' && (begun === true || rows > 0));
}

/** The interruption, or the failure, may have come when the flip had been asked for. */
async function whatIsLive(one: Rebuildable, before: BesideStatus | undefined): Promise<string> {
  const after = await Promise.race([one.status().catch(() => null), pause(statusMs).then(() => null)]);
  if (after === null) return '`headwater rebuild --status` tells whether it has been flipped: that could not be asked now.';
  if (after?.state !== 'kept' || after.since === before?.since)
    return 'The live state is as it was; the same command goes on, and --abort removes what has been made.';
  return 'It has been flipped already: the state of before is kept, --drop removes it, and --flip goes back to it.';
}

/** Opens what the processors need, and closes it. */
async function withRebuildables(
  cli: Cli,
  config: Target,
  chosen: readonly ProcessorFactory[],
  work: (all: readonly Rebuildable[], progress: Progress, context: RoleContext, catalog: Catalog) => Promise<void>,
): Promise<void> {
  const catalog = await loadCatalog(config);
  // What a runner has to say of its beginnings and ends is not what was asked for.
  const log = createLogger(config.logLevel === 'info' ? 'warn' : config.logLevel);
  const progress = progressOn(cli.err);
  const closers: (() => Promise<void>)[] = [];
  const pools: PgPool[] = [];
  const once = <T>(open: () => Promise<T>): (() => Promise<T>) => {
    let opened: Promise<T> | undefined;
    return () => (opened ??= open());
  };
  const connections: ProcessorConnections = {
    catalog,
    log: once(async () => {
      const connection = await connectNats(config.natsUrl, 'rebuild', log).catch(unreachable('NATS', config, 'natsUrl'));
      closers.push(() => connection.close());
      const eventLog = await JetStreamLog.open(connection, config, log);
      closers.push(async () => eventLog.close());
      return { eventLog, deadLetters: await JetStreamDeadLetters.open(connection, { replicas: Number(config.replicas) }) };
    }),
    redis: once(async () => {
      const patience = AbortSignal.any([cli.signal, AbortSignal.timeout(5_000)]);
      const redis = await connectRedis(config.redisUrl, log, { signal: patience }).catch(unreachable('Redis', config, 'redisUrl'));
      closers.push(async () => closeRedis(redis));
      return redis;
    }),
    postgres(max = 4) {
      const pool = createPool(config.databaseUrl, 'headwater rebuild', log, max);
      pools.push(pool);
      const stopCutting = cutOffWhenAborted(pool, cli.signal, graceMs);
      closers.push(() => pool.end().finally(stopCutting));
      return pool;
    },
  };
  try {
    const context: RoleContext = { config, log, metrics: createRegistry(), health: new Health(), signal: cli.signal };
    const all: Rebuildable[] = [];
    for (const factory of chosen) all.push(...(await factory.rebuild!(context, connections)));
    for (const pool of pools) await pool.query('SELECT 1').catch(unreachable('PostgreSQL', config, 'databaseUrl'));
    await work(all, progress, context, catalog);
  } catch (error) {
    // What fails because it was told to end is no failure.
    throw cli.signal.aborted ? cli.signal.reason : error;
  } finally {
    progress.end();
    for (const close of closers.toReversed())
      await close().catch((error: unknown) => log.warn({ error: messageOf(error) }, 'rebuild: a connection could not be closed'));
  }
}
