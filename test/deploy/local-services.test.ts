import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { serverAccount } from '../../deploy/local/account.ts';
import { postgresDirectory } from '../../deploy/local/postgres.ts';
import { findProcesses, waitUntil } from '../../deploy/local/processes.ts';
import { loadSecrets } from '../../deploy/local/secrets.ts';
import { startLocalServices, type LocalServices } from '../../deploy/local/services.ts';
import { connectNats, jetstreamManager } from '../../pipeline/clients/nats.ts';
import { connectPostgres } from '../../pipeline/clients/postgres.ts';
import { closeRedis, connectRedis } from '../../pipeline/clients/redis.ts';
import { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { runTestProgram } from '../support/programs.ts';
import { removeData, temporaryDirectory } from '../support/servers.ts';

const all = { postgres: true, nats: true, redis: true };
const log = silentLogger();
const start = (data: string): Promise<LocalServices> => startLocalServices({ data, need: all, install: true, log });

/** Server processes that work on this data. */
async function serversOn(data: string): Promise<number[]> {
  const directory = postgresDirectory(data, await serverAccount(), loadSecrets(data).postgres);
  const found = await Promise.all([
    findProcesses('postgres', directory),
    findProcesses('nats-server', join(data, 'nats/nats.pid')),
    findProcesses('redis-server', join(data, 'redis/redis.conf')),
  ]);
  return found.flat().map((server) => server.pid);
}

async function write(services: Pick<LocalServices, 'databaseUrl' | 'nats' | 'redisUrl'>, mark: string): Promise<void> {
  const postgres = await connectPostgres(services.databaseUrl!, 'test', log);
  await postgres.query('CREATE TABLE IF NOT EXISTS marks (mark text)');
  await postgres.query('INSERT INTO marks VALUES ($1)', [mark]);
  await postgres.end();
  const nats = await connectNats(services.nats!.operator, 'test', log);
  const manager = await jetstreamManager(nats);
  await manager.streams.add({ name: 'MARKS', subjects: ['marks'] });
  await manager.jetstream().publish('marks', mark);
  await nats.close();
  const redis = await connectRedis(services.redisUrl!, log);
  await redis.rpush('marks', mark);
  closeRedis(redis);
}

async function read(services: LocalServices): Promise<{ postgres: string[]; nats: number; redis: string[] }> {
  const client = await connectPostgres(services.databaseUrl!, 'test', log);
  const { rows } = await client.query<{ mark: string }>('SELECT mark FROM marks');
  await client.end();
  const nats = await connectNats(services.nats!.operator, 'test', log);
  const { state } = await (await jetstreamManager(nats)).streams.info('MARKS');
  await nats.close();
  const redis = await connectRedis(services.redisUrl!, log);
  const list = await redis.lrange('marks', 0, -1);
  closeRedis(redis);
  return { postgres: rows.map((row) => row.mark), nats: state.messages, redis: list };
}

async function faultOf(work: Promise<unknown>): Promise<HeadwaterError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).to.be.instanceOf(HeadwaterError);
  return error as HeadwaterError;
}

