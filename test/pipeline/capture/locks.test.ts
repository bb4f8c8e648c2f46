import { expect } from 'chai';
import type { PgClient } from '../../../pipeline/clients/postgres.ts';
import { requestBackfill } from '../../../pipeline/capture/backfill/operations.ts';
import { operatorOf } from './support/backfills.ts';
import { captureFixture, type CaptureFixture, type RunningCapture } from './support/fixture.ts';
import { fold } from './support/stored-events.ts';

/** What the application's own locks must not do to capture: a migration can hold one for long. */
describe('capture: tables that the application has locked', function () {
  this.timeout(60_000);
  let fixture: CaptureFixture;
  let application: PgClient;
  beforeEach(async () => {
    fixture = await captureFixture();
    for (const table of ['locked', 'free']) {
      await fixture.query(`CREATE TABLE ${table} (id int PRIMARY KEY, v text)`);
      await fixture.query(`INSERT INTO ${table} SELECT i, 'v' FROM generate_series(1, 1000) i`);
    }
    application = await fixture.connect();
  });
  afterEach(() => fixture.close());

  const lock = async (): Promise<void> => {
    await application.query('BEGIN');
    await application.query('LOCK TABLE locked IN ACCESS EXCLUSIVE MODE');
  };
  const askForCopy = async (table: string): Promise<void> => {
    const [row] = await fixture.query(`SELECT $1::regclass::oid::int8::float8 AS oid`, [table]);
    await fixture.record.putCopy({ table: `public.${table}`, oid: Number(row!['oid']), state: 'pending', rows: 0 });
  };
  /** Fails when capture does not stop soon. */
  const stops = async (capture: RunningCapture): Promise<void> => {
    const begun = performance.now();
    await capture.stop();
    expect(performance.now() - begun, 'ms to stop').to.be.lessThan(5_000);
  };

  it('the stream goes on while a backfill waits for a lock, and so does the backfill when it is released', async () => {
    await fixture.streaming({ snapshot: false });
    await fixture.settled();
    await lock();
    await askForCopy('locked');
    await new Promise((resolve) => setTimeout(resolve, 500));
    await fixture.query(`UPDATE free SET v = 'new'`);
    await fixture.query('CREATE TABLE joins_later (id int PRIMARY KEY)');
    const events = await fixture.settled(4_000);
    expect(events.filter((event) => event.op === 'update').length).to.equal(1_000);
    await application.query('COMMIT');
    await fixture.copied('public.locked');
    expect(fold(await fixture.settled(), 'public.locked').size).to.equal(1_000);
  });

  it('a backfill with a condition waits for a lock as well, is paused meanwhile, and comes to its end', async () => {
    await fixture.streaming({ env: { HEADWATER_BACKFILL_TIMEOUT: '1500ms', HEADWATER_BACKFILL_CHUNK: '100' }, snapshot: false });
    const operator = operatorOf(fixture);
    await operator.ask({ names: ['public.locked'], where: 'id > 0', rate: 200 });
    await operator.rows('public.locked', 100);
    await lock();
    await fixture.until(async () => (await fixture.record.copy('public.locked'))?.note?.includes('locked') ?? false, 'it to wait');
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    const begun = performance.now();
    const { state, done } = await operator.order('pause', 'public.locked');
    expect([state.state, done, performance.now() - begun < 4_000]).to.deep.equal(['paused', true, true]);
    await operator.order('resume', 'public.locked', 0);
    await fixture.until(async () => (await fixture.record.copy('public.locked'))?.note?.includes('locked') ?? false, 'it to wait again');
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    const asked = await operator.ask({ names: ['public.free'], where: 'id > 0' });
    expect(asked, 'another table').to.deep.equal(['public.free']);
    await application.query('COMMIT');
    await fixture.copied('public.locked');
    expect((await fixture.record.copy('public.locked'))!.rows).to.equal(1_000);
  });

  it('a request for a locked table is taken, and one with a condition is told to come again', async () => {
    await fixture.streaming({ snapshot: false });
    await lock();
    const { operation, ask } = operatorOf(fixture);
    expect(await ask({ names: ['public.locked'] })).to.deep.equal(['public.locked']);
    await application.query('COMMIT');
    await fixture.copied('public.locked');
    await lock();
    const refused = await requestBackfill(operation, { names: ['public.locked'], where: 'id > 0' }).catch((error: unknown) => error);
    expect(refused).to.include({ code: 'table_locked', reaction: 'retry' });
    await application.query('COMMIT');
  });

  it('it stops although a backfill waits for a lock', async () => {
    const capture = await fixture.streaming({ snapshot: false });
    await fixture.settled();
    await lock();
    await askForCopy('locked');
    await new Promise((resolve) => setTimeout(resolve, 1_800));
    await stops(capture);
  });

  it('it stops although the first copy waits for a lock, and completes it later', async () => {
    const capture = fixture.start();
    await lock();
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    await stops(capture);
    await application.query('COMMIT');
    await fixture.streaming();
    await fixture.copied('public.locked');
    expect(fold(await fixture.settled(), 'public.locked').size).to.equal(1_000);
  });

  it('the stream goes on after a restart while a table is locked', async () => {
    const first = await fixture.streaming();
    await fixture.settled();
    await first.stop();
    await lock();
    await fixture.query(`UPDATE free SET v = 'new'`);
    fixture.start();
    expect((await fixture.settled(5_000)).filter((event) => event.op === 'update').length).to.equal(1_000);
  });
});
