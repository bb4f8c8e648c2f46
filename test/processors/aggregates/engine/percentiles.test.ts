import { expect } from 'chai';
import fc from 'fast-check';
import { bucketOf, compareBuckets, estimateOf } from '../../../../processors/aggregates/engine/buckets.ts';
import { Distribution } from '../../../../processors/aggregates/engine/distribution.ts';
import { mostExactValues } from '../../../../processors/aggregates/model.ts';
import { rowEvent } from '../../../support/row-events.ts';
import { definition } from './definitions.ts';
import { runEngine, type Cuts, type EngineStore } from './engine-run.ts';

const percents = [50, 90, 95, 99];
const given = definition({ sizes: ['1m', '1h'] });
const trade = (n: number, op: string, id: number, price: string) =>
  rowEvent(n, op, {
    table: 'trades',
    key: { id },
    ...(op !== 'delete' && { after: { id, price, traded_at: '2026-11-22T12:00:30Z' } }),
  });
const minute = Date.UTC(2026, 10, 22, 12) / 60_000;

function distribution(store: EngineStore, level: number): Distribution {
  const { values, buckets } = store.window(level, '[]', level === 0 ? minute : minute / 60)!;
  return new Distribution().addValues(values).addBuckets(buckets);
}

/** The nearest rank, as `percentile_disc` defines it. */
function nearestRank(values: readonly number[], percent: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.ceil((percent * sorted.length) / 100) - 1]!;
}

describe('aggregates: percentiles', () => {
  it('are the nearest rank, also of decimals beyond doubles', () => {
    const values = new Map([
      ['9007199254740993.000000000000000001', 1],
      ['9007199254740993', 2],
      ['-1', 1],
    ]);
    const all = new Distribution().addValues(values);
    expect([1, 25, 26, 75, 76, 100].map((percent) => all.percentile(percent))).to.deep.equal([
      '-1',
      '-1',
      '9007199254740993',
      '9007199254740993',
      '9007199254740993.000000000000000001',
      '9007199254740993.000000000000000001',
    ]);
    expect(new Distribution().percentile(50)).to.equal(undefined);
  });

  it('buckets keep every value within 1 %, in the order of values', () => {
    const doubles = fc.double({ noNaN: true, noDefaultInfinity: true });
    const extremes = fc
      .tuple(fc.double({ min: 1, max: 9.99, noNaN: true }), fc.integer({ min: -5_000, max: 5_000 }))
      .map(([m, e]) => `${m}e${e}`);
    fc.assert(
      fc.property(fc.oneof(doubles.map(String), extremes), fc.oneof(doubles.map(String), extremes), (a, b) => {
        const estimate = estimateOf(bucketOf(a));
        const [log, found] = [log10(a), log10(estimate)];
        expect(estimate.startsWith('-')).to.equal(Number(a) < 0 || (a.startsWith('-') && log > -Infinity));
        if (log === -Infinity) expect(estimate).to.equal('0');
        else expect(Math.abs(10 ** (found - log) - 1), `${a} as ${estimate.slice(0, 40)}`).to.be.below(0.01);
        const order = compareBuckets(bucketOf(a), bucketOf(b));
        if (Number.isFinite(Number(a)) && Number.isFinite(Number(b)) && Number(a) < Number(b)) expect(order).to.be.at.most(0);
      }),
      { numRuns: 1_000 },
    );
  });

  const cutsOf: fc.Arbitrary<Cuts> = fc.record({
    read: fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 3 }),
    effects: fc.array(fc.integer({ min: 1, max: 500 }), { minLength: 1, maxLength: 3 }),
    underWay: fc.integer({ min: 0, max: 2 }),
    restart: fc.constantFrom(Infinity, 1_000, 1_030, 1_400),
    mostRecords: fc.constantFrom(0, 100_000),
  });

  it('stay within 1 % when a window holds too many values to keep, and when most of these go again', () => {
    fc.assert(
      fc.property(cutsOf, fc.infiniteStream(fc.integer({ min: -50_000, max: 3_000_000 })), (cuts, cents) => {
        const prices = Array.from({ length: 1_500 }, () => (cents.next().value! / 100).toFixed(2));
        const events = prices.map((price, n) => trade(n + 1, 'insert', n, price));
        const full = runEngine(given, events, cuts);
        for (const level of [0, 1]) close(full, level, prices.map(Number));
        const kept = prices.slice(1_300);
        events.push(...prices.slice(0, 1_300).map((_, n) => trade(events.length + n + 1, 'delete', n, '')));
        const less = runEngine(given, events, cuts);
        for (const level of [0, 1]) close(less, level, kept.map(Number));
      }),
      { numRuns: 8 },
    );
  });

  function close(store: EngineStore, level: number, values: readonly number[]): void {
    const all = distribution(store, level);
    expect([store.window(level, '[]', level === 0 ? minute : minute / 60)!.record.sketched, all.exact]).to.deep.equal([true, false]);
    for (const percent of percents) {
      const exact = nearestRank(values, percent);
      expect(Math.abs(Number(all.percentile(percent)) - exact), `p${percent}`).to.be.at.most(Math.abs(exact) * 0.01);
    }
  }

  it('are exact up to the limit, and again in a window that was empty in between', () => {
    const inserts = Array.from({ length: mostExactValues + 1 }, (_, n) => trade(n + 1, 'insert', n, String(n)));
    const cuts = { read: [100], effects: [100], underWay: 1, restart: Infinity, mostRecords: 0 };
    expect(distribution(runEngine(given, inserts.slice(0, -1), cuts), 0).exact).to.equal(true);
    const deletes = inserts.map((_, n) => trade(inserts.length + n + 1, 'delete', n, ''));
    const again = trade(inserts.length * 2 + 1, 'insert', 1, '5');
    const store = runEngine(given, [...inserts, ...deletes, again], { ...cuts, underWay: 0 });
    expect([distribution(store, 0).exact, distribution(store, 0).percentile(50)]).to.deep.equal([true, '5']);
  });
});

/** log10 of a decimal's size, also beyond doubles. */
function log10(text: string): number {
  const [mantissa = '', exponent = '0'] = text.replace(/^-/, '').split('e');
  const [whole = '', fraction = ''] = mantissa.split('.');
  const digits = (whole + fraction).replace(/^0+/, '');
  return digits === ''
    ? -Infinity
    : Math.log10(Number(`0.${digits.slice(0, 20)}`)) + whole.length - (whole + fraction).indexOf(digits) + Number(exponent);
}