describe('local services', () => {
  let data: string;
  const running: LocalServices[] = [];
  const started = async (): Promise<LocalServices> => {
    const services = await start(data);
    running.push(services);
    return services;
  };

  beforeEach(() => (data = temporaryDirectory()));
  afterEach(async () => {
    await Promise.all(running.splice(0).map((services) => services.stop()));
    expect(await serversOn(data)).to.deep.equal([]);
    await removeData(data);
  });

  it('starts all three, keeps data and addresses over a second start, and leaves no process behind', async () => {
    const first = await started();
    await write(first, 'one');
    await first.stop();
    expect(await serversOn(data)).to.deep.equal([]);
    expect(existsSync(join(data, 'lock'))).to.equal(false);
    expect(statSync(join(data, 'secrets.json')).mode & 0o777).to.equal(0o600);

    const second = await started();
    expect(second.databaseUrl).to.equal(first.databaseUrl);
    expect(await read(second)).to.deep.equal({ postgres: ['one'], nats: 1, redis: ['one'] });
  });

  it('replaces the servers that a process killed with -9 left behind, and continues on their data', async () => {
    const program = runTestProgram('run-services', [data]);
    const orphaned = (await program.nextLine()) as Pick<LocalServices, 'databaseUrl' | 'nats' | 'redisUrl' | 'pids'>;
    const { databaseUrl, nats, redisUrl } = orphaned;
    await write(orphaned, 'before');
    program.child.kill('SIGKILL');
    await program.ended;
    expect(await serversOn(data)).to.include.members(Object.values(orphaned.pids));

    const services = await started();
    expect(await read(services)).to.deep.equal({ postgres: ['before'], nats: 1, redis: ['before'] });
    expect(await serversOn(data)).to.not.include.members(Object.values(orphaned.pids));
    // Roles of their own, and teams, know the servers by these.
    expect(services).to.deep.include({ databaseUrl, nats, redisUrl });
  });

  it('starts over a lock and a postmaster.pid whose process ids belong to others by now', async () => {
    await (await started()).stop();
    // Ourselves, and as what we are not: the same id, another life.
    writeFileSync(join(data, 'lock'), JSON.stringify({ pid: process.pid, incarnation: 'another boot/1' }));
    const directory = postgresDirectory(data, await serverAccount(), loadSecrets(data).postgres);
    writeFileSync(join(directory, 'postmaster.pid'), `${process.ppid}\n${directory}\n1\n1\n\n127.0.0.1\n`);
    const services = await started();
    expect(JSON.parse(readFileSync(join(data, 'lock'), 'utf8'))).to.include({ pid: process.pid });
    expect(services.databaseUrl).to.be.a('string');
  });

  it('starts a server again that dies, on the same port and data', async () => {
    const services = await started();
    await write(services, 'one');
    const before = services.pids;
    for (const pid of Object.values(before)) process.kill(pid, 'SIGKILL');
    const replaced = await waitUntil(
      () => Object.entries(services.pids).every(([name, pid]) => pid !== before[name as keyof typeof before]),
      20_000,
    );
    expect(replaced).to.equal(true);
    await waitUntil(async () => read(services).then(Boolean, () => false), 20_000);
    expect(await read(services)).to.deep.equal({ postgres: ['one'], nats: 1, redis: ['one'] });
  });

  it('stops what it has begun when it is told to give up', async () => {
    const cancel = new AbortController();
    const starting = startLocalServices({ data, need: all, install: true, log, signal: cancel.signal });
    setTimeout(() => cancel.abort(new Error('enough')), 400);
    expect(await starting.catch((error: unknown) => (error as Error).message)).to.equal('enough');
    expect(await serversOn(data)).to.deep.equal([]);
    const services = await started();
    await write(services, 'later');
    expect(await read(services)).to.include({ nats: 1 });
  });

  it('says why a server cannot start, with the end of its log', async () => {
    await (await started()).stop();
    writeFileSync(join(data, 'redis/appendonlydir/appendonly.aof.manifest'), 'nonsense\n');
    const error = await faultOf(start(data));
    expect(error.code).to.equal('server_failed');
    expect(error.message).to.match(/^Redis ended with code 1; the end of its log:[^]*AOF manifest/);
    expect(error.hint).to.contain(join(data, 'logs/redis.log'));
    expect(await serversOn(data)).to.deep.equal([]);
  });
});

describe('local services that run', () => {
  let data: string;
  let services: LocalServices;
  before(async () => {
    data = temporaryDirectory();
    services = await start(data);
  });
  after(async () => {
    await services.stop();
    await removeData(data);
  });

  it('configures PostgreSQL for logical replication, durable, on loopback only, for a superuser with a password', async () => {
    const { databaseUrl } = services;
    const client = await connectPostgres(databaseUrl!, 'test', log);
    const { rows } = await client.query<{ name: string; setting: string }>(
      `SELECT name, setting FROM pg_settings WHERE name IN ('wal_level', 'fsync', 'synchronous_commit', 'full_page_writes', 'listen_addresses', 'unix_socket_directories', 'server_encoding')`,
    );
    const settings = Object.fromEntries(rows.map((row) => [row.name, row.setting]));
    const { rows: roles } = await client.query<{ me: string; super: boolean; secret: string }>(
      `SELECT rolname AS me, rolsuper AS super, left(rolpassword, 13) AS secret FROM pg_authid WHERE rolname = current_user`,
    );
    await client.end();
    expect(settings).to.deep.equal({
      wal_level: 'logical',
      fsync: 'on',
      synchronous_commit: 'on',
      full_page_writes: 'on',
      listen_addresses: '127.0.0.1',
      unix_socket_directories: '',
      server_encoding: 'UTF8',
    });
    expect(roles).to.deep.equal([{ me: 'headwater', super: true, secret: 'SCRAM-SHA-256' }]);
    const open = new URL(databaseUrl!);
    open.password = 'wrong';
    expect(String(await connectPostgres(open.toString(), 'test', log).catch((error: unknown) => error))).to.match(
      /password authentication failed/,
    );
  });

  it('gives Redis a password, an append-only file, and nothing is evicted', async () => {
    const { redisUrl } = services;
    const redis = await connectRedis(redisUrl!, log);
    const settings: Record<string, unknown> = {};
    for (const name of ['appendonly', 'appendfsync', 'maxmemory-policy', 'bind']) settings[name] = (await redis.config('GET', name))[1];
    closeRedis(redis);
    expect(settings).to.deep.equal({ appendonly: 'yes', appendfsync: 'everysec', 'maxmemory-policy': 'noeviction', bind: '127.0.0.1' });
    expect(new URL(redisUrl!).password).to.have.length.greaterThan(20);
  });

  it('refuses a second live process on the same data, and names the first', async () => {
    const error = await faultOf(start(data));
    expect(error.reaction).to.equal('refused');
    expect(error.code).to.equal('data_in_use');
    expect(error.message).to.contain(String(process.pid));
  });
});
