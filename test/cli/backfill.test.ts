import { expect } from 'chai';
import type { CopyState } from '../../pipeline/capture/log-record.ts';
import { captureFixture, type CaptureFixture } from '../pipeline/capture/support/fixture.ts';
import { callCli } from './support/call-cli.ts';

const rows = 3_000;

describe('headwater backfill', function () {
  this.timeout(120_000);
  let fixture: CaptureFixture;
  let env: Record<string, string>;
  const backfill = (...args: readonly string[]): ReturnType<typeof callCli> => callCli(['backfill', ...args], env);
  const logged = async (least: number): Promise<void> =>
    fixture.until(async () => ((await fixture.record.copy('public.prices'))?.rows ?? 0) >= least, `${least} rows`);

  before(async () => {
    fixture = await captureFixture();
    env = {
      DATABASE_URL: fixture.databaseUrl,
      NATS_URL: fixture.natsUrls.operator,
      REDIS_URL: 'redis://127.0.0.1:1',
      HEADWATER_SLOT: fixture.slot,
    };
    await fixture.query('CREATE TABLE prices (id int PRIMARY KEY, chain text)');
    await fixture.query('CREATE TABLE notes (v text)');
    await fixture.query('ALTER TABLE notes REPLICA IDENTITY FULL');
    await fixture.query(`INSERT INTO prices SELECT i, CASE WHEN i % 3 = 0 THEN 'base' ELSE 'eth' END FROM generate_series(1, ${rows}) i`);
    await fixture.query('ANALYZE prices');
  });
  after(() => fixture.close());

  it('tells all that is wrong with its arguments, and what to do', async () => {
    const cases: readonly (readonly [readonly string[], string])[] = [
      [[], 'name a table, or give --all'],
      [['prices', '--all'], 'not both'],
      [['--all', '--where', 'true'], '--where belongs to one table'],
      [['prices', '--rate', '0'], '--rate must be a whole number from 1'],
      [['prices', '--accept-gap'], '--accept-gap needs --all'],
      [['pause'], 'name a table, or give --all'],
      [['list', '--jsno'], 'did you mean --json'],
    ];
    for (const [args, said] of cases) {
      const { code, stderr } = await backfill(...args);
      expect([code, stderr.includes(said), stderr.includes('next:')], `${args.join(' ')}: ${stderr}`).to.deep.equal([2, true, true]);
    }
  });

  it('says that capture is not running, keeps the request, and refuses another one for the same table', async () => {
    const asked = await backfill('prices', '--no-wait', '--json');
    expect([asked.code, JSON.parse(asked.stdout)]).to.deep.equal([0, { asked: ['public.prices'] }]);
    const other = await backfill('prices', '--where', 'id < 5');
    expect([other.code, other.stderr]).to.deep.equal([
      3,
      'error: a backfill of public.prices of all its rows is asked for already\n' +
        'next: wait for it (`headwater backfill list`), or give it up: headwater backfill cancel public.prices\n',
    ]);
    const waiting = await backfill('prices');
    expect(waiting.code).to.equal(1);
    expect(waiting.stderr).to.include('capture is not running').and.to.include('the request is kept');
    const kept = await backfill('cancel', 'prices');
    expect([kept.code, kept.stdout, kept.stderr.includes('the order is kept')]).to.deep.equal([
      1,
      'public.prices: noted; capture does it when it runs.\n',
      true,
    ]);
  });

  it('shows how far it is, goes on when it is interrupted, is paused and gone on with, and says how it ended', async () => {
    await fixture.streaming({ env: { HEADWATER_BACKFILL_CHUNK: '100' }, snapshot: false });
    await fixture.until(async () => (await fixture.record.order('public.prices')) === undefined, 'the order of before to be carried out');
    const stop = new AbortController();
    let said = '';
    const running = callCli(['backfill', 'prices', '--rate', '400'], env, { signal: stop.signal, onError: (text) => (said += text) });
    await logged(800);
    await fixture.until(
      () => /^public\.prices \d+ %, [\d,]+ of about 3,000 rows, \d+ rows\/s, \d+ s left$/m.test(said),
      'a line with its speed',
    );
    stop.abort(new Error('stopped by SIGINT'));
    const { code } = await running;
    expect([code, said.includes('goes on without this command')], said).to.deep.equal([130, true]);

    expect((await backfill('pause', 'prices')).stdout).to.match(/^public\.prices: paused, [\d,]+ rows are in the log\.\n$/);
    const listed = JSON.parse((await backfill('list', '--json')).stdout) as CopyState[];
    expect(listed.map(({ table, state, rate }) => ({ table, state, rate }))).to.deep.equal([
      { table: 'public.prices', state: 'paused', rate: 400 },
    ]);
    expect((await backfill('list')).stdout).to.match(/^TABLE +STATE.*\npublic\.prices +paused +\d+ % +[\d,]+ +400 rows\/s/);
    const refused = await backfill('prices');
    expect([refused.code, refused.stderr.includes('headwater backfill resume public.prices')]).to.deep.equal([3, true]);
    expect((await backfill('resume', '--all', '--rate', '0')).stdout).to.include('public.prices: goes on');
    await fixture.copied('public.prices');
    expect((await backfill('list')).stdout).to.equal('No backfill is under way.\n');
    const none = await backfill('pause', 'prices');
    expect([none.code, none.stderr.includes('the backfill of public.prices is done')]).to.deep.equal([2, true]);
  });

  it('copies what meets a condition, tells where a fault in it is, and fails with what went wrong on a row', async () => {
    const some = await backfill('prices', '--where', `chain = 'base' -- a third of them`, '--json');
    const { tables } = JSON.parse(some.stdout) as { tables: CopyState[] };
    expect([some.code, tables[0]!.rows, tables[0]!.state]).to.deep.equal([0, rows / 3, 'done']);
    const wrong = await backfill('prices', '--where', `chian = 'base'`);
    expect(wrong.code).to.equal(2);
    expect(wrong.stderr).to.include('column "chian" does not exist, at character 1').and.to.include('next: Perhaps you meant');
    const failed = await backfill('prices', '--where', '1 / (id - 500) > 0');
    expect([failed.code, failed.stderr.includes('division by zero') || failed.stdout.includes('division by zero')]).to.deep.equal([
      1,
      true,
    ]);
    const keyless = await backfill('notes');
    expect([keyless.code, keyless.stderr.includes('no primary key')]).to.deep.equal([2, true]);
  });

  it('says what does not answer, and lists without PostgreSQL', async () => {
    const noDatabase = { ...env, DATABASE_URL: 'postgres://localhost:1/none' };
    for (const [what, words, given] of [
      ['PostgreSQL', ['backfill', 'prices'], noDatabase],
      ['NATS', ['backfill', 'list'], { ...env, NATS_URL: 'nats://localhost:1' }],
    ] as const) {
      const { code, stderr } = await callCli(words, given);
      expect([code, stderr.includes(`${what} at `), stderr.includes('does not answer'), stderr.includes('next:')], stderr).to.deep.equal([
        1,
        true,
        true,
        true,
      ]);
    }
    expect((await callCli(['backfill', 'list'], noDatabase)).code).to.equal(0);
  });
});
