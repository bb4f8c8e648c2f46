import { expect } from 'chai';
import { rowEvent } from '../../../support/row-events.ts';
import { definition } from './definitions.ts';
import { oneByOne, runEngine } from './engine-run.ts';

const start = Date.UTC(2026, 10, 22, 12);
const minute = start / 60_000;

const at = (second: number): string => new Date(start + second * 1_000).toISOString();
/** A trade that was made and committed at a second. */
function trade(n: number, op: string, id: number, second: number) {
  const key = { id };
  const { subject, data } = rowEvent(n, op, { table: 'trades', key, after: { ...key, price: '1', qty: '1', traded_at: at(second) } });
  const event = JSON.parse(Buffer.from(data).toString('utf8')) as object;
  return { subject, data: Buffer.from(JSON.stringify({ ...event, at: at(second) })) };
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
