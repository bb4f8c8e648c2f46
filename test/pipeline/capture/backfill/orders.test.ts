import { expect } from 'chai';
import { orderBackfills } from '../../../../pipeline/capture/backfill/operations.ts';
import type { HeadwaterError } from '../../../../pipeline/runtime/errors.ts';
import { operatorOf, type Operator } from '../support/backfills.ts';
import { captureFixture, type CaptureFixture } from '../support/fixture.ts';

const items = 'public.items';
const env = { HEADWATER_BACKFILL_CHUNK: '100' };

/** Operators change their minds before capture has done what they wanted. */
describe('backfill: an order that nobody has carried out yet', function () {
  this.timeout(60_000);
  let fixture: CaptureFixture;
  let operator: Operator;
  beforeEach(async () => {
    fixture = await captureFixture();
    operator = operatorOf(fixture);
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
    await fixture.query(`INSERT INTO items SELECT i, 'old' FROM generate_series(1, 300) i`);
  });
  afterEach(() => fixture.close());

  const phases = async (): Promise<unknown[]> =>
    (await fixture.settled()).filter(({ mark }) => mark === 'backfill').map(({ data }) => data!['phase']);

  it('to cancel is taken back by the same request, also while it waits for the end of a chunk', async () => {
    await fixture.streaming({ env, snapshot: false });
    // The chunk lasts until it is let go on.
    const where = 'id <> 1 OR pg_advisory_xact_lock_shared(42) IS NOT NULL';
    await fixture.sql.query('SELECT pg_advisory_lock(42)');
    await operator.ask({ names: [items], where });
    await fixture.until(async () => (await fixture.record.copy(items))?.attempts === 1, 'the first chunk to be asked for');
    const cancelled = operator.order('cancel', items);
    await fixture.until(async () => (await fixture.record.order(items)) !== undefined, 'the order to be noted');
    await operator.ask({ names: [items], where });
    expect((await cancelled).state.state, 'what whoever has cancelled it is told').to.equal('pending');
    await fixture.sql.query('SELECT pg_advisory_unlock(42)');
    await fixture.until(async () => !['pending', 'running'].includes((await fixture.record.copy(items))!.state), 'its end');
    const { state, rows } = (await fixture.record.copy(items))!;
    expect([state, rows]).to.deep.equal(['done', 300]);
    expect(await phases()).to.deep.equal(['begin', 'end']);
  });

  it('to pause is taken back by `resume`, by its name or without one', async () => {
    const capture = await fixture.streaming({ env, snapshot: false });
    await operator.ask({ names: [items], rate: 100 });
    await operator.rows(items, 100);
    await capture.stop();
    expect((await operator.order('pause', items)).done, 'while capture is away').to.equal(false);
    const asked = await operator.ask({ names: [items], rate: 100 }).catch((error: unknown) => error);
    expect((asked as HeadwaterError).hint).to.include(`resume ${items}`);
    expect((await operator.order('resume', items)).state.state).to.equal('running');
    await operator.order('pause', items);
    const all = await orderBackfills(operator.operation, { order: 'resume' }, undefined);
    expect(all.map(({ state }) => state.table)).to.deep.equal([items]);
    const again = await operator.order('resume', items).catch((error: unknown) => error);
    expect(again, 'nothing is left to resume').to.have.property('code', 'no_backfill');
    await fixture.streaming({ env, snapshot: false });
    await fixture.copied(items);
    expect(await phases()).to.deep.equal(['begin', 'end']);
  });
});
