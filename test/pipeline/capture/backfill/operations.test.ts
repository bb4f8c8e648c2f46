import { expect } from 'chai';
import { checkCondition } from '../../../../pipeline/capture/backfill/condition.ts';
import { HeadwaterError } from '../../../../pipeline/runtime/errors.ts';
import { stableText } from '../../../../pipeline/clients/postgres.ts';
import { describeTable } from '../../../../pipeline/source/table-reader.ts';
import { TypeRegistry } from '../../../../pipeline/source/types.ts';
import { defaultCatalog } from '../../../../schemas/catalog.ts';
import { withDatabase, withRecord } from '../../../../pipeline/capture/operations.ts';
import { tcpProxy, type TcpProxy } from '../../../support/tcp-proxy.ts';
import { operatorOf, type Operator } from '../support/backfills.ts';
import { captureFixture, type CaptureFixture } from '../support/fixture.ts';
import { expectWellFormed, type StoredEvent } from '../support/stored-events.ts';

/** Reads of a table that the log holds, by key. */
function reads(events: readonly StoredEvent[], table: string): number[] {
  return events.filter((event) => event.op === 'read' && event.table === table).map((event) => event.key!['id'] as number);
}

function phases(events: readonly StoredEvent[], table: string): unknown[] {
  return events.filter(({ mark, data }) => mark === 'backfill' && data?.['table'] === table).map(({ data }) => data!['phase']);
}

/** The same server, by another way that can be cut. */
async function proxyTo(text: string): Promise<{ readonly proxy: TcpProxy; readonly url: string }> {
  const url = new URL(text);
  const proxy = await tcpProxy(Number(url.port));
  url.port = String(proxy.port);
  return { proxy, url: url.href };
}

const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1);

async function failure(work: Promise<unknown>): Promise<HeadwaterError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).to.be.instanceOf(HeadwaterError);
  return error as HeadwaterError;
}

