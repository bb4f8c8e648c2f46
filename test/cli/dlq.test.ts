import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { expect } from 'chai';
import { connectNats, jetstreamManager, type NatsConnection } from '../../pipeline/clients/nats.ts';
import { createPool, type PgPool } from '../../pipeline/clients/postgres.ts';
import type { NewEvent } from '../../pipeline/log/event-log.ts';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import { JetStreamDeadLetters } from '../../pipeline/runner/jetstream-dead-letters.ts';
import { DeadLetterDesk } from '../../pipeline/runner/redrive/desk.ts';
import { RedisStateStore } from '../../pipeline/runner/redis-state-store.ts';
import { startRunner } from '../../pipeline/runner/runner.ts';
import type { Role } from '../../pipeline/runtime/lifecycle.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { cacheProcessor } from '../../processors/cache/fold.ts';
import { redisCache } from '../../processors/cache/redis-cache.ts';
import { RedisRows } from '../../processors/cache/redis-rows.ts';
import { defaultCatalog } from '../../schemas/catalog.ts';
import { redisNamespace, type RedisNamespace } from '../support/redis-namespace.ts';
import { roleContext, until } from '../support/role-context.ts';
import { rowEvent } from '../support/row-events.ts';
import { freshDatabase, freshStreamName, testServers, type FreshDatabase } from '../support/servers.ts';
import { callCli } from './support/call-cli.ts';
import { startCli } from './support/run-cli.ts';

