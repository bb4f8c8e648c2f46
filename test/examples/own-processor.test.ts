import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { connectNats, type NatsConnection } from '../../pipeline/clients/nats.ts';
import { connectPostgres, type PgClient } from '../../pipeline/clients/postgres.ts';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { migrate } from '../../deploy/migrate.ts';
import { projectRoot } from '../project-root.ts';
import { until } from '../support/role-context.ts';
import { rowEvent } from '../support/row-events.ts';
import { redisDatabase, type RedisDatabase } from '../support/redis-database.ts';
import { freshDatabase, freshStreamName, testServers, type FreshDatabase } from '../support/servers.ts';

const root = projectRoot();
const compiled = import.meta.url.endsWith('.js');

/** A folder of somebody's own, with Headwater installed as `npm install ../headwater` does it, and the files of the example. */
function ownProject(): string {
  const folder = mkdtempSync(join(tmpdir(), 'headwater-own-'));
  mkdirSync(join(folder, 'node_modules'));
  const installed = join(folder, 'node_modules', 'headwater');
  if (compiled) symlinkSync(root, installed);
  else {
    // From source there is no dist: the same package, whose export is the source.
    mkdirSync(installed);
    const target = join(root, 'processors', 'own-processor.ts');
    symlinkSync(join(root, 'processors'), join(installed, 'processors'));
    writeFileSync(
      join(installed, 'package.json'),
      JSON.stringify({ name: 'headwater', type: 'module', exports: { './processor': './processors/own-processor.ts' } }),
    );
    expect(existsSync(target)).to.equal(true);
  }
  for (const name of ['liquidations-daily.mjs', 'liquidation-counts.mjs'])
    copyFileSync(join(root, 'examples', 'own-processor', name), join(folder, name));
  return folder;
}

