import { expect } from 'chai';
import type { NewEvent } from '../../../../pipeline/log/event-log.ts';
import type { Loaded, Needs } from '../../../../processors/aggregates/engine/needs.ts';
import { rowEvent } from '../../../support/row-events.ts';
import { definition } from './definitions.ts';
import { EngineStore, oneByOne, runEngine } from './engine-run.ts';

const start = Date.UTC(2026, 10, 22);

function trade(op: string, id: number, chain: string, price: string, minute: number): NewEvent {
  const key = { id };
  return rowEvent(1, op, {
    table: 'trades',
    key,
    after: { ...key, chain, price, traded_at: new Date(start + minute * 60_000).toISOString() },
  });
}

/** Notes how much each question asks for. */
class AskedStore extends EngineStore {
  readonly asked: number[] = [];

  override load(needs: Needs): Loaded {
    const loaded = super.load(needs);
    const size = (list: readonly { readonly size: number }[]): number => list.reduce((sum, map) => sum + map.size, 0);
    this.asked.push(loaded.windows.flat().length + size(loaded.points) + size(loaded.values));
    return loaded;
  }
}

describe('aggregates: what a batch asks for', () => {
  const atOnce = { ...oneByOne, read: [1_000], effects: [1_000], mostRecords: 1_000_000 };
  const chains = Array.from({ length: 60 }, (_, n) => `c${n}`);

  it('comes in portions when the parts of many windows are wanted', () => {
    const given = definition({ by: ['chain'], sizes: ['1m', '6h'], percentiles: false });
    const store = new AskedStore();
    const rows = chains.flatMap((chain, n) => [1, 2, 3].map((i) => trade('insert', 3 * n + i, chain, String(i), i * 100)));
    runEngine(given, rows, atOnce, store);
    store.asked.length = 0;
    // The largest goes from each.
    runEngine(
      given,
      chains.map((chain, n) => trade('update', 3 * n + 3, chain, '0.5', 300)),
      atOnce,
      store,
      store.seq,
    );
    const index = start / 21_600_000;
    for (const chain of chains)
      expect(store.window(1, JSON.stringify([chain]), index)?.record).to.include({ count: 3, max: '2', min: '0.5' });
    expect(Math.max(...store.asked)).to.be.at.most(10_000);
    expect(store.asked.reduce((sum, size) => sum + size)).to.be.at.least(60 * 300);
  });

  it('comes in portions when the points and values of large windows are wanted', () => {
    const given = definition({ by: ['chain'], sizes: ['1h'], keep: '36d' });
    const store = new AskedStore();
    const some = chains.slice(0, 15);
    const rows = some.flatMap((chain, n) => Array.from({ length: 1_020 }, (_, i) => trade('insert', 2_000 * n + i, chain, String(i), 1)));
    runEngine(given, rows, atOnce, store);
    store.asked.length = 0;
    const more = some.flatMap((chain, n) => [
      trade('update', 2_000 * n + 1_019, chain, '7', 1),
      ...Array.from({ length: 8 }, (_, i) => trade('insert', 2_000 * n + 1_500 + i, chain, '8', 2)),
    ]);
    runEngine(given, more, atOnce, store, store.seq);
    const index = start / 3_600_000;
    for (const chain of some)
      expect(store.window(0, JSON.stringify([chain]), index)?.record).to.include({ count: 1_028, max: '1018', sketched: true });
    expect(Math.max(...store.asked)).to.be.within(5_000, 10_000);
  });

  it('counts what is committed between a question and the use of its answer', () => {
    const given = definition({ by: ['chain'], sizes: ['5m'], percentiles: false });
    const history = [
      ...[1, 2, 3].map((id) => trade('insert', id, 'Base', String(10 * id), id - 1)),
      // Fills a batch, and has the window leave memory.
      ...[4, 5, 6, 7].map((id) => trade('insert', id, 'Ethereum', '1', 0)),
      // The largest goes; what is next is among points whose commit comes in between.
      trade('update', 3, 'Base', '5', 2),
    ];
    for (let underWay = 1; underWay <= 2; underWay++)
      for (let size = 1; size <= history.length; size++) {
        const cuts = { ...oneByOne, effects: [1, size], underWay, mostRecords: 0 };
        const window = runEngine(given, history, cuts).window(0, '["Base"]', start / 300_000);
        expect(window?.record, `${underWay} batches under way, ${size} events each`).to.include({ count: 3, min: '5', max: '20' });
      }
  });
});
