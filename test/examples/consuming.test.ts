import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { cacheDirectory } from '../../deploy/local/paths.ts';
import { connectPostgres, type PgClient } from '../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { startTeamServer, type TeamEnvironment, type TeamServer } from '../pipeline/consumers/team-server.ts';
import { projectRoot } from '../project-root.ts';
import { until } from '../support/role-context.ts';
import { rowEvent } from '../support/row-events.ts';
import { freshDatabase } from '../support/servers.ts';
import { tcpProxy } from '../support/tcp-proxy.ts';

const root = projectRoot();
const source = (name: string): string => join(root, 'examples', 'consuming', name);

/** A program of the examples, compiled or from source as the tests themselves run. */
function start(name: string, env: Readonly<Record<string, string>>): ChildProcess {
  const compiled = import.meta.url.endsWith('.js');
  const [command, ...args] = name.endsWith('.py')
    ? [python() ?? '', source(name)]
    : compiled
      ? [process.execPath, join(root, 'dist', 'examples', 'consuming', name.replace('.ts', '.js'))]
      : [process.execPath, '--import', 'tsx', source(name)];
  const child = spawn(command, args, { cwd: root, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors = (errors + text).slice(-4_000)));
  return child;
}

let errors = '';
let foundPython: string | false | undefined;

/** A Python with nats-py: the machine's own, or an environment in the cache that is made once, where packages can be installed. */
function python(): string | undefined {
  foundPython ??= findPython() ?? false;
  return foundPython === false ? undefined : foundPython;
}

function findPython(): string | undefined {
  const works = (path: string): boolean => spawnSync(path, ['-c', 'import nats.js'], { timeout: 20_000 }).status === 0;
  if (works('python3')) return 'python3';
  const environment = join(cacheDirectory(join(root, '.headwater')), 'python');
  const own = join(environment, 'bin', 'python');
  if (existsSync(own) && works(own)) return own;
  if (spawnSync('python3', ['-m', 'venv', environment], { timeout: 60_000 }).status !== 0) return undefined;
  spawnSync(own, ['-m', 'pip', 'install', '--quiet', '--retries', '1', 'nats-py==2.15.0'], { timeout: 90_000 });
  return works(own) ? own : undefined;
}

/** What exactly-once.ts has counted so far. */
async function sumIn(client: PgClient): Promise<number> {
  const sum = await client.query<{ n: string }>('SELECT coalesce(sum(changes), 0) AS n FROM price_changes').catch(() => undefined);
  return Number(sum?.rows[0]?.n ?? 0);
}

/** What exactly_once.py has counted so far. */
function sumInSqlite(file: string): Promise<number> {
  const query = `import sqlite3,sys; print(sqlite3.connect(sys.argv[1], timeout=20).execute("SELECT coalesce(sum(changes), 0) FROM price_changes").fetchone()[0])`;
  const sum = spawnSync(python() ?? '', ['-c', query, file], { encoding: 'utf8' }).stdout.trim();
  return Promise.resolve(Number(sum || 0));
}

async function kill(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  await once(child, 'close');
}

