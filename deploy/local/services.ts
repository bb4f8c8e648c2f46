import { chmodSync, existsSync, mkdirSync, realpathSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf, usage, type HeadwaterError } from '../../pipeline/runtime/errors.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import { serverAccount, type Account } from './account.ts';
import { provideProgram } from './install.ts';
import { lockData } from './lock.ts';
import { natsTrace, startNats, type NatsUrls } from './nats.ts';
import { stopOrphans } from './orphans.ts';
import { cacheDirectory, projectFile } from './paths.ts';
import { choosePorts, type Ports } from './ports.ts';
import { clusterMajor, postgresDirectory, postgresTrace, startPostgres } from './postgres.ts';
import { redisTrace, startRedis } from './redis.ts';
import { loadSecrets, type Secrets, type VapidKeys } from './secrets.ts';
import type { Server } from './server.ts';

export interface LocalServicesOptions {
  /** Directory of all that the servers keep; made if missing. */
  readonly data: string;
  /** Which servers are wanted. */
  readonly need: { readonly postgres: boolean; readonly nats: boolean; readonly redis: boolean };
  /** Whether missing programs may be installed. */
  readonly install: boolean;
  readonly log: Logger;
  /** Gives up starting; what was started is stopped again. Later it has no effect: call `stop`. */
  readonly signal?: AbortSignal;
}

/** Local servers that run, with the URLs (user and password in them) of those that were asked for. */
export interface LocalServices {
  readonly databaseUrl?: string;
  /** One URL a user of nats.conf. */
  readonly nats?: NatsUrls;
  readonly redisUrl?: string;
  /** The keys of web push that are kept with the data. */
  readonly vapid: VapidKeys;
  /** The servers' process ids; another one after a server died and was started again. */
  readonly pids: { readonly postgres?: number; readonly nats?: number; readonly redis?: number };
  /** Resolves when one of the servers dies again and again, and is no longer started. Otherwise it stays pending. */
  readonly failed: Promise<HeadwaterError>;
  /** Stops all in order, and waits for their end. Safe to call twice. */
  stop(): Promise<void>;
}

/**
 * Starts local PostgreSQL, NATS and Redis on free loopback ports, all at once, and returns when they serve. A second start
 * continues on the same data, with the same passwords and, where they are still free, the same ports. Servers that a killed
 * process has left behind are stopped first.
 * @throws HeadwaterError `data_in_use` (refused) when another process runs on this data; `program_missing` when a server is
 * not installed and could not be; `server_failed` with the end of the server's log
 */
export async function startLocalServices(options: LocalServicesOptions): Promise<LocalServices> {
  const data = prepareDirectory(options.data);
  const unlock = await lockData(data);
  try {
    return await startAll({ ...options, data }, unlock);
  } catch (error) {
    unlock();
    throw error;
  }
}

function prepareDirectory(data: string): string {
  if (!existsSync(data)) {
    mkdirSync(data, { recursive: true });
    // Whatever the umask: PostgreSQL may run as another account. What is private in it has modes of its own.
    chmodSync(data, 0o755);
  }
  const path = realpathSync(data);
  checkOwner(path);
  mkdirSync(join(path, 'logs'), { recursive: true });
  return path;
}

/** Files of another user would only fail one by one, later and less clearly. */
function checkOwner(data: string): void {
  const owner = statSync(join(data, 'secrets.json'), { throwIfNoEntry: false })?.uid;
  const us = process.getuid?.();
  if (owner === undefined || us === undefined || owner === us) return;
  throw usage(
    'data_of_another_user',
    `${data} belongs to the user with id ${owner}, and this is ${us}`,
    'run as that user, or give another directory with --data',
  );
}

/** Where each server keeps its data. */
type Directories = Readonly<Record<keyof Ports, string>>;

