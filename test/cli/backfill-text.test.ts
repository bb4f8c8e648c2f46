import { expect } from 'chai';
import { orderText } from '../../cli/backfill-text.ts';
import type { CopyState } from '../../pipeline/capture/log-record.ts';

const copy = (state: CopyState['state']): CopyState => ({ table: 'public.prices', oid: 1, state, rows: 3_000 });

describe('headwater backfill: what an order has come to', () => {
  it('says that a copy has ended when it had before the order came', () => {
    expect(orderText('cancel', { state: copy('done'), done: true })).to.equal(
      'public.prices: 3,000 rows are in the log. There was nothing left to cancel.',
    );
    expect(orderText('pause', { state: { ...copy('failed'), error: 'division by zero' }, done: true })).to.equal(
      'public.prices: failed: division by zero. There was nothing left to pause.',
    );
    expect(orderText('pause', { state: copy('paused'), done: true })).to.equal('public.prices: paused, 3,000 rows are in the log.');
    expect(orderText('resume', { state: copy('running'), done: true })).to.equal('public.prices: goes on, 3,000 rows are in the log.');
    expect(orderText('resume', { state: copy('done'), done: true })).to.equal('public.prices: 3,000 rows are in the log.');
  });
});