describe('backfill: what operators do about it', function () {
  this.timeout(60_000);
  const env = { HEADWATER_BACKFILL_CHUNK: '200' };
  let fixture: CaptureFixture;
  let operator: Operator;
  beforeEach(async () => {
    fixture = await captureFixture();
    operator = operatorOf(fixture);
    for (const [table, rows] of [
      ['big', 4_000],
      ['small', 300],
    ] as const) {
      await fixture.query(`CREATE TABLE ${table} (id int PRIMARY KEY, v text)`);
      await fixture.query(`INSERT INTO ${table} SELECT i, 'v' || i FROM generate_series(1, ${rows}) i`);
    }
  });
  afterEach(() => fixture.close());

  it('pauses between two chunks, lets others go first, stays paused over a restart, and goes on without a repeat', async () => {
    const capture = await fixture.streaming({ env, snapshot: false });
    await operator.ask({ names: ['public.big'], rate: 800 });
    await operator.rows('public.big', 300);
    const { state, done } = await operator.order('pause', 'public.big');
    expect([state.state, done]).to.deep.equal(['paused', true]);
    expect((await operator.copy('public.small')).rows, 'another table meanwhile').to.equal(300);
    await capture.stop();
    await fixture.streaming({ env, snapshot: false });
    await fixture.settled();
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect((await fixture.record.copy('public.big'))!.rows, 'rows while it is paused').to.equal(state.rows);
    await operator.order('resume', 'public.big', 0);
    await fixture.copied('public.big');
    const events = await fixture.settled();
    expectWellFormed(events);
    expect(reads(events, 'public.big')).to.deep.equal(upTo(4_000));
    expect(phases(events, 'public.big')).to.deep.equal(['begin', 'end']);
  });

  it('is followed on while NATS is away, and told of what is not answered at all', async () => {
    const [nats, postgres] = await Promise.all([fixture.natsUrls.operator, fixture.databaseUrl].map((url) => proxyTo(url)));
    const away = operatorOf(fixture, { NATS_URL: nats!.url, DATABASE_URL: postgres!.url });
    try {
      await fixture.streaming({ env, snapshot: false });
      // A question may be on its way when the connection breaks: it is never answered.
      const copied = away.copy('public.big', { rate: 2_000 });
      await away.rows('public.big', 300);
      const unanswered = failure(
        withRecord(away.operation, (record) => {
          nats!.proxy.stall();
          return record.copies();
        }),
      );
      await new Promise((resolve) => setTimeout(resolve, 600));
      nats!.proxy.restore();
      expect(await copied).to.include({ state: 'done', rows: 4_000 });
      expect((await unanswered).message).to.match(/^NATS at .* does not answer: /);

      const lost = await failure(withDatabase(away.operation, (client) => client.query('SELECT pg_terminate_backend(pg_backend_pid())')));
      expect(lost).to.include({ code: 'unreachable' });
      expect(lost.message).to.match(/^PostgreSQL at .* does not answer: terminating connection/);
      postgres!.proxy.cut();
      await operator.ask({ names: ['public.big'], rate: 500 });
      expect(await failure(away.ask({ names: ['public.small'] }))).to.include({ code: 'unreachable' });
      expect(await failure(away.order('cancel', 'public.big'))).to.include({ code: 'unreachable' });
      expect(await fixture.record.order('public.big'), 'what is ordered by a command that fails').to.equal(undefined);
    } finally {
      await Promise.all([nats, postgres].map((one) => one!.proxy.close()));
    }
  });

  it('is not begun by a user whom PostgreSQL does not let in: the URL is to be corrected', async () => {
    const wrong = new URL(fixture.databaseUrl);
    wrong.password = 'not-this';
    const fault = await failure(operatorOf(fixture, { DATABASE_URL: wrong.href }).ask({ names: ['public.small'] }));
    expect(fault).to.include({ code: 'postgres_unauthorized', reaction: 'usage' });
    expect(fault.message).to.include('does not let us in').and.not.include('not-this');
    expect(fault.hint).to.include('DATABASE_URL');
  });

  it('is counted: rows, chunks and how long they take, what is paused, and what waits', async () => {
    const capture = await fixture.streaming({ env, snapshot: false });
    const metric = async (name: string): Promise<number> => {
      const text = await capture.metrics.metrics();
      return Number(new RegExp(`^headwater_backfill_${name} (\\S+)$`, 'm').exec(text)?.[1]);
    };
    const standing = async (): Promise<number[]> => [await metric('queue_length'), await metric('paused')];
    expect([await metric('rows_total'), await metric('chunks_total'), ...(await standing())]).to.deep.equal([0, 0, 0, 0]);
    await operator.ask({ names: ['public.big'], rate: 400 });
    await operator.rows('public.big', 100);
    await operator.ask({ names: ['public.small'] });
    await fixture.until(async () => (await metric('queue_length')) === 2, 'one at work and one that waits');
    await fixture.until(async () => (await metric('chunk_rows')) === 200, 'the second chunk');
    await operator.order('pause', 'public.big');
    await fixture.copied('public.small');
    await fixture.until(async () => (await standing()).join() === '0,1', 'one that is paused, and none that waits');
    expect(await metric('chunk_rows')).to.equal(0);
    await operator.order('resume', 'public.big', 0);
    await fixture.copied('public.big');
    await fixture.until(async () => (await standing()).join() === '0,0', 'none of either');
    // 100 rows at first, since nothing is known of their size, then 200 each.
    expect([await metric('rows_total'), await metric('chunk_seconds_count')]).to.deep.equal([4_300, await metric('chunks_total')]);
    expect(await metric('chunks_total')).to.be.within(22, 26);
    expect(await metric('chunk_seconds_sum')).to.be.within(0.001, 20);
    // What is paused is known to the next one.
    await operator.ask({ names: ['public.big'], rate: 200 });
    await operator.rows('public.big', 100);
    await operator.order('pause', 'public.big');
    await capture.stop();
    expect(await standing()).to.deep.equal([0, 0]);
    const next = await fixture.streaming({ env, snapshot: false });
    await fixture.until(async () => (await next.metrics.metrics()).includes('headwater_backfill_paused 1'), 'the paused one to be counted');
  });

  it('keeps to a rate, also one that is changed on the way', async () => {
    await fixture.streaming({ env, snapshot: false });
    await fixture.settled();
    const begun = performance.now();
    await operator.ask({ names: ['public.small'], rate: 150 });
    await fixture.copied('public.small');
    expect(performance.now() - begun, 'ms for 300 rows at 150 a second').to.be.within(900, 5_000);
    await operator.ask({ names: ['public.big'], rate: 10 });
    await operator.rows('public.big', 10);
    await operator.order('resume', 'public.big', 0);
    const changed = performance.now();
    await fixture.copied('public.big');
    expect(performance.now() - changed, 'ms for the rest without a limit').to.be.lessThan(10_000);
    expect(reads(await fixture.settled(), 'public.big')).to.deep.equal(upTo(4_000));
  });

  it('gives up when cancelled, says so in the log, and does not begin again at the next start', async () => {
    const capture = await fixture.streaming({ env, snapshot: false });
    await operator.ask({ names: ['public.big'], rate: 500 });
    await operator.rows('public.big', 200);
    const { state } = await operator.order('cancel', 'public.big');
    expect(state.state).to.equal('cancelled');
    await capture.stop();
    await fixture.streaming({ env, snapshot: false });
    await new Promise((resolve) => setTimeout(resolve, 500));
    const events = await fixture.settled();
    expect(phases(events, 'public.big')).to.deep.equal(['begin', 'cancelled']);
    expect(reads(events, 'public.big')).to.deep.equal(upTo(state.rows));
    expect((await operator.copy('public.big')).state, 'asked for anew').to.equal('done');
  });

  it('carries an order out when capture starts, if it is away', async () => {
    const capture = await fixture.streaming({ env, snapshot: false });
    await operator.ask({ names: ['public.big'], rate: 400 });
    await operator.rows('public.big', 200);
    await capture.stop();
    await fixture.until(
      async () => (await fixture.query('SELECT FROM pg_replication_slots WHERE slot_name = $1 AND active', [fixture.slot])).length === 0,
      'the slot to be free',
    );
    expect((await operator.order('pause', 'public.big')).done).to.equal(false);
    const rows = (await fixture.record.copy('public.big'))!.rows;
    await fixture.streaming({ env, snapshot: false });
    await fixture.until(async () => (await fixture.record.copy('public.big'))!.state === 'paused', 'it to be paused');
    expect((await fixture.record.copy('public.big'))!.rows).to.equal(rows);
    expect(await fixture.record.order('public.big')).to.equal(undefined);
  });

  it('does not replace what is under way, follows what was asked for in the same words, and has nothing to resume by a wrong name', async () => {
    await fixture.streaming({ env, snapshot: false });
    await operator.ask({ names: ['public.big'], rate: 800 });
    await operator.rows('public.big', 200);
    expect(await failure(operator.ask({ names: ['public.big'], where: 'id < 10' }))).to.include({
      code: 'backfill_under_way',
      reaction: 'refused',
    });
    await operator.ask({ names: ['public.big'] });
    await operator.ask({ names: ['public.big'], rate: 800 });
    expect((await fixture.record.copy('public.big'))!.rows, 'it was not begun anew').to.be.greaterThan(199);
    const faster = await failure(operator.ask({ names: ['public.big'], rate: 900 }));
    expect([faster.code, faster.message.includes('at 800 rows'), faster.hint?.includes('resume public.big --rate 900')]).to.deep.equal([
      'backfill_under_way',
      true,
      true,
    ]);
    await operator.order('pause', 'public.big');
    expect((await failure(operator.ask({ names: undefined }))).hint).to.include('headwater backfill resume public.big');
    expect((await fixture.record.copy('public.small'))!.state, 'nothing was asked for').to.equal('done');
    const wrong = await failure(operator.order('resume', 'public.bug'));
    expect(wrong.code).to.equal('no_backfill');
    expect(wrong.message).to.include('did you mean public.big');
    expect((await failure(operator.ask({ names: ['public.bug'] }))).message).to.include('did you mean public.big');
  });

  it('reads a slow condition a few rows at a time, and gives up one that is slow on a single row', async () => {
    const slow = { ...env, HEADWATER_BACKFILL_TIMEOUT: '400ms' };
    await fixture.streaming({ env: slow, snapshot: false });
    const state = await operator.copy('public.small', {
      where: `id % 50 = 0 AND pg_sleep(0.01)::text = '' OR id % 50 <> 0 AND pg_sleep(0.01) IS NULL`,
    });
    expect([state.state, state.rows]).to.deep.equal(['done', 6]);
    expect(reads(await fixture.settled(), 'public.small')).to.deep.equal([50, 100, 150, 200, 250, 300]);
    const stuck = await operator.copy('public.small', { where: `pg_sleep(2)::text = ''` });
    expect(stuck.state).to.equal('failed');
    expect(stuck.error).to.include('on a single row');
  });

  it('gives up a condition that ends the session again and again, and streams on', async () => {
    const capture = await fixture.streaming({ env, snapshot: false });
    const harmful = `id = 1 AND (SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
      WHERE datname = current_database() AND application_name LIKE 'headwater capture%') > 0`;
    await operator.ask({ names: ['public.small'], where: harmful });
    await fixture.until(async () => (await fixture.record.copy('public.small'))?.state === 'failed', 'it to be given up', 40_000);
    expect((await fixture.record.copy('public.small'))!.error).to.include('5 times');
    expect((await operator.copy('public.big')).rows, 'another table').to.equal(4_000);
    expect(capture.lines.filter(({ msg }) => msg === 'backfill failed').length).to.equal(1);
  });

  it('fails with whatever error a function of the condition raises', async () => {
    await fixture.query(`CREATE FUNCTION f(int) RETURNS boolean LANGUAGE plpgsql AS
      $$ BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = 'ZQ001'; END $$`);
    await fixture.streaming({ env, snapshot: false });
    const { state, error } = await operator.copy('public.small', { where: 'public.f(id)' });
    expect([state, error]).to.deep.equal(['failed', 'not this one']);
  });

  it('fails when a condition fails on a row, keeps on streaming, and does not copy the table at the next start', async () => {
    const capture = await fixture.streaming({ env, snapshot: false });
    const state = await operator.copy('public.big', { where: '1 / (id - 1000) >= 0' });
    expect([state.state, state.error]).to.deep.equal(['failed', 'division by zero']);
    const written = await operator.copy('public.big', { where: `nextval('public.s') > 0` }).catch((error: unknown) => error);
    expect((written as HeadwaterError).code, 'a sequence that is not there').to.equal('bad_condition');
    await fixture.query('CREATE SEQUENCE s');
    expect((await operator.copy('public.big', { where: `nextval('public.s') > 0` })).error).to.include('read-only transaction');
    await capture.stop();
    await fixture.streaming({ env, snapshot: false });
    await new Promise((resolve) => setTimeout(resolve, 500));
    const events = await fixture.settled();
    expect(Math.max(...reads(events, 'public.big')), 'rows before the one that fails').to.be.lessThan(1_000);
    expect(phases(events, 'public.big')).to.deep.equal(['begin', 'failed']);
    expect((await fixture.record.copy('public.big'))!.state).to.equal('failed');
  });
});

