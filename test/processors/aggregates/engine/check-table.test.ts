import { expect } from 'chai';
import { Distribution } from '../../../../processors/aggregates/engine/distribution.ts';
import { rowEvent } from '../../../support/row-events.ts';
import { definition } from './definitions.ts';
import { oneByOne, runEngine, type EngineStore } from './engine-run.ts';

const start = Date.UTC(2026, 10, 22, 12);
const minute = start / 60_000;
const definitionOfTrades = definition({ sizes: ['1m'] });

/** A trade `id:price×qty@second`. */
function trade(op: string, id: number, price: string, qty: string, second: number) {
  const key = { id };
  const after = { ...key, price, qty, traded_at: new Date(start + second * 1_000).toISOString() };
  return (n: number) => rowEvent(n, op, { table: 'trades', key, ...(op === 'delete' ? { before: key } : { after }) });
}

const first = [
  trade('insert', 1, '100', '1', 5),
  trade('insert', 2, '105', '2', 20),
  trade('insert', 3, '95', '1', 59.999),
  trade('insert', 4, '110', '4', 60),
];
const late = trade('insert', 5, '120', '1', 30);
const corrected = trade('update', 5, '90', '1', 30);
const deleted = trade('delete', 3, '95', '1', 59.999);
const moved = trade('update', 2, '105', '2', 70);

/** O/H/L/C/count/p50 of a minute. */
function summary(store: EngineStore, index: number): string {
  const { record, values } = store.window(0, '[]', index)!;
  const p50 = new Distribution().addValues(values).percentile(50);
  return [record.open.value, record.max, record.min, record.close.value, record.count, p50].join('/');
}

describe('aggregates: the check table', () => {
  const histories = [
    { what: 'four trades', steps: first, expected: '100/105/95/95/3/100' },
    { what: 'a late one', steps: [...first, late], expected: '100/120/95/95/4/100' },
    { what: 'its correction', steps: [...first, late, corrected], expected: '100/105/90/95/4/95' },
    { what: 'a delete', steps: [...first, late, corrected, deleted], expected: '100/105/90/90/3/100' },
    { what: 'a move to the next minute', steps: [...first, late, corrected, deleted, moved], expected: '100/100/90/90/2/90' },
  ];
  for (const { what, steps, expected } of histories) {
    const events = steps.map((step, n) => step(n + 1));
    it(`${what}, event by event`, () => expect(summary(runEngine(definitionOfTrades, events, oneByOne), minute)).to.equal(expected));
    it(`${what}, in one batch`, () => {
      const cuts = { ...oneByOne, read: [100], effects: [100] };
      expect(summary(runEngine(definitionOfTrades, events, cuts), minute)).to.equal(expected);
    });
  }

  it('puts a trade at the end of a minute into the next one', () => {
    const events = first.map((step, n) => step(n + 1));
    expect(summary(runEngine(definitionOfTrades, events, oneByOne), minute + 1)).to.equal('110/110/110/110/1/110');
  });

  it('says which event changed a window last', () => {
    const events = [...first, late].map((step, n) => step(n + 1));
    const store = runEngine(definitionOfTrades, events, oneByOne);
    expect([store.window(0, '[]', minute)!.record.revision, store.window(0, '[]', minute + 1)!.record.revision]).to.deep.equal([5, 4]);
  });
});
