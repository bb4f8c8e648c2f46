import { expect } from 'chai';
import fc from 'fast-check';
import { canonicalDecimal, divideDecimal } from '../../../../schemas/decimal-sum.ts';
import { startReading, trade, type Item, type Reading } from '../support/reading.ts';

const yaml = `
aggregates:
  trades: { table: public.trades, by: [pair], value: price, time: traded_at, of: changes, windows: [1m, 5m, 15m], sliding: [3m, 10m, 40m], functions: [sum, avg, min, max, open, close, p50, p99] }
others: true
exclude: []
`;
const sizes = [3, 10, 40] as const;
const start = Date.UTC(2026, 10, 22);
const iso = (minute: number): string => new Date(start + minute * 60_000).toISOString().replace('.000Z', 'Z');

interface Trade {
  readonly second: number;
  readonly cents: number;
}

/** The sliding windows of so many minutes that begin in a stretch of minutes, made anew from all trades. */
function* naive(trades: readonly Trade[], minutes: number, from: number, to: number, now: number): Generator<Item> {
  const sorted = trades.map((one, i) => ({ ...one, i })).sort((a, b) => a.second - b.second || a.i - b.i);
  const newest = Math.floor(sorted.at(-1)!.second / 60);
  for (let end = from + minutes; end <= Math.max(now, newest) + 1 && end - minutes < to; end++) {
    const inside = sorted.filter(({ second }) => second >= (end - minutes) * 60 && second < end * 60).map(({ cents }) => cents);
    if (inside.length === 0) continue;
    const ranked = inside.toSorted((a, b) => a - b);
    const text = (cents: number): string => canonicalDecimal(`${cents}e-2`)!;
    const sum = text(inside.reduce((a, b) => a + b));
    yield {
      start: iso(end - minutes),
      end: iso(end),
      count: inside.length,
      sum,
      avg: divideDecimal(sum, inside.length),
      min: text(ranked[0]!),
      max: text(ranked.at(-1)!),
      open: text(inside[0]!),
      close: text(inside.at(-1)!),
      p50: text(ranked[Math.ceil(ranked.length * 0.5) - 1]!),
      p99: text(ranked[Math.ceil(ranked.length * 0.99) - 1]!),
      exact: true,
    };
  }
}

describe('sliding windows', function () {
  this.timeout(120_000);
  let reading: Reading;
  let runs = 0;
  /** The newest minute of the log's time. */
  let now = 0;
  before(async () => void (reading = await startReading(yaml)));
  after(() => reading.close());

  async function insert(pair: string, trades: readonly Trade[]): Promise<void> {
    await reading.append(...trades.map(({ second, cents }, id) => trade('insert', id, { pair, price: (cents / 100).toFixed(2) }, second)));
    now = Math.max(now, ...trades.map(({ second }) => Math.floor(second / 60)));
  }

  async function all(query: string): Promise<readonly Item[]> {
    const found: Item[] = [];
    for (let cursor = ''; ;) {
      const { items, next, error } = await reading.get(`/trades?${query}${cursor}`);
      expect(error).to.equal(undefined);
      found.push(...items.map(({ by: _by, revision: _revision, ...item }) => item));
      if (next === null) return found;
      cursor = `&cursor=${next}`;
    }
  }

  it('are what all their rows make, however they are paged', async () => {
    const one = fc.record({ second: fc.integer({ min: 0, max: 4 * 3_600 }), cents: fc.integer({ min: -500, max: 500 }) });
    const clustered = fc
      .array(
        fc.tuple(
          fc.integer({ min: 0, max: 200 }),
          fc.array(fc.record({ second: fc.integer({ min: 0, max: 400 }), cents: one.map(({ cents }) => cents) }), { maxLength: 12 }),
        ),
        { minLength: 1, maxLength: 4 },
      )
      .map((clusters) => clusters.flatMap(([minute, some]) => some.map(({ second, cents }) => ({ second: minute * 60 + second, cents }))));
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.array(one, { minLength: 1, maxLength: 30 }),
          clustered.filter(({ length }) => length > 0),
        ),
        fc.constantFrom(...sizes),
        fc.integer({ min: 1, max: 60 }),
        fc.integer({ min: -60, max: 100 }),
        fc.integer({ min: 0, max: 260 }),
        async (trades, minutes, limit, from, length) => {
          const pair = `p${++runs}`;
          await insert(pair, trades);
          const found = await all(`pair=${pair}&sliding=${minutes}m&limit=${limit}&from=${iso(from)}&to=${iso(from + length)}`);
          const normal = found.map((item) => ({
            ...item,
            open: canonicalDecimal(String(item['open'])),
            close: canonicalDecimal(String(item['close'])),
            min: canonicalDecimal(String(item['min'])),
            max: canonicalDecimal(String(item['max'])),
          }));
          expect(normal).to.deep.equal([...naive(trades, minutes, from, from + length, now)]);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('have percentiles within 1 % once they hold many values, and say so', async () => {
    const trades = Array.from({ length: 3_000 }, (_, i) => ({ second: 60 * 100 + (i % 300), cents: ((i * 7_919) % 3_001) + 100 }));
    for (let begin = 0; begin < trades.length; begin += 500) await insert('many', trades.slice(begin, begin + 500));
    const found = await all(`pair=many&sliding=3m&limit=10`);
    const expected = [...naive(trades, 3, 90, 200, now)];
    expect(found.map(({ start: begin, count }) => [begin, count])).to.deep.equal(expected.map(({ start: begin, count }) => [begin, count]));
    expect(new Set(found.map(({ exact }) => exact))).to.deep.equal(new Set([true, false]));
    found.forEach((item, i) => {
      for (const percentile of ['p50', 'p99'] as const) {
        const [is, should] = [Number(item[percentile]), Number(expected[i]![percentile])];
        expect(Math.abs(is - should)).to.be.at.most(item['exact'] === true ? 0 : should * 0.01);
      }
    });
  });
});
