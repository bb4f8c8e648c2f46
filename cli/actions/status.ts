import type { PgPool } from '../../pipeline/clients/postgres.ts';
import { findBucket, type NatsConnection } from '../../pipeline/clients/nats.ts';
import { listedConnections } from '../../gateway/redis-presence.ts';
import { LogRecord, recordBucket } from '../../pipeline/capture/log-record.ts';
import { closeRedis, connectRedis } from '../../pipeline/clients/redis.ts';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import { DeadLetterDesk } from '../../pipeline/runner/redrive/desk.ts';
import { pause } from '../../pipeline/runtime/backoff.ts';
import { messageOf } from '../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { alertsStatus, databaseOffsets, type AlertsStatus } from '../alerts-status.ts';
import { backfillsStatus, type BackfillStatus } from '../backfills-status.ts';
import { configOf, type Cli } from '../cli.ts';
import { locate, unreachable, withNats, withPostgres, type Located } from '../connections.ts';
import { Ended } from '../failure.ts';
import { databaseRebuilds, redisRebuilds, type RebuildStatus } from '../rebuilds-status.ts';
import {
  connectionsStatus,
  lagOf,
  logStatus,
  problemsOf,
  slotStatus,
  storedOffsets,
  type SlotStatus,
  type ConnectionsStatus,
  type Status,
  type StoredOffset,
} from '../status.ts';
import { statusText } from '../status-text.ts';

interface StatusOptions {
  readonly json?: boolean;
  readonly watch?: boolean;
  readonly data?: string;
}

type Target = Located<'databaseUrl' | 'natsUrl' | 'redisUrl'>;

const watchMs = 1_000;
const clearScreen = '\u001b[H\u001b[2J';

/** Prints the status once, or again each second. */
export async function showStatus(cli: Cli, options: StatusOptions): Promise<void> {
  const config = await locate(configOf(cli, { data: options.data }), 'databaseUrl', 'natsUrl', 'redisUrl');
  for (;;) {
    const status = await collect(config);
    const text = options.json ? JSON.stringify(status) : statusText(status, cli.out);
    await cli.out.line(options.watch && !options.json && cli.out.terminal ? clearScreen + text : text);
    if (!options.watch && !status.healthy) throw new Ended(1);
    if (options.watch) await pause(watchMs, cli.signal);
    if (!options.watch || cli.signal.aborted) return;
  }
}

/** What the status takes from Redis. */
interface InRedis {
  readonly offsets: readonly StoredOffset[];
  readonly connections: ConnectionsStatus;
  readonly rebuilds: readonly RebuildStatus[];
}

/** What the status takes from PostgreSQL. */
interface InPostgres {
  readonly offsets: readonly StoredOffset[];
  readonly slot: SlotStatus | undefined;
  readonly alerts: AlertsStatus | undefined;
  readonly rebuilds: readonly RebuildStatus[];
}

/** Asks all three servers; one that does not answer is a problem, not the end. */
async function collect(config: Target): Promise<Status> {
  const problems: string[] = [];
  const attempt = async <T>(work: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await work();
    } catch (error) {
      problems.push(messageOf(error));
      return undefined;
    }
  };
  const quiet = silentLogger();
  const inRedis = attempt(() => ofRedis(config));
  const inPostgres = attempt(() => withPostgres(config, quiet, (pool) => ofPostgres(pool, config.slot)));
  const stored = Promise.all([inRedis, inPostgres]).then((parts) =>
    parts.some((part) => part) ? parts.flatMap((part) => part?.offsets ?? []) : undefined,
  );
  const [postgres, held, redis] = await Promise.all([
    inPostgres,
    attempt(() => withNats(config, quiet, (connection) => ofNats(connection, config, stored, attempt))),
    inRedis,
  ]);
  const { log, processors, backfills, ...letters } = held ?? nothingHeld;
  const { slot, alerts } = postgres ?? { slot: undefined, alerts: undefined };
  const rebuilds = postgres || redis ? [...(redis?.rebuilds ?? []), ...(postgres?.rebuilds ?? [])] : undefined;
  const parts = { log, slot, processors, ...letters, alerts, backfills, rebuilds, connections: redis?.connections };
  if (!slot && !problems.some((problem) => problem.startsWith('PostgreSQL')))
    problems.push(`there is no replication slot ${config.slot}: capture has never run on this database, or was detached`);
  problems.push(...problemsOf(parts, config.tick));
  return { healthy: problems.length === 0, problems, ...parts };
}

type InNats = Pick<Status, 'log' | 'processors' | 'deadLetters' | 'deadLettersOf' | 'backfills'>;

const nothingHeld: InNats = {
  ...{ log: undefined, processors: undefined },
  ...{ deadLetters: undefined, deadLettersOf: undefined, backfills: undefined },
};

async function ofNats(
  connection: NatsConnection,
  config: Target,
  stored: Promise<readonly StoredOffset[] | undefined>,
  attempt: <T>(work: () => Promise<T>) => Promise<T | undefined>,
): Promise<InNats> {
  const letters = (await attempt(() => deadLetterCounts(connection))) ?? { deadLetters: undefined, deadLettersOf: undefined };
  const backfills = await attempt(() => copiesUnderWay(connection, config));
  const events = await attempt(() => JetStreamLog.open(connection, config, silentLogger()));
  if (!events) return { ...nothingHeld, ...letters, backfills };
  try {
    // Before the log is asked: an offset of after that may be beyond its end.
    const offsets = await stored;
    const log = await attempt(() => logStatus(events));
    const processors = log && offsets && (await attempt(() => Promise.all(offsets.map((offset) => lagOf(offset, events, log)))));
    return { log, processors, ...letters, backfills };
  } finally {
    events.close();
  }
}

async function ofPostgres(pool: PgPool, slot: string): Promise<InPostgres> {
  const offsets = await databaseOffsets(pool);
  return { offsets, slot: await slotStatus(pool, slot), alerts: await alertsStatus(pool), rebuilds: await databaseRebuilds(pool) };
}

async function ofRedis(config: Target): Promise<InRedis> {
  const redis = await connectRedis(config.redisUrl, silentLogger(), { signal: AbortSignal.timeout(5_000) }).catch(
    unreachable('Redis', config, 'redisUrl'),
  );
  try {
    const offsets = await storedOffsets(redis);
    return { offsets, connections: connectionsStatus(await listedConnections(redis)), rebuilds: await redisRebuilds(redis, offsets) };
  } finally {
    closeRedis(redis);
  }
}

/** None while there is no record of a log: capture makes it. */
async function copiesUnderWay(connection: NatsConnection, config: Target): Promise<readonly BackfillStatus[]> {
  const bucket = await findBucket(connection, recordBucket(config));
  return bucket ? backfillsStatus(new LogRecord(bucket)) : [];
}

async function deadLetterCounts(connection: NatsConnection): Promise<Required<Pick<Status, 'deadLetters' | 'deadLettersOf'>>> {
  const counts = await (await DeadLetterDesk.open(connection)).counts();
  return { deadLetters: [...counts.values()].reduce((sum, count) => sum + count, 0), deadLettersOf: Object.fromEntries(counts) };
}