describe('the examples of docs/consuming.md', function () {
  this.timeout(150_000);
  let server: TeamServer;
  let written = 0;
  const tokens = 7;

  /** Changes of prices, as a commit of several rows each. */
  async function change(count: number): Promise<void> {
    for (let left = count; left > 0; left -= 100) {
      const { last } = await server.log.bounds();
      const events = Array.from({ length: Math.min(left, 100) }, (_, i) => {
        const n = last + 1 + i;
        const token = { token_id: `token ${n % tokens}` };
        return rowEvent(n, 'update', { key: token, after: { ...token, price: `${n}.50` } });
      });
      await server.log.append(events, last);
    }
    written += count;
  }

  before(async function () {
    server = await startTeamServer();
  });
  beforeEach(() => (errors = ''));
  after(() => server.stop());

  it('are in the documentation as they are here', () => {
    const text = readFileSync(join(root, 'docs', 'consuming.md'), 'utf8');
    const blocks = [...text.matchAll(/```(?:ts|python)\n([\s\S]*?)```/g)].map((match) => match[1]);
    expect(blocks).to.deep.equal(
      ['read.ts', 'read.py', 'exactly-once.ts', 'exactly_once.py'].map((name) => readFileSync(source(name), 'utf8')),
    );
  });

  for (const name of ['read.ts', 'read.py']) {
    it(`${name} gets every event, and what it has not acknowledged again`, async function () {
      if (name.endsWith('.py') && !python()) return skip(this, 'no Python with nats-py, and none can be installed here');
      await change(50);
      const team = await server.add(`read-${name.slice(-2)}`);
      const out: string[] = [];
      const child = start(name, team);
      child.stdout?.setEncoding('utf8').on('data', (text: string) => out.push(text));
      const seqs = (): number[] => [...out.join('').matchAll(/^(\d+) ev\.public\.prices\.update \{/gm)].map((match) => Number(match[1]));
      try {
        await until(() => seqs().length === written, 30_000, `${name}: ${errors}`);
        await change(20);
        await until(() => seqs().length === written, 30_000, `${name}: ${errors}`);
        expect(seqs()).to.deep.equal(Array.from({ length: written }, (_, i) => i + 1));
      } finally {
        await kill(child, 'SIGKILL');
      }
    });
  }

  /** Runs it, killing it again and again while events come, and compares what it has counted. */
  async function survives(name: string, env: Readonly<Record<string, string>>, counted: () => Promise<number>): Promise<void> {
    let child = start(name, env);
    try {
      for (let kills = 0; kills < 4; kills++) {
        const before = await counted();
        await change(1_500);
        await until(async () => (await counted()) > before, 30_000, `${name}: ${errors}`);
        await kill(child, 'SIGKILL');
        await change(300);
        child = start(name, env);
      }
      await until(async () => (await counted()) >= written, 30_000, `${name}: ${errors}`);
      await change(5);
      await until(async () => (await counted()) >= written, 30_000, `${name}: ${errors}`);
      expect(await counted()).to.equal(written);
    } finally {
      await kill(child, 'SIGKILL');
    }
  }

  it('exactly-once.ts counts every change once though it is killed, and stops at a log that does not go on', async () => {
    const database = await freshDatabase();
    const client = await connectPostgres(database.url, 'test', silentLogger());
    try {
      const team = await server.add('once-ts', '--tables', 'prices');
      const env = { ...team, DATABASE_URL: database.url };
      const counted = (): Promise<number> => sumIn(client);
      await survives('exactly-once.ts', env, counted);
      const { rows } = await client.query<{ n: string }>('SELECT count(*) AS n FROM price_changes');
      expect(Number(rows[0]!.n)).to.equal(tokens);
      // A mark clears what is known: a copy of all rows follows.
      const { last } = await server.log.bounds();
      await server.log.append(
        [{ subject: 'ev._mark.snapshot', data: Buffer.from('{"v":1,"id":"x","type":"mark","mark":"snapshot","data":{"phase":"begin"}}') }],
        last,
      );
      written = 0;
      await change(3);
      const child = start('exactly-once.ts', env);
      await until(async () => (await counted()) === 3, 30_000, errors);
      await kill(child, 'SIGTERM');
      expect(child.exitCode, errors).to.equal(0);
      // The place of another log.
      await client.query(`UPDATE log_places SET id = '0000000000000000.00000000'`);
      const lost = start('exactly-once.ts', env);
      await once(lost, 'close');
      expect(lost.exitCode).to.equal(1);
      expect(errors).to.include('the log does not go on where this reader was');
    } finally {
      await client.end();
      await database.drop();
      written = (await server.log.bounds()).last;
    }
  });

  it('exactly_once.py counts every change once though it is killed', async function () {
    if (!python()) return skip(this, 'no Python with nats-py, and none can be installed here');
    const file = join(server.data, 'counted.sqlite');
    const { last } = await server.log.bounds();
    written = 0;
    const env = { ...(await server.add('once-py', '--tables', 'prices', '--from', String(last + 1))), DATABASE: file };
    await survives('exactly_once.py', env, () => sumInSqlite(file));
  });

  /** Acknowledges too late for the server, and loses its connection: what comes a second time must not count. */
  async function countsOnce(name: string, env: TeamEnvironment, counted: () => Promise<number>): Promise<void> {
    const url = new URL(env.NATS_URL);
    const proxy = await tcpProxy(Number(url.port));
    url.port = String(proxy.port);
    const child = start(name, { ...env, NATS_URL: url.toString() });
    try {
      // Less than it asks for: it waits for more, for five seconds, and all of it is sent anew meanwhile.
      await change(100);
      await until(async () => (await counted()) > 0, 30_000, `${name}: ${errors}`);
      proxy.cut();
      await change(10);
      proxy.restore();
      await until(async () => (await counted()) >= written, 30_000, `${name}: ${errors}`);
      await change(1);
      await until(async () => (await counted()) >= written, 30_000, `${name}: ${errors}`);
      expect(await counted(), errors).to.equal(written);
      expect(child.exitCode, errors).to.equal(null);
    } finally {
      await kill(child, 'SIGKILL');
      await proxy.close();
    }
  }

  it('exactly-once.ts counts what is sent to it twice once, and outlives its connection', async () => {
    const database = await freshDatabase();
    const client = await connectPostgres(database.url, 'test', silentLogger());
    try {
      const { last } = await server.log.bounds();
      written = 0;
      const team = await server.add('late-ts', '--tables', 'prices', '--from', String(last + 1), '--ack-wait', '2s');
      await countsOnce('exactly-once.ts', { ...team, DATABASE_URL: database.url }, () => sumIn(client));
    } finally {
      await client.end();
      await database.drop();
    }
  });

  it('exactly_once.py counts what is sent to it twice once, and outlives its connection', async function () {
    if (!python()) return skip(this, 'no Python with nats-py, and none can be installed here');
    const file = join(server.data, 'late.sqlite');
    const { last } = await server.log.bounds();
    written = 0;
    const team = await server.add('late-py', '--tables', 'prices', '--from', String(last + 1), '--ack-wait', '2s');
    await countsOnce('exactly_once.py', { ...team, DATABASE: file }, () => sumInSqlite(file));
  });

  it('the commands of the nats CLI read, show and acknowledge', async function () {
    const program = 'nats';
    if (spawnSync(program, ['--version']).status !== 0) return skip(this, 'the nats CLI is not installed');
    const team: TeamEnvironment = await server.add('cli');
    const [, commands = ''] = /```sh\n(nats [\s\S]*?)```/.exec(readFileSync(join(root, 'docs', 'consuming.md'), 'utf8')) ?? [];
    const { status, stdout, stderr } = spawnSync('sh', ['-ec', commands], {
      env: { ...process.env, ...team },
      encoding: 'utf8',
      timeout: 30_000,
    });
    expect(status, stderr).to.equal(0);
    expect(stdout).to.include('ev.public.prices.update');
  });
});

function skip(context: Mocha.Context, reason: string): void {
  context.test!.title += ` (left out: ${reason})`;
  context.skip();
}