describe('backfill: the condition of an operator', () => {
  let fixture: CaptureFixture;
  before(async () => {
    fixture = await captureFixture();
    for (const setting of stableText) await fixture.sql.query(setting);
    await fixture.query('CREATE TABLE public.prices (id int PRIMARY KEY, chain text, price numeric)');
    await fixture.query('CREATE TABLE public.secrets (s text)');
    await fixture.query(`INSERT INTO public.prices SELECT i, 'base', i FROM generate_series(1, 10) i`);
  });
  after(() => fixture.close());

  const check = async (where: string): Promise<number> => {
    const [row] = await fixture.query(`SELECT 'public.prices'::regclass::oid::int8::float8 AS oid`);
    const table = await describeTable(
      fixture.sql,
      { oid: Number(row!['oid']), schema: 'public', table: 'prices' },
      new TypeRegistry(),
      defaultCatalog(),
      'ev',
    );
    return checkCondition(fixture.sql, table, where, 5_000);
  };

  it('is any boolean expression on the columns', async () => {
    for (const where of [
      `chain = 'base'`,
      "price > 3 OR (id, chain) IN ((1, $$a)$$), (2, 'b'))",
      'id = ANY (ARRAY[1, 2]) -- some of them',
      '/* all */ true',
      'EXISTS (SELECT FROM public.secrets x WHERE x.s = chain)',
      `CASE WHEN id > 1 THEN chain LIKE 'b%;' ELSE false END`,
      't.id = 5',
    ])
      expect(await check(where), where).to.be.a('number');
  });

  const harmful: readonly string[] = [
    '',
    '   ',
    '-- nothing',
    'true; DROP TABLE public.secrets',
    'true); DROP TABLE public.secrets; --',
    'true) UNION SELECT 1, s, 2 FROM public.secrets WHERE (true',
    'true) OR (true',
    'true) ORDER BY id LIMIT (1',
    "true) TO PROGRAM 'id' --",
    'true /*',
    `chain = 'x`,
    'chain = $q$x',
    'SELECT true',
    'true THEN true END, (CASE WHEN true',
    'true THEN false ELSE true END OR CASE WHEN false',
    'count(*) > 1',
    'row_number() OVER () = 1',
    'generate_series(1, 2) = 1',
    'id',
    'id = $1',
    'WHERE id = 1',
  ];
  for (const where of harmful)
    it(`is not ${JSON.stringify(where)}`, async () => {
      expect(await failure(check(where))).to.include({ code: 'bad_condition', reaction: 'usage' });
      expect((await fixture.query('SELECT count(*)::int AS n FROM public.secrets'))[0]).to.deep.equal({ n: 0 });
    });

  it('is told where its fault is, and what could be meant', async () => {
    const { message, hint } = await failure(check(`id > 1 AND chian = 'base'`));
    expect(message).to.equal(
      `--where is not a condition on public.prices: column "chian" does not exist, at character 12: "id > 1 AND chian = 'base'"`,
    );
    expect(hint).to.include('t.chain');
    expect((await failure(check('id >'))).message).to.equal('--where is not a condition on public.prices: syntax error at its end');
    expect((await failure(check('price + 1'))).message).to.include('a condition must be type boolean, not type numeric');
    expect((await failure(check(`chain::mood = 'sad'`))).hint).to.include('need their schema: public.name');
  });
});