describe('dlq', function () {
  this.timeout(120_000);
  let env: Record<string, string>;
  let connection: NatsConnection;
  let processor: NatsConnection;
  let letters: JetStreamDeadLetters;
  /** Processors of a test's own: the stream is that of all tests. */
  let name: string;

  before(async () => {
    const { natsUrl, redisUrl, nats } = await testServers();
    env = { NATS_URL: natsUrl, REDIS_URL: redisUrl };
    connection = await connectNats(natsUrl, 'test', silentLogger());
    // As processors do it, who may not do everything.
    processor = await connectNats(nats.processor, 'test', silentLogger());
    letters = await JetStreamDeadLetters.open(processor);
  });
  after(async () => {
    await processor.close();
    await connection.close();
  });
  beforeEach(() => {
    name = `t${randomBytes(4).toString('hex')}`;
  });
  afterEach(async () => {
    const jsm = await jetstreamManager(connection);
    for (const of of ['', '_redrive.', '_redriven.', '_dropped.'])
      for (const rest of ['', '.>']) await jsm.streams.purge('DEADLETTERS', { filter: `dl.${of}${name}${rest}` });
  });

  const publish = (of: string, seq: number, code = 'bad_event', table = 'prices'): Promise<void> => {
    const { subject, data } = rowEvent(seq, 'update', {
      table,
      key: { id: '9007199254740993' },
      after: { id: '9007199254740993', big: 1.1 },
    });
    const text = Buffer.from(data).toString().replace('1.1', '12345678901234567890.10');
    return letters.publish({
      processor: of,
      seq,
      id: '0000000000000001.00000001',
      code,
      reason: `it is ${code}\u001b[31m`,
      stack: `Error: it is ${code}\n    at fold (fold.ts:1:1)`,
      attempts: 3,
      at: new Date(Date.now() - 3_600_000 * seq).toISOString(),
      subject,
      epoch: 'e1',
      event: Buffer.from(text),
    });
  };
  const ids = (stdout: string): string[] =>
    stdout
      .split('\n')
      .filter(Boolean)
      .map((line) => (JSON.parse(line) as { id: string }).id);

  it('says what is wrong with what it is asked, all at once, and exits 2 before anything is done', async () => {
    await publish(name, 1);
    for (const [args, message] of [
      [['show', 'nonsense'], /'nonsense' is no dead letter/],
      [['show', `${name}:99`], new RegExp(`there is no dead letter ${name}:99`)],
      [['redrive', `${name}:1`, `${name}:98`, `${name}:99`], new RegExp(`${name}:98\n.*${name}:99`)],
      [['redrive'], /say which dead letters/],
      [['redrive', `${name}:1`, '--all'], /not both/],
      [
        ['redrive', '--processor', 'notify', '--table', 'x', '--code', 'odd'],
        /--table and --match are of events[^]*--code of a notification is failed, gone, expired/,
      ],
      [['list', '--older', 'soon', '--channel', 'pigeon'], /--older[^]*--channel/],
      [['drop', `${name}:1`], /--reason is missing/],
    ] as const) {
      const { code, stderr, stdout } = await callCli(['dlq', ...args], env);
      expect({ args, code, stdout }).to.deep.equal({ args, code: 2, stdout: '' });
      expect(stderr).to.match(message).and.include('next:');
    }
    const unasked = await callCli(['dlq', 'drop', '--processor', name, '--reason', 'x'], env);
    expect([unasked.code, unasked.stderr]).to.satisfy(([code, text]: [number, string]) => code === 3 && text.includes('--yes'));
    expect(ids((await callCli(['dlq', 'list', name, '--json'], env)).stdout)).to.deep.equal([`${name}:1`]);
  });

  it('lists letters by processor, code, table, reason and age, and counts them', async () => {
    await publish(name, 1);
    await publish(`${name}.part`, 2, 'unknown_op');
    await publish(name, 30, 'bad_event', 'trades');
    const list = async (...args: string[]): Promise<string[]> => ids((await callCli(['dlq', 'list', name, '--json', ...args], env)).stdout);
    expect(await list()).to.deep.equal([`${name}:1`, `${name}.part:2`, `${name}:30`]);
    expect(await list('--code', 'unknown_op')).to.deep.equal([`${name}.part:2`]);
    expect(await list('--table', 'trades')).to.deep.equal([`${name}:30`]);
    expect(await list('--match', 'is bad', '--newer', '12h')).to.deep.equal([`${name}:1`]);
    expect(await list('--older', '1d')).to.deep.equal([`${name}:30`]);
    expect(await list('-n', '2')).to.have.length(2);
    const { stdout, stderr, code } = await callCli(['dlq', 'list', name], env);
    expect(code).to.equal(0);
    expect(stdout)
      .to.match(/ID +CODE +OF +TRIES +AGE +REASON/)
      .and.match(new RegExp(`${name}:1 +bad_event +public.prices +3 +60 min +it is bad_event \\[31m`));
    expect(stderr).to.include(`3 dead letters: ${name} 2, ${name}.part 1`);
  });

  it('says what there is when nothing is of the processor or the table that was named', async () => {
    await publish(name, 1);
    await publish(`${name}.part`, 2, 'bad_event', 'trades');
    const none = async (...args: string[]): Promise<string> => {
      const { code, stdout, stderr } = await callCli(['dlq', ...args], env);
      expect([code, stdout], stderr).to.satisfy(([ended, text]: [number, string]) => ended === 0 && !text.includes(name));
      return stderr;
    };
    const mistyped = `${name.slice(0, -1)}x`;
    // Other tests may have letters, too.
    const instead = new RegExp(`^There are no dead letters of ${mistyped}; there are of: .*; did you mean ${name}\\?\n$`);
    expect(await none('list', mistyped)).to.match(instead);
    expect(await none('redrive', '--processor', mistyped)).to.match(instead);
    expect(await none('drop', '--processor', mistyped, '--reason', 'x', '--yes')).to.match(instead);
    const tables = 'There are no dead letters of public.trade; there are of: public.prices, public.trades; did you mean public.trades?\n';
    expect(await none('list', name, '--table', 'trade')).to.equal(tables);
    expect(await none('redrive', '--processor', name, '--table', 'trade')).to.equal(tables);
    expect(await none('list', name, '--code', 'odd')).to.equal(
      `2 dead letters: ${name} 1, ${name}.part 1; none of them meets all of this.\n`,
    );
    expect((await callCli(['dlq', 'list', mistyped, '--json'], env)).stderr).to.equal('');
  });

  it('shows event, error, stack and attempts, and the event as it is in the log', async () => {
    await publish(name, 7);
    const { stdout } = await callCli(['dlq', 'show', `${name}:7`], env);
    expect(stdout)
      .to.include('0000000000000001.00000001 on ev.public.prices.update')
      .and.include('after 3 attempts')
      .and.include('at fold (fold.ts:1:1)');
    expect(stdout).to.include('"big":12345678901234567890.10').and.not.include('\u001b');
    const json = await callCli(['dlq', 'show', `${name}:7`, '--json'], env);
    expect(json.stdout).to.include('"big":12345678901234567890.10');
    expect(JSON.parse(json.stdout)).to.include({ id: `${name}:7`, code: 'bad_event', attempts: 3 });
  });

  it('drops with a reason, and shows afterwards what was dropped and why', async () => {
    for (const seq of [1, 2, 3]) await publish(name, seq);
    expect((await callCli(['dlq', 'drop', `${name}:1`, '--reason', 'test data'], env)).stdout).to.equal('Dropped: 1.\n');
    expect((await callCli(['dlq', 'drop', '--processor', name, '--reason', 'all', '--yes', '--json'], env)).stdout).to.equal(
      '{"dropped":2}\n',
    );
    expect((await callCli(['dlq', 'list', name, '--json'], env)).stdout).to.equal('');
    const { stdout } = await callCli(['dlq', 'list', name, '--dropped'], env);
    expect(stdout).to.match(new RegExp(`${name}:1 .*dropped: test data`));
    expect((await callCli(['dlq', 'show', `${name}:1`], env)).stdout).to.match(/dropped +\S+ by .*: test data/);
  });

  it('keeps a redrive that nobody answers for, says so, and is not asked twice', async () => {
    await publish(name, 1);
    await publish(name, 2);
    const first = await callCli(['dlq', 'redrive', `${name}:1`, '--wait', '1s'], env);
    expect(first.code).to.equal(1);
    expect(first.stdout).to.include('1 letter: 1 waiting');
    expect(first.stderr).to.include(`done as soon as its processor works (${name})`);
    const second = await callCli(['dlq', 'redrive', '--processor', name, '--no-wait', '--json'], env);
    expect(second.code).to.equal(0);
    expect(JSON.parse(second.stdout)).to.include({ asked: 1, already: 1, waiting: 2 });
    // Run again it waits for what has been asked for: there is nothing else to do, and it is not done.
    const third = await callCli(['dlq', 'redrive', `${name}:1`, '--wait', '1s'], env);
    expect([third.code, third.stdout]).to.deep.equal([1, '1 letter (asked for already): 1 waiting\n']);
    expect((await callCli(['dlq', 'list', name], env)).stdout.match(/to be redriven/g)).to.have.length(2);

    await publish(name, 3);
    const waiting = startCli(['dlq', 'redrive', `${name}:3`], env);
    await until(async () => (await callCli(['dlq', 'list', name, '--json'], env)).stdout.match(/"asked":true/g)?.length === 3, 30_000);
    waiting.kill('SIGINT');
    expect(await once(waiting, 'exit')).to.deep.equal([130, null]);
  });

  it('says what does not answer, and what to do', async () => {
    const { code, stderr } = await callCli(['dlq', 'list'], {
      NATS_URL: 'nats://me:hunter2@127.0.0.1:1',
      DATABASE_URL: 'postgres://127.0.0.1:1/x',
    });
    expect(code).to.equal(1);
    expect(stderr)
      .to.match(/NATS at nats:\/\/me:\*\*\*@127\.0\.0\.1:1 does not answer/)
      .and.include('check NATS_URL');
  });

  describe('of the cache', () => {
    const catalog = defaultCatalog();
    let redis: RedisNamespace;
    let stream: string;
    let log: JetStreamLog;
    let role: Role | undefined;
    let ticking: NodeJS.Timeout;
    let appending: Promise<unknown> = Promise.resolve();
    beforeEach(async () => {
      redis = await redisNamespace();
      stream = freshStreamName();
      log = await JetStreamLog.create(
        connection,
        { stream, subject: stream, replicas: 1, maxAgeMs: undefined, maxBytes: undefined },
        silentLogger(),
      );
    });
    afterEach(async () => {
      clearInterval(ticking);
      await appending;
      await role?.stop();
      log.close();
      await redis.close();
      await (await jetstreamManager(connection)).streams.delete(stream);
    });

    const append = (...events: NewEvent[]): Promise<unknown> =>
      (appending = appending.then(async () => {
        const { last } = await log.bounds();
        await log.append(
          events.map(({ subject, data }) => ({ subject: subject.replace(/^ev/, stream), data })),
          last,
        );
      }));
    /** How many letters are asked for. */
    async function asked(): Promise<number> {
      const all = await (await DeadLetterDesk.open(connection)).asked(AbortSignal.timeout(20_000));
      return [...all.values()].filter(({ processor: of }) => of === name).length;
    }
    /** The cache processor, with a bug or without. */
    function start(bug: (text: string) => boolean): void {
      const cache = cacheProcessor(catalog);
      const context = roleContext();
      role = startRunner(
        { ...context, config: { ...context.config, subject: stream } },
        {
          eventLog: log,
          deadLetters: letters,
          store: new RedisStateStore(redis.client, 'cache', redis.keys, redisCache),
          processor: {
            ...cache,
            name,
            apply(event, effects) {
              if (bug(Buffer.from(event.data).toString())) throw new TypeError('cannot read a price of this kind');
              cache.apply(event, effects);
            },
          },
        },
      );
    }

    it('finds a poison event, shows it, and redrives it after the bug is fixed; what is newer stays', async () => {
      const price = (n: number, id: string, value: string): NewEvent => rowEvent(n, 'insert', { key: { id }, after: { id, price: value } });
      const rows = new RedisRows(redis.client, catalog, redis.keys);
      const valueOf = async (id: string): Promise<string | undefined> => {
        const answer = await rows.row('public.prices', id);
        return answer.known === 'row'
          ? `${answer.seq} ${(JSON.parse(answer.event.toString()) as { after: { price: string } }).after.price}`
          : answer.known;
      };
      await append(
        price(1, 'a', '1e3'),
        price(2, 'b', '2e3'),
        price(3, 'c', '3'),
        price(4, 'd', '4e3'),
        price(5, 'b', '5'),
        rowEvent(6, 'delete', { key: { id: 'd' } }),
      );
      start((text) => text.includes('e3"'));
      await until(async () => (await callCli(['dlq', 'list', name, '--json'], env)).stdout.split('\n').length === 4, 60_000);
      expect(await Promise.all(['a', 'b', 'c', 'd'].map(valueOf))).to.deep.equal(['nothing', '5 5', '3 3', 'absent']);
      const shown = await callCli(['dlq', 'show', `${name}:1`], env);
      expect(shown.stdout).to.include('cannot read a price of this kind').and.include('"price":"1e3"').and.include('dlq.test');

      const status = JSON.parse((await callCli(['status', '--json'], { ...env, DATABASE_URL: 'postgres://127.0.0.1:1/x' })).stdout) as {
        deadLettersOf: Record<string, number>;
        problems: string[];
      };
      expect(status.deadLettersOf[name]).to.equal(3);
      expect(status.problems.join()).to.match(/dead letters: events that .* could not apply\. `headwater dlq list`/);

      let n = 6;
      ticking = setInterval(
        () =>
          void append({
            subject: `${stream}._tick`,
            data: Buffer.from(`{"v":1,"type":"tick","at":"2026-11-22T12:00:${String(n++ % 60).padStart(2, '0')}Z"}`),
          }),
        300,
      );
      const again = await callCli(['dlq', 'redrive', `${name}:1`], env);
      expect(again.code).to.equal(1);
      expect(again.stdout).to.include('1 failed again, and kept').and.include('cannot read a price of this kind');
      expect((await callCli(['dlq', 'show', `${name}:1`], env)).stdout)
        .to.include('after 6 attempts')
        .and.include('redriven in vain');

      await role!.stop();
      // Nobody is there to answer; what was asked for is waited for by whoever asks again.
      expect((await callCli(['dlq', 'redrive', `${name}:1`, `${name}:2`, '--no-wait'], env)).stdout).to.equal('2 letters: 2 waiting\n');
      const asking = callCli(['dlq', 'redrive', `${name}:2`, `${name}:4`], env);
      await until(async () => (await asked()) === 3, 60_000, 'the third letter to be asked for');
      start(() => false);
      const { code, stdout } = await asking;
      expect(code, stdout).to.equal(0);
      expect(stdout)
        .to.include('2 letters (1 of them asked for already): 2 superseded by newer events')
        .and.include(`${name}:2 superseded: event 5 is a newer one`);
      expect(await Promise.all(['a', 'b', 'c', 'd'].map(valueOf))).to.deep.equal(['1 1e3', '5 5', '3 3', 'absent']);
      expect((await callCli(['dlq', 'list', name, '--json'], env)).stdout).to.equal('');
      const nothing = await callCli(['dlq', 'redrive', '--processor', name], env);
      expect([nothing.code, nothing.stdout]).to.deep.equal([0, 'There is nothing to redrive.\n']);
    });
  });

  describe('of notifications', () => {
    let database: FreshDatabase;
    let pool: PgPool;
    before(async () => {
      database = await freshDatabase();
      await callCli(['migrate'], { DATABASE_URL: database.url });
      pool = createPool(database.url, 'test', silentLogger(), 2);
    });
    after(async () => {
      await pool.end();
      await database.drop();
    });
    const rule = '00000000-0000-4000-8000-000000000001';
    const job = (id: string, channel: string, reason: string): Promise<unknown> =>
      pool.query(
        `INSERT INTO headwater.notification_jobs (job_id, transition, alert_id, rule_id, user_id, at, channel, target_key, target, endpoint, notice, state, reason, attempts)
         VALUES ($1, 'firing', gen_random_uuid(), $4, 'ann', now(), $2, $1, '{"url":"https://hooks.example.com/secret"}', 'https://hooks.example.com', '{}', 'dead', $3, 4)`,
        [id, channel, reason, rule],
      );

    it('lists them without what may be secret, sends some again, and drops others with a reason', async () => {
      await job('job-00000001', 'webhook', 'failed');
      await job('job-00000002', 'webhook', 'gone');
      await job('job-00000003', 'email', 'expired');
      const both = { ...env, DATABASE_URL: database.url };
      const all = await callCli(['dlq', 'list', 'notify', '--json'], both);
      expect(ids(all.stdout)).to.have.members(['notify:job-00000001', 'notify:job-00000002', 'notify:job-00000003']);
      expect(all.stdout).to.include('https://hooks.example.com').and.not.include('secret');
      expect((await callCli(['dlq', 'show', 'notify:job-00000002'], both)).stdout)
        .to.include(`rule ${rule}`)
        .and.include('gone, after 4 attempts');
      expect((await callCli(['dlq', 'list', '--code', 'gone'], both)).stderr).to.match(/notify 1/);

      expect((await callCli(['dlq', 'redrive', 'notify:job-00000001'], both)).stdout).to.equal('1 notification is sent again.\n');
      expect((await callCli(['dlq', 'redrive', '--channel', 'webhook', '--json'], both)).stdout).to.equal('{"notifications":1}\n');
      expect((await callCli(['dlq', 'redrive', 'notify:job-00000001'], both)).code).to.equal(2);
      expect((await callCli(['dlq', 'drop', 'notify:job-00000003', '--reason', 'nobody reads it'], both)).stdout).to.equal('Dropped: 1.\n');
      const { rows } = await pool.query<{ state: string; reason: string }>(
        'SELECT state, reason FROM headwater.notification_jobs ORDER BY job_id',
      );
      expect(rows.map(({ state, reason }) => [state, reason])).to.deep.equal([
        ['queued', null],
        ['queued', null],
        ['suppressed', 'dropped'],
      ]);
      const logs = await pool.query<{ status: string; answer: string }>('SELECT status, answer FROM headwater.notification_logs');
      expect(logs.rows[0]).to.have.property('status', 'dropped');
      expect(logs.rows[0]!.answer).to.match(/: nobody reads it$/);
    });
  });
});
