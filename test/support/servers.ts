import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { serverAccount } from '../../deploy/local/account.ts';
import { postgresDirectory } from '../../deploy/local/postgres.ts';
import { loadSecrets } from '../../deploy/local/secrets.ts';
import { startLocalServices, type LocalServices } from '../../deploy/local/services.ts';
import { connectPostgres, escapeIdentifier } from '../../pipeline/clients/postgres.ts';
import { createLogger, silentLogger } from '../../pipeline/runtime/logging.ts';

/** Real servers, shared by all tests of a run; each test works in a database, stream and key prefix of its own. */
export interface TestServers {
  /** Superuser of the whole cluster; `freshDatabase` gives a database to work in. */
  readonly databaseUrl: string;
  /** The NATS user `operator`, who may do everything. */
  readonly natsUrl: string;
  /** The NATS URLs of each role, with the permissions of nats.conf (which know only the default names of streams). */
  readonly nats: NonNullable<LocalServices['nats']>;
  readonly redisUrl: string;
}

let running: Promise<{ servers: TestServers; stop(): Promise<void> }> | undefined;

/** Starts the servers at the first call; the hooks in hooks.ts stop them at the end of the run. */
export async function testServers(): Promise<TestServers> {
  running ??= start();
  return (await running).servers;
}

/** Stops the servers and removes their data, if a test used them. */
export async function stopTestServers(): Promise<void> {
  const started = running;
  running = undefined;
  await (await started?.catch(() => undefined))?.stop();
}

async function start(): Promise<{ servers: TestServers; stop(): Promise<void> }> {
  const data = temporaryDirectory();
  const log = createLogger(process.env['TEST_LOG_LEVEL'] ?? 'error');
  const services = await startLocalServices({ data, need: { postgres: true, nats: true, redis: true }, install: true, log });
  const { databaseUrl, nats, redisUrl } = services;
  if (databaseUrl === undefined || nats === undefined || redisUrl === undefined) throw new Error('a server is missing');
  const stop = async (): Promise<void> => {
    await services.stop();
    await removeData(data);
  };
  return { servers: { databaseUrl, natsUrl: nats.operator, nats, redisUrl }, stop };
}

/** An empty directory that other accounts may enter, as PostgreSQL must when the tests run as root. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'headwater-test-'));
  chmodSync(directory, 0o755);
  return directory;
}

/** Removes the data of local services, wherever they put it. */
export async function removeData(data: string): Promise<void> {
  const postgres = postgresDirectory(data, await serverAccount(), loadSecrets(data).postgres);
  // Outside the data directory it has one of its own.
  if (dirname(postgres) !== data) rmSync(dirname(postgres), { recursive: true, force: true });
  rmSync(data, { recursive: true, force: true });
}

/** A database of a test's own. */
export interface FreshDatabase {
  readonly url: string;
  readonly name: string;
  /** Removes it, with the replication slots in it and whoever is still connected. */
  drop(): Promise<void>;
}

export async function freshDatabase(): Promise<FreshDatabase> {
  const { databaseUrl } = await testServers();
  const name = `test_${random()}`;
  await asAdministrator(databaseUrl, [`CREATE DATABASE ${escapeIdentifier(name)}`]);
  const url = new URL(databaseUrl);
  url.pathname = `/${name}`;
  return { url: url.toString(), name, drop: () => dropDatabase(databaseUrl, name) };
}

async function dropDatabase(databaseUrl: string, name: string): Promise<void> {
  // A slot keeps its database from being dropped, and an active slot is released only some time after its walsender has ended.
  const release = `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = '${name}' AND active`;
  const dropSlots = `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '${name}'`;
  for (let attempt = 1; ; attempt++) {
    try {
      return await asAdministrator(databaseUrl, [release, dropSlots, `DROP DATABASE IF EXISTS ${escapeIdentifier(name)} WITH (FORCE)`]);
    } catch (error) {
      if (attempt === 20) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

async function asAdministrator(url: string, statements: readonly string[]): Promise<void> {
  const client = await connectPostgres(url, 'test support', silentLogger());
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

/** A name for a stream or bucket of a test's own; also usable as a subject's first token. */
export function freshStreamName(): string {
  return `T${random().toUpperCase()}`;
}

function random(): string {
  return randomBytes(6).toString('hex');
}
