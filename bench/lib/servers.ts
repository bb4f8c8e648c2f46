import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { serverAccount } from '../../deploy/local/account.ts';
import { cacheDirectory } from '../../deploy/local/paths.ts';
import { postgresDirectory } from '../../deploy/local/postgres.ts';
import { findProgram } from '../../deploy/local/programs.ts';
import { loadSecrets } from '../../deploy/local/secrets.ts';
import { startLocalServices } from '../../deploy/local/services.ts';
import { connectNats, jetstreamManager, type JetStreamManager, type NatsConnection } from '../../pipeline/clients/nats.ts';
import { connectPostgres, escapeIdentifier, type PgClient } from '../../pipeline/clients/postgres.ts';
import { createLogger, silentLogger } from '../../pipeline/runtime/logging.ts';
import type { Scope } from './scope.ts';
import type { Watched } from './usage.ts';

/** The servers of a bench, on data of their own. */
export interface BenchServers {
  /** Superuser of the whole cluster; `freshDatabase` gives a database to work in. */
  readonly databaseUrl: string;
  /** The NATS users: `capture` writes the log as in production, `operator` may do everything. */
  readonly nats: { readonly capture: string; readonly operator: string };
  readonly redisUrl: string;
  readonly connection: NatsConnection;
  readonly jsm: JetStreamManager;
  /** Of the same installation as the server. */
  readonly pgRecvlogical: string;
  readonly data: string;
  /** PostgreSQL and NATS, to be watched. */
  readonly watched: readonly Watched[];
  readonly redis: Watched;
}

/** Starts local servers in a temporary directory; the scope stops them and removes it. */
export async function startServers(scope: Scope, signal: AbortSignal, parent: string = tmpdir()): Promise<BenchServers> {
  const data = mkdtempSync(join(parent, 'headwater-bench-'));
  // PostgreSQL runs under an account of its own when we are root.
  chmodSync(data, 0o755);
  scope.defer(() => removeData(data));
  const log = createLogger('warn', false);
  const services = await startLocalServices({ data, need: { postgres: true, nats: true, redis: true }, install: true, log, signal });
  scope.defer(() => services.stop());
  const { databaseUrl, nats, redisUrl, pids } = services;
  if (databaseUrl === undefined || nats === undefined || redisUrl === undefined) throw new Error('a server is missing');
  const connection = await connectNats(nats.operator, 'bench', silentLogger());
  scope.defer(() => connection.close());
  const jsm = await jetstreamManager(connection, { timeout: 10_000 });
  const watched = [
    { process: 'nats-server', pid: pids.nats! },
    { process: 'PostgreSQL', pid: pids.postgres!, tree: true },
  ];
  const redis = { process: 'Redis', pid: pids.redis! };
  return { databaseUrl, nats, redisUrl, connection, jsm, pgRecvlogical: await findPgRecvlogical(data), data, watched, redis };
}

/** Removes what the servers left, wherever they put it. */
async function removeData(data: string): Promise<void> {
  if (existsSync(join(data, 'secrets.json'))) {
    const postgres = postgresDirectory(data, await serverAccount(), loadSecrets(data).postgres);
    if (dirname(postgres) !== data) rmSync(dirname(postgres), { recursive: true, force: true });
  }
  rmSync(data, { recursive: true, force: true });
}

async function findPgRecvlogical(data: string): Promise<string> {
  const server = await findProgram('postgres', { cache: cacheDirectory(data), account: await serverAccount() });
  const beside = server && join(dirname(realpathSync(server.path)), 'pg_recvlogical');
  return beside !== undefined && existsSync(beside) ? beside : 'pg_recvlogical';
}

/** A connection that the scope ends. */
export async function sqlClient(url: string, scope: Scope): Promise<PgClient> {
  const client = await connectPostgres(url, 'headwater bench', silentLogger());
  scope.defer(() => client.end());
  return client;
}

/** Makes a database and returns its URL; the scope removes it, with its slots and with every stream of the NATS server. */
export async function freshDatabase({ databaseUrl, jsm }: BenchServers, scope: Scope, signal: AbortSignal): Promise<string> {
  const name = `bench_${randomBytes(4).toString('hex')}`;
  const administrator = await sqlClient(databaseUrl, scope);
  await administrator.query(`CREATE DATABASE ${escapeIdentifier(name)}`);
  scope.defer(async () => {
    // The servers are about to go with all their data.
    if (signal.aborted) return;
    await dropDatabase(administrator, name);
    for await (const stream of jsm.streams.list()) await jsm.streams.delete(stream.config.name);
  });
  const url = new URL(databaseUrl);
  url.pathname = `/${name}`;
  return url.toString();
}

/** A slot keeps its database from being dropped, and is released only some time after its reader has gone. */
async function dropDatabase(administrator: PgClient, name: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await administrator.query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1', [name]);
      await administrator.query(`DROP DATABASE ${escapeIdentifier(name)} WITH (FORCE)`);
      return;
    } catch (error) {
      if (attempt === 100) throw error;
      await sleep(50);
    }
  }
}
