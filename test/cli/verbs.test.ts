import { expect } from 'chai';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseCatalog } from '../../schemas/catalog-file.ts';
import { connectNats, type NatsConnection } from '../../pipeline/clients/nats.ts';
import { connectPostgres } from '../../pipeline/clients/postgres.ts';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { writeRunFile } from '../../cli/run-file.ts';
import { freshDatabase, freshStreamName, testServers, type FreshDatabase } from '../support/servers.ts';
import { until } from '../support/role-context.ts';
import { callCli } from './support/call-cli.ts';
import { runCli, startCli } from './support/run-cli.ts';

describe('command line on real servers', function () {
  this.timeout(120_000);
  const log = silentLogger();
  let database: FreshDatabase;
  let folder: string;
  let env: Record<string, string>;

  before(async () => {
    database = await freshDatabase();
    const { natsUrl, redisUrl } = await testServers();
    folder = mkdtempSync(join(tmpdir(), 'headwater-cli-'));
    env = {
      DATABASE_URL: database.url,
      NATS_URL: natsUrl,
      REDIS_URL: redisUrl,
      HEADWATER_STREAM: freshStreamName(),
      HEADWATER_SUBJECT: freshStreamName(),
    };
  });

  after(async () => {
    rmSync(folder, { recursive: true, force: true });
    await database.drop();
  });

  it('finds the servers in the run.json of a running up', async () => {
    const { DATABASE_URL = '', NATS_URL = '', REDIS_URL = '' } = env;
    await writeRunFile(folder, {
      gateway: 'http://127.0.0.1:1',
      databaseUrl: DATABASE_URL,
      natsUrl: NATS_URL,
      redisUrl: REDIS_URL,
      key: 'hw_x',
    });
    const { code, stdout } = await runCli(['migrate', '--json', '--data', folder]);
    expect(code).to.equal(0);
    expect((JSON.parse(stdout) as { applied: string[] }).applied.slice(0, 2)).to.deep.equal([
      'headwater/0001_schema',
      'headwater/0002_alerts',
    ]);
  });

  it('keys create prints the key alone on stdout; revoke by name, and list shows it', async () => {
    await callCli(['migrate'], env);
    const created = await runCli(['keys', 'create', 'bot', '--owner', 'alice', '--scopes', 'read:prices,alerts', '--expires', '30d'], env);
    expect(created.stdout).to.match(/^hw_[\w-]{43}\n$/);
    expect((await callCli(['keys', 'revoke', 'bot'], env)).code).to.equal(0);
    const listed = await callCli(['keys', 'list', '--json'], env);
    expect(listed.stdout).to.not.include(created.stdout.trim());
    const [key] = JSON.parse(listed.stdout) as Record<string, unknown>[];
    expect(key).to.include({ name: 'bot', owner: 'alice' }).and.to.have.property('revokedAt');
    expect(key?.['scopes']).to.deep.equal(['read:prices', 'alerts']);
    expect((await callCli(['keys', 'revoke', 'nobody'], env)).code).to.equal(2);
  });

  it('catalog init writes what the loader takes, for names of any kind, and replaces nothing unasked', async () => {
    const client = await connectPostgres(database.url, 'test', log);
    await client.query(`
      CREATE TABLE public.accounts (id bigint PRIMARY KEY, owner text);
      CREATE TABLE public.history (at timestamptz, note text);
      CREATE SCHEMA "Odd schema"; CREATE TABLE "Odd schema"."a: ""b"".c #d" ("x
y" int PRIMARY KEY);
      CREATE TABLE public.parts (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE public.parts_1 PARTITION OF public.parts FOR VALUES FROM (1) TO (9)`);
    await client.end();
    const file = join(folder, 'catalog.yaml');
    const first = await runCli(['catalog', 'init', file], env);
    expect(first.code, first.stderr).to.equal(0);
    expect(first.stderr).to.include('public.history').and.not.include('public.accounts');
    const text = readFileSync(file, 'utf8');
    expect([...parseCatalog(text, file).tables.keys()]).to.deep.equal([
      'Odd schema.a: "b".c #d',
      'public.accounts',
      'public.history',
      'public.parts',
    ]);
    expect(text).to.include('# identity: the primary key (id)').and.include('# appendOnly: true');
    // The way out that the file offers is one the loader takes.
    expect(parseCatalog(text.replace('# appendOnly: true', 'appendOnly: true'), file).tables.get('public.history')).to.include({
      appendOnly: true,
    });
    expect((await callCli(['catalog', 'init', file], env)).code).to.equal(3);
    expect((await callCli(['catalog', 'init', file, '--force'], env)).code).to.equal(0);
  });

  it('says where an address came from when nothing answers there', async () => {
    const { code, stderr } = await callCli(['keys', 'list'], { DATABASE_URL: 'postgres://me:hunter2@127.0.0.1:1/x' });
    expect(code).to.equal(1);
    expect(stderr)
      .to.match(/PostgreSQL at postgres:\/\/me:\*\*\*@127.0.0.1:1\/x does not answer/)
      .and.match(/check DATABASE_URL/);
  });

  describe('with a log', () => {
    let connection: NatsConnection;
    let events: JetStreamLog;
    const bodies = [
      `{"v":1,"type":"row","op":"update","table":"public.t","key":{"id":"9007199254740993"},"before":{"id":"9007199254740993","price":"1.10"},"after":{"id":"9007199254740993","price":"1.1000"},"at":"2026-11-22T12:00:00.123456Z"}`,
      `{"v":1,"type":"tick","at":"2026-11-22T12:00:01.000001Z"}`,
      `{"v":1,"type":"row","op":"insert","table":"public.other","key":{"id":1},"after":{"id":1,"note":"\\u001b[31mred"},"at":"2026-11-22T12:00:02.5Z"}`,
    ];

    before(async () => {
      connection = await connectNats(env['NATS_URL'] ?? '', 'test', log);
      const [stream = '', subject = ''] = [env['HEADWATER_STREAM'], env['HEADWATER_SUBJECT']];
      events = await JetStreamLog.create(connection, { stream, subject, replicas: 1, maxAgeMs: undefined, maxBytes: undefined }, log);
      const subjects = [`${subject}.public.t.update`, `${subject}._tick`, `${subject}.public.other.insert`];
      await events.append(
        bodies.map((body, i) => ({ subject: subjects[i] ?? '', data: Buffer.from(body) })),
        0,
      );
    });

    after(async () => {
      events.close();
      await connection.close();
    });

    it('tail --json gives the bytes of the log', async () => {
      const { code, stdout } = await runCli(['tail', '--from', '1', '-n', '3', '--json'], env);
      expect(code).to.equal(0);
      expect(stdout).to.equal(bodies.map((body, i) => `{"seq":${i + 1},"event":${body}}\n`).join(''));
    });

    it('tail shows what changed, and nothing a terminal would obey', async () => {
      const { stdout } = await callCli(['tail', '--from', '1', '-n', '2'], env);
      const [update, insert, ...more] = stdout.trimEnd().split('\n');
      expect(more).to.deep.equal([]);
      expect(update).to.match(/^ +1 12:00:00\.123 update +public\.t 9007199254740993 price 1\.10 → 1\.1000$/);
      expect(insert).to.match(/^ +3 .*insert +public\.other 1 note= \[31mred$/);
    });

    it('tail of one table leaves out the others', async () => {
      const { stdout } = await callCli(['tail', 'other', '--from', '1', '-n', '1', '--json'], env);
      expect(stdout).to.match(/^\{"seq":3,/);
    });

    it('tail beyond the end says what it waits for, and shows it when it comes', async () => {
      let said = '';
      const tail = callCli(['tail', '--from', '5', '-n', '1', '--json'], env, { onError: (text) => (said += text) });
      await until(() => said !== '', 20_000);
      // Longer than it takes to look whether the log is still what it was.
      await new Promise((resolve) => setTimeout(resolve, 1_500));
      for (const seq of [4, 5])
        await events.append([{ subject: `${env['HEADWATER_SUBJECT']}._tick`, data: Buffer.from(bodies[1]!) }], seq - 1);
      expect(await tail).to.deep.equal({
        code: 0,
        stdout: `{"seq":5,"event":${bodies[1]}}\n`,
        stderr: 'The log ends at 3: waiting for 5.\n',
      });
      // The next one is what everybody waits for.
      const next = new AbortController();
      const quiet = callCli(['tail', '--from', '6'], env, { signal: next.signal });
      await new Promise((resolve) => setTimeout(resolve, 500));
      next.abort();
      expect((await quiet).stderr).to.equal('');
    });

    it('tail ends with 0 on SIGTERM, and quietly when nobody reads', async () => {
      const asked = startCli(['tail', '--from', '1'], env);
      await once(asked.stdout!, 'data');
      asked.kill('SIGTERM');
      expect(await once(asked, 'exit')).to.deep.equal([0, null]);
      const unread = startCli(['tail', '--from', '1', '--json'], env);
      let stderr = '';
      unread.stderr!.on('data', (text: Buffer) => (stderr += text.toString()));
      await once(unread.stdout!, 'data');
      unread.stdout!.destroy();
      const append = setInterval(
        () =>
          void events
            .bounds()
            .then(({ last }) =>
              events.append([{ subject: `${env['HEADWATER_SUBJECT']}._tick`, data: Buffer.from(bodies[1] ?? '') }], last),
            ),
        300,
      );
      const ended = await once(unread, 'exit').finally(() => clearInterval(append));
      expect({ ended, stderr }).to.deep.equal({ ended: [0, null], stderr: '' });
    });

    it('status names what is unhealthy and exits 1', async () => {
      const { code, stdout } = await runCli(['status', '--json'], env);
      expect(code).to.equal(1);
      const status = JSON.parse(stdout) as { healthy: boolean; problems: string[]; log: { first: number; last: number } };
      expect(status.healthy).to.equal(false);
      expect(status.log.first).to.equal(1);
      expect(status.log.last).to.be.at.least(3);
      expect(status.problems.join('\n'))
        .to.match(/no replication slot headwater/)
        .and.match(/nothing has been logged for \d+ s/);
    });
  });
});
