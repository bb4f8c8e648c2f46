import { expect } from 'chai';
import type { NewEvent } from '../../../../pipeline/log/event-log.ts';
import type { Definition } from '../../../../processors/aggregates/model.ts';
import { rowEvent } from '../../../support/row-events.ts';
import { definition } from './definitions.ts';
import { EngineStore, oneByOne, runEngine } from './engine-run.ts';

const start = Date.UTC(2026, 10, 22, 12);
const minute = start / 60_000;

const at = (second: number): string => new Date(start + second * 1_000).toISOString();
/** A trade that was made and committed at a second. */
function trade(n: number, op: string, id: number, second: number): NewEvent {
  const key = { id };
  return rowEvent(n, op, { table: 'trades', key, after: { ...key, price: '1', qty: '1', traded_at: at(second) }, at: at(second) });
}

describe('aggregates: a pane that changes and expires in one batch', () => {
  // Ten times as long.
  const kept = definition({ sizes: ['1m'], keep: '1m' });
  const events = [trade(1, 'insert', 7, 5), trade(2, 'insert', 8, 1_000), trade(3, 'update', 7, 1_010)];
  for (const [what, cuts] of [
    ['in one batch', { ...oneByOne, read: [100], effects: [100] }],
    ['event by event', oneByOne],
  ] as const) {
    it(`holds no point of a row that is elsewhere by then, ${what}`, () => {
      const store = runEngine(kept, events, cuts);
      expect(store.points.get(`${minute}:[]`)).to.equal(undefined);
      expect(store.rows.size).to.equal(2);
      expect(store.points.get(`${minute + 16}:[]`)?.size).to.equal(2);
    });
  }
});

describe('aggregates: a retention that changes', () => {
  // Ten times as long.
  const [long, short] = ['5m', '1m'].map((keep) => definition({ sizes: ['1m', '5m'], keep })) as [Definition, Definition];
  const events = (from: number, ...seconds: number[]) => seconds.map((second, i) => trade(from + i, 'insert', from + i, second));
  const minutes = (store: EngineStore): string[] =>
    [...store.windows.keys()].filter((name) => name.startsWith('0:')).map((name) => String(Number(name.split(':')[1]) - minute));
  let store: EngineStore;
  /** The log goes on with these events, folded by a new session with this definition. */
  const go = (given: Definition, more: readonly NewEvent[]): void => {
    runEngine(given, more, { ...oneByOne, read: [3], effects: [2] }, store, store.seq);
  };
  beforeEach(() => {
    store = new EngineStore();
    go(long, events(1, 0, 1_200));
    expect(minutes(store)).to.deep.equal(['0', '20']);
  });

  it('notes the oldest windows that are kept, to the microsecond', () => {
    // Kept for 50 minutes from their start.
    go(long, [trade(3, 'insert', 3, 3_000 - 0.001)]);
    expect(store.meta!.oldest).to.deep.equal([minute, minute / 5]);
    go(long, [trade(4, 'insert', 4, 3_000)]);
    expect(store.meta!.oldest).to.deep.equal([minute + 1, minute / 5 + 1]);
  });

  it('once longer again brings back no window that was kept no longer', () => {
    go(short, events(3, 1_200));
    expect(store.meta!.oldest).to.deep.equal([minute + 11, minute / 5 + 3]);
    go(long, events(4, 601, 1_201, 660));
    expect(store.meta!.oldest).to.deep.equal([minute + 11, minute / 5 + 3]);
    expect(minutes(store)).to.have.members(['0', '11', '20']);
    // The row of the eleventh minute goes into one that nobody keeps.
    go(long, [trade(7, 'update', 6, 601)]);
    expect(minutes(store)).to.have.members(['0', '20']);
    expect(store.rows.has('6')).to.equal(false);
  });

  it('takes effect at once when everything has gone', () => {
    go(short, events(3, 1_200));
    go(long, [{ ...trade(4, 'delete', 1, 1_200), subject: 'ev.public.trades.truncate' }, ...events(5, 601)]);
    expect(minutes(store)).to.deep.equal(['10']);
    expect(store.meta!.oldest).to.deep.equal([minute - 29, minute / 5 - 5]);
  });

  it('counts from today on where former versions have noted nothing', () => {
    store.meta = { ...store.meta!, oldest: [] };
    go(short, events(3, 601, 660));
    expect(minutes(store)).to.have.members(['0', '11', '20']);
  });
});
