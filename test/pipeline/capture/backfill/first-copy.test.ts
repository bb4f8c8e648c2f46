import { expect } from 'chai';
import { backfillsProblems, backfillsStatus } from '../../../../cli/backfills-status.ts';
import { operatorOf, type Operator } from '../support/backfills.ts';
import { captureFixture, type CaptureFixture } from '../support/fixture.ts';

const items = 'public.items';

describe('backfill: some rows of a table whose first copy is not done', function () {
  this.timeout(60_000);
  let fixture: CaptureFixture;
  let operator: Operator;
  beforeEach(async () => {
    fixture = await captureFixture();
    operator = operatorOf(fixture);
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, n int)');
    await fixture.query('INSERT INTO items SELECT i, 0 FROM generate_series(1, 300) i');
  });
  afterEach(() => fixture.close());

  const firstCopy = async (state: 'failed' | 'cancelled'): Promise<void> => {
    const { oid } = (await fixture.record.copy(items))!;
    await fixture.record.putCopy({ table: items, oid, state, rows: 0, ...(state === 'failed' && { error: 'permission denied' }) });
  };
  /** What of it stands in the log's record after a first copy that has ended so, then a request for some rows, then a restart. */
  const afterRestart = async (first: 'failed' | 'cancelled', where: string): Promise<unknown[]> => {
    const capture = await fixture.streaming({ snapshot: false });
    await firstCopy(first);
    await operator.copy(items, { where });
    await capture.stop();
    const next = await fixture.streaming({ snapshot: false });
    await fixture.settled();
    // What was due is noted before it streams.
    const ended = async (): Promise<boolean> => !['pending', 'running'].includes((await fixture.record.copy(items))!.state);
    await fixture.until(ended, 'its end');
    await next.stop();
    const { state, rows } = (await fixture.record.copy(items))!;
    return [state, rows];
  };

  it('that has failed is tried again at the next start, whatever became of these rows', async () => {
    expect(await afterRestart('failed', 'id < 10')).to.deep.equal(['done', 300]);
    expect(await afterRestart('failed', '1 / (id - 5) > 0'), 'its condition fails').to.deep.equal(['done', 300]);
  });

  it('that was given up stays so, whatever became of these rows', async () => {
    expect(await afterRestart('cancelled', 'id < 10')).to.deep.equal(['done', 9]);
    expect(await afterRestart('cancelled', '1 / (id - 5) > 0'), 'its condition fails').to.deep.equal(['failed', 0]);
  });

  it('that has failed is shown until somebody gives it up', async () => {
    await fixture.streaming({ snapshot: false });
    await firstCopy('failed');
    expect((await operator.copy(items, { where: 'id < 10' })).state).to.equal('done');
    await operator.copy(items, { where: 'id < 5' });
    const shown = async (): Promise<unknown[]> => (await backfillsStatus(fixture.record)).map(({ state, error }) => [state, error]);
    expect(await shown(), 'of several requests').to.deep.equal([['failed', 'permission denied']]);
    expect(backfillsProblems(await backfillsStatus(fixture.record), true).join()).to.include(`backfill cancel ${items}`);
    expect((await operator.order('cancel', items)).state).to.include({ state: 'done', rows: 4 });
    expect(await shown()).to.deep.equal([]);
  });
});