interface Start {
  readonly data: string;
  readonly directories: Directories;
  readonly ports: Ports;
  readonly secrets: Secrets;
  readonly account: Account | undefined;
  readonly install: boolean;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

async function startAll(options: LocalServicesOptions, unlock: () => void): Promise<LocalServices> {
  const { data, need, log } = options;
  // When one cannot start, the others stop trying.
  const cancel = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, cancel.signal]) : cancel.signal;
  signal.throwIfAborted();
  const account = need.postgres ? await serverAccount() : undefined;
  const secrets = loadSecrets(data);
  const directories: Directories = {
    postgres: postgresDirectory(data, account, secrets.postgres),
    nats: join(data, 'nats'),
    redis: join(data, 'redis'),
  };
  await stopAllOrphans(need, directories, log);
  const start: Start = {
    data,
    directories,
    // After the orphans are gone: whoever has noted the ports of the run before finds the servers there again.
    ports: await choosePorts(data),
    secrets,
    account,
    install: options.install,
    log,
    signal,
  };
  const failures: unknown[] = [];
  const begun = async <T extends Server>(needed: boolean, begin: (start: Start) => Promise<T>): Promise<T | undefined> => {
    try {
      return needed ? await begin(start) : undefined;
    } catch (error) {
      failures.push(error);
      cancel.abort(error);
      return undefined;
    }
  };
  const [p, n, r] = await Promise.all([begun(need.postgres, postgres), begun(need.nats, nats), begun(need.redis, redis)]);
  if (failures.length > 0) {
    await stopAll([p, n, r]);
    // The first is the cause; the others were told to give up.
    const [cause] = failures;
    throw cause instanceof Error ? cause : new Error(messageOf(cause));
  }
  return assemble(p, n, r, start.secrets.vapid, unlock);
}

async function stopAllOrphans(need: LocalServicesOptions['need'], directories: Directories, log: Logger): Promise<void> {
  const traces = [
    need.postgres && postgresTrace(directories.postgres),
    need.nats && natsTrace(directories.nats),
    need.redis && redisTrace(directories.redis),
  ];
  const stopped = await Promise.allSettled(traces.map(async (trace) => trace && stopOrphans(trace, log)));
  // Only when all of them have been tried: until then nobody else may have the data.
  for (const one of stopped) if (one.status === 'rejected') throw one.reason;
}

type Started<T> = (Server & T) | undefined;

function assemble(
  p: Started<{ url: string }>,
  n: Started<{ urls: NatsUrls }>,
  r: Started<{ url: string }>,
  vapid: VapidKeys,
  unlock: () => void,
): LocalServices {
  const servers = [p, n, r].filter((server) => server !== undefined);
  let stopped: Promise<void> | undefined;
  return {
    ...(p ? { databaseUrl: p.url } : {}),
    ...(n ? { nats: n.urls } : {}),
    ...(r ? { redisUrl: r.url } : {}),
    vapid,
    get pids() {
      return { ...(p ? { postgres: p.pid } : {}), ...(n ? { nats: n.pid } : {}), ...(r ? { redis: r.pid } : {}) };
    },
    failed: servers.length > 0 ? Promise.race(servers.map((server) => server.failed)) : new Promise(() => undefined),
    stop: () => (stopped ??= stopAll(servers).finally(unlock)),
  };
}

async function stopAll(servers: readonly (Server | undefined)[]): Promise<void> {
  await Promise.all(servers.map(async (server) => server?.stop()));
}

async function postgres(start: Start): Promise<Server & { url: string }> {
  const { data, ports, secrets, account, install, log, signal } = start;
  const directory = start.directories.postgres;
  if (directory !== join(data, 'postgres'))
    log.info(`PostgreSQL runs as ${account?.name}, which cannot enter ${data}: its data is in ${directory}`);
  const binary = await provideProgram('postgres', {
    cache: cacheDirectory(data),
    account,
    major: clusterMajor(directory),
    install,
    log,
    signal,
  });
  return startPostgres({
    binary,
    directory,
    account,
    logFile: join(data, 'logs/postgres.log'),
    port: ports.postgres,
    password: secrets.postgres,
    log,
    signal,
  });
}

async function nats({ data, directories, ports, secrets, install, log, signal }: Start): Promise<Server & { urls: NatsUrls }> {
  const binary = await provideProgram('nats', { cache: cacheDirectory(data), install, log, signal });
  return startNats({
    binary,
    configuration: projectFile('nats.conf'),
    directory: directories.nats,
    logFile: join(data, 'logs/nats.log'),
    port: ports.nats,
    passwords: secrets.nats,
    log,
    signal,
  });
}

async function redis({ data, directories, ports, secrets, install, log, signal }: Start): Promise<Server & { url: string }> {
  const binary = await provideProgram('redis', { cache: cacheDirectory(data), install, log, signal });
  return startRedis({
    binary,
    directory: directories.redis,
    logFile: join(data, 'logs/redis.log'),
    port: ports.redis,
    password: secrets.redis,
    log,
    signal,
  });
}