describe('examples/own-processor', function () {
  this.timeout(180_000);
  let folder: string;
  let database: FreshDatabase;
  let client: PgClient;
  let redis: RedisDatabase;
  let connection: NatsConnection;
  let log: JetStreamLog;
  let env: Record<string, string>;
  let expected: Map<string, number>;
  const children: ChildProcess[] = [];
  let errors = '';

  function start(...args: string[]): ChildProcess {
    const program = compiled
      ? [join(folder, 'node_modules', 'headwater', 'dist', 'cli', 'main.js')]
      : ['--import', pathToFileURL(join(root, 'node_modules', 'tsx', 'dist', 'loader.mjs')).href, join(root, 'cli', 'main.ts')];
    const child = spawn(process.execPath, [...program, ...args], {
      cwd: folder,
      env: { ...process.env, NODE_OPTIONS: '', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => (errors = (errors + text).slice(-6_000)));
    children.push(child);
    return child;
  }

  async function run(...args: string[]): Promise<string> {
    errors = '';
    const child = start(...args);
    const out: string[] = [];
    child.stdout?.setEncoding('utf8').on('data', (text: string) => out.push(text));
    await once(child, 'close');
    expect(child.exitCode, errors).to.equal(0);
    return out.join('');
  }

  async function liquidate(count: number): Promise<void> {
    const { last } = await log.bounds();
    const subject = env['HEADWATER_SUBJECT']!;
    const events = Array.from({ length: count }, (_, i) => {
      const n = last + 1 + i;
      const chain = ['base', 'ethereum', 'optimism'][n % 3]!;
      expected.set(chain, (expected.get(chain) ?? 0) + 1);
      const after = { id: String(n), chain, amount_usd: '0.10', liquidated_at: `2026-11-2${n % 2}T12:00:00Z` };
      const { data } = rowEvent(n, 'insert', { table: 'liquidations', key: { id: String(n) }, after });
      return { subject: `${subject}.public.liquidations.insert`, data };
    });
    await log.append(events, last);
  }

  const total = (): number => [...expected.values()].reduce((sum, n) => sum + n, 0);
  const daily = async (): Promise<readonly { chain: string; n: string; usd: string }[]> =>
    (
      await client
        .query<{ chain: string; n: string; usd: string }>(
          'SELECT chain, sum(liquidations)::text AS n, sum(usd)::text AS usd FROM headwater.liquidations_daily_live GROUP BY chain ORDER BY chain',
        )
        .catch(() => ({ rows: [] }))
    ).rows;
  const counted = async (): Promise<number> => (await daily()).reduce((sum, { n }) => sum + Number(n), 0);
  const inRedis = async (): Promise<Record<string, string>> => {
    const prefix = (await redis.client.hget('{hw}:offset:liquidation-counts', 'namespace')) ?? '{hw}';
    return redis.client.hgetall(`${prefix}:liquidation-counts`);
  };

  before(async () => {
    const { natsUrl } = await testServers();
    const logger = silentLogger();
    database = await freshDatabase();
    await migrate(database.url, { demo: false, log: logger });
    client = await connectPostgres(database.url, 'test', logger);
    redis = await redisDatabase(12);
    const [stream, subject] = [freshStreamName(), freshStreamName()];
    connection = await connectNats(natsUrl, 'test', logger);
    log = await JetStreamLog.create(connection, { stream, subject, replicas: 1, maxAgeMs: undefined, maxBytes: undefined }, logger);
    folder = ownProject();
    // The examples name the default subjects, which the servers of all tests cannot have twice.
    for (const name of ['liquidations-daily.mjs', 'liquidation-counts.mjs']) {
      const text = readFileSync(join(folder, name), 'utf8');
      writeFileSync(join(folder, name), text.replace(`'ev.public.`, `'${subject}.public.`));
    }
    expected = new Map();
    env = {
      DATABASE_URL: database.url,
      NATS_URL: natsUrl,
      REDIS_URL: redis.url,
      HEADWATER_STREAM: stream,
      HEADWATER_SUBJECT: subject,
      HEADWATER_ADMIN_PORT: '0',
      HEADWATER_PROCESSORS: './liquidations-daily.mjs,./liquidation-counts.mjs',
    };
  });

  afterEach(function () {
    if (this.currentTest?.state === 'failed') process.stderr.write(`${errors}\n`);
  });

  after(async () => {
    for (const child of children) if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await redis.close();
    log.close();
    await connection.close();
    await client.end();
    await database.drop();
    rmSync(folder, { recursive: true, force: true });
  });

  it('counts every event once, in PostgreSQL and in Redis, though it is killed', async () => {
    await liquidate(500);
    let child = start('run', 'liquidations-daily', 'liquidation-counts');
    await until(async () => (await counted()) === total(), 60_000);
    for (let kills = 0; kills < 2; kills++) {
      const before = await counted();
      await liquidate(1_000);
      await until(async () => (await counted()) > before, 60_000);
      child.kill('SIGKILL');
      await once(child, 'close');
      await liquidate(500);
      child = start('run', 'liquidations-daily', 'liquidation-counts');
    }
    await until(
      async () => (await counted()) >= total() && Object.values(await inRedis()).reduce((sum, n) => sum + Number(n), 0) >= total(),
      60_000,
      errors,
    );
    expect((await daily()).map(({ chain, n, usd }) => [chain, Number(n), usd])).to.deep.equal(
      [...expected].sort(([a], [b]) => (a < b ? -1 : 1)).map(([chain, n]) => [chain, n, (n / 10).toFixed(2)]),
    );
    expect(await inRedis()).to.deep.equal(Object.fromEntries([...expected].map(([chain, n]) => [chain, String(n)])));
  });

  it('is rebuilt while it runs: what was wrong is put right, and readers see the one or the other', async () => {
    await client.query(`UPDATE headwater.liquidations_daily SET liquidations = liquidations + 7 WHERE chain = 'base'`);
    const prefix = (await redis.client.hget('{hw}:offset:liquidation-counts', 'namespace')) ?? '{hw}';
    await redis.client.hincrby(`${prefix}:liquidation-counts`, 'base', 7);
    for (const name of ['liquidations-daily', 'liquidation-counts']) {
      await run('rebuild', name);
      await run('rebuild', name, '--drop');
    }
    await liquidate(10);
    await until(async () => (await counted()) === total(), 30_000);
    await until(async () => (await inRedis())['base'] === String(expected.get('base')), 30_000);
  });

  it('says what is wrong with a file, all at once', async () => {
    writeFileSync(join(folder, 'empty.mjs'), 'export const x = 1;\n');
    writeFileSync(join(folder, 'taken.mjs'), `export const processor = { name: 'cache', start() {} };\n`);
    const child = spawnSync(
      process.execPath,
      compiled ? [join(root, 'dist', 'cli', 'main.js'), 'run', 'cache'] : ['--import', 'tsx', join(root, 'cli', 'main.ts'), 'run', 'cache'],
      {
        cwd: compiled ? folder : root,
        env: {
          ...process.env,
          ...env,
          HEADWATER_PROCESSORS: ['empty', 'taken', 'missing'].map((name) => join(folder, `${name}.mjs`)).join(','),
        },
        encoding: 'utf8',
      },
    );
    expect(child.status).to.equal(2);
    expect(child.stderr)
      .to.include('empty.mjs: it exports no processor')
      .and.include('the name cache is one of')
      .and.include('missing.mjs: Cannot find');
  });

  it('is what the types say', function () {
    if (!compiled) this.skip();
    const options = [
      '--noEmit',
      '--allowJs',
      '--checkJs',
      '--strict',
      '--skipLibCheck',
      '--module',
      'nodenext',
      '--target',
      'es2023',
      '--types',
      '',
    ];
    const files = ['liquidations-daily.mjs', 'liquidation-counts.mjs'];
    const { status, stdout } = spawnSync(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), ...options, ...files], {
      cwd: folder,
      encoding: 'utf8',
    });
    expect(status, stdout).to.equal(0);
  });
});
