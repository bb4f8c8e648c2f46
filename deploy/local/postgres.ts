import { createHash, randomBytes } from 'node:crypto';
import { chownSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { connectPostgres, escapeIdentifier } from '../../pipeline/clients/postgres.ts';
import { HeadwaterError, messageOf } from '../../pipeline/runtime/errors.ts';
import { silentLogger, type Logger } from '../../pipeline/runtime/logging.ts';
import { canReach, type Account } from './account.ts';
import { exec } from './exec.ts';
import { findProcesses } from './processes.ts';
import type { Binary } from './programs.ts';
import type { ServerTrace } from './orphans.ts';
import { startServer, type Server, type ServerSpec } from './server.ts';

/** The role (a superuser: it is the developer's own database) and the database. */
const user = 'headwater';
const database = 'headwater';

export interface PostgresOptions {
  readonly binary: Binary;
  /** From `postgresDirectory`. */
  readonly directory: string;
  readonly account: Account | undefined;
  readonly logFile: string;
  readonly port: number;
  readonly password: string;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/**
 * Where the cluster lives: in the data directory, or under /var/lib where the account that PostgreSQL runs as cannot get
 * at the data directory (one below /root, say). There the password is part of the name, since it is kept in the data
 * directory: when that is removed and made anew, so is the cluster.
 */
export function postgresDirectory(data: string, account: Account | undefined, password: string): string {
  const directory = join(data, 'postgres');
  if (account === undefined || canReach(account, directory)) return directory;
  return join('/var/lib/headwater', createHash('sha256').update(`${data}\n${password}`).digest('hex').slice(0, 12), 'postgres');
}

/** The major version that made the cluster, or undefined when there is none yet. */
export function clusterMajor(directory: string): string | undefined {
  const path = join(directory, 'PG_VERSION');
  return existsSync(path) ? readFileSync(path, 'utf8').trim() : undefined;
}

/** Starts the local PostgreSQL; its URL names the role `headwater` and its database. */
export async function startPostgres(options: PostgresOptions): Promise<Server & { url: string }> {
  const { directory, log, signal } = options;
  if (clusterMajor(directory) === undefined) {
    log.info(`PostgreSQL ${options.binary.version}: creating the database cluster in ${directory}`);
    await createCluster(options);
  }
  await forgetReusedPid(directory);
  const server = await startServer(specOf(options), options.port, log, signal);
  const url = (name: string): string => `postgres://${user}:${options.password}@127.0.0.1:${server.port}/${name}`;
  try {
    await createDatabase(url('postgres'));
    return Object.assign(server, { url: url(database) });
  } catch (error) {
    await server.stop();
    throw error;
  }
}

/** What the server's processes on this directory are known by. */
export function postgresTrace(directory: string): ServerTrace {
  // SIGINT is the fast shutdown: sessions are ended, everything is flushed.
  return { label: 'PostgreSQL', program: 'postgres', marker: directory, stopSignal: 'SIGINT', forceSignal: 'SIGQUIT' };
}

function specOf({ binary, directory, account, logFile, password }: PostgresOptions): ServerSpec {
  return {
    ...postgresTrace(directory),
    path: binary.path,
    account,
    logFile,
    launch: (port) => ({
      args: ['-D', directory, '-p', String(port), ...Object.entries(serverSettings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
      env: { ...binary.env, LC_MESSAGES: 'C' },
    }),
    probe: async (port) => {
      const client = await connectPostgres(`postgres://${user}:${password}@127.0.0.1:${port}/postgres`, 'headwater start', silentLogger(), {
        connectionTimeoutMillis: 4_000,
      });
      await client.end();
    },
  };
}

/** Given on the command line, so that they hold whatever postgresql.conf says; everything else can be changed there. */
const serverSettings: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  wal_level: 'logical',
  max_wal_senders: '20',
  max_replication_slots: '20',
};

/** Creates the cluster beside its place and moves it there whole: one that was interrupted is simply made again. */
async function createCluster({ binary, directory, account, password, signal }: PostgresOptions): Promise<void> {
  const parent = dirname(directory);
  mkdirSync(parent, { recursive: true, mode: 0o755 });
  const fresh = `${directory}.new`;
  const passwordFile = `${directory}.password-${randomBytes(4).toString('hex')}`;
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(fresh, { mode: 0o700 });
  writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 });
  try {
    if (account) for (const path of [fresh, passwordFile]) chownSync(path, account.uid, account.gid);
    await initialise(binary, fresh, passwordFile, account, signal);
    renameSync(fresh, directory);
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw new HeadwaterError('initdb_failed', `PostgreSQL's database cluster could not be created in ${directory}: ${messageOf(error)}`, {
      cause: error,
    });
  } finally {
    rmSync(passwordFile, { force: true });
    rmSync(fresh, { recursive: true, force: true });
  }
}

async function initialise(
  binary: Binary,
  directory: string,
  passwordFile: string,
  account: Account | undefined,
  signal: AbortSignal,
): Promise<void> {
  const run = (locale: string): Promise<unknown> =>
    exec(
      join(dirname(binary.path), 'initdb'),
      ['-D', directory, '-U', user, '--auth=scram-sha-256', `--pwfile=${passwordFile}`, '--encoding=UTF8', `--locale=${locale}`],
      {
        cwd: '/',
        env: { PATH: process.env['PATH'], ...binary.env, TZ: 'UTC', LC_MESSAGES: 'C' },
        uid: account?.uid,
        gid: account?.gid,
        signal,
      },
    );
  try {
    await run('C.UTF-8');
  } catch (error) {
    // macOS and small containers have no C.UTF-8. initdb has emptied the directory again.
    if (!/locale/i.test(messageOf(error))) throw error;
    await run('C');
  }
}

/**
 * PostgreSQL refuses to start while postmaster.pid names a living process, whichever it is: after a crash of the machine
 * that id may belong to another program by now. No server runs on this directory (the data lock is ours), or it is an
 * orphan, which is found by its command line and keeps its file.
 */
async function forgetReusedPid(directory: string): Promise<void> {
  const path = join(directory, 'postmaster.pid');
  if (!existsSync(path)) return;
  const pid = Number(readFileSync(path, 'utf8').split('\n')[0]);
  const servers = await findProcesses('postgres', directory);
  if (!servers.some((server) => server.pid === pid) && isAlive(pid)) rmSync(path, { force: true });
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function createDatabase(url: string): Promise<void> {
  const client = await connectPostgres(url, 'headwater start', silentLogger());
  try {
    const { rowCount } = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [database]);
    if (rowCount === 0) await client.query(`CREATE DATABASE ${escapeIdentifier(database)}`);
    // The role is named like the schema of Headwater's own tables, where a CREATE TABLE without schema would end up otherwise.
    await client.query(`ALTER ROLE ${escapeIdentifier(user)} SET search_path = public`);
  } finally {
    await client.end();
  }
}
