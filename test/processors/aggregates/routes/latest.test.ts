import { expect } from 'chai';
import { startReading, trade, type Item, type Reading } from '../support/reading.ts';

const yaml = `
aggregates:
  trades: { table: public.trades, by: [pair, size], value: price, time: traded_at, of: rows, windows: [1m, 5m], sliding: [2m], functions: [sum] }
  all: { table: public.trades, by: [], time: traded_at, of: rows, sliding: [2m, 5m], functions: [count] }
others: true
exclude: []
`;

const minute = (n: number): string => `2026-11-22T00:${String(n).padStart(2, '0')}:00Z`;
const place = ({ by, window, sliding, start, sum }: Item): unknown[] => [
  Object.values(by as object),
  window ?? `~${String(sliding)}`,
  start,
  sum,
];

describe('aggregates over HTTP: latest', function () {
  this.timeout(60_000);
  let reading: Reading;
  before(async () => {
    reading = await startReading(yaml);
    await reading.append(
      trade('insert', 1, { pair: 'a', size: 1, price: '1' }, 0),
      trade('insert', 2, { pair: 'a', size: 1, price: '2' }, 60),
      trade('insert', 3, { pair: 'a', size: 2, price: '4' }, 60),
      trade('insert', 4, { pair: 'b', size: 1, price: '8' }, 360),
      trade('insert', 5, { pair: 'b', size: null, price: '16' }, 420),
    );
  });
  after(() => reading.close());

  it('gives each group’s newest windows of each size', async () => {
    const { items, next, seq } = await reading.get('/trades/latest');
    expect(items.map(place)).to.deep.equal([
      [['a', 1], '1m', minute(1), '2'],
      [['a', 1], '5m', minute(0), '3'],
      [['a', 1], '~2m', minute(0), '3'],
      [['a', 2], '1m', minute(1), '4'],
      [['a', 2], '5m', minute(0), '4'],
      [['a', 2], '~2m', minute(0), '4'],
      [['b', 1], '1m', minute(6), '8'],
      [['b', 1], '5m', minute(5), '8'],
      [['b', 1], '~2m', minute(5), '8'],
      [['b', null], '1m', minute(7), '16'],
      [['b', null], '5m', minute(5), '16'],
      [['b', null], '~2m', minute(6), '16'],
    ]);
    expect([next, seq]).to.deep.equal([null, 5]);
  });

  it('takes any of the columns, and a size', async () => {
    const groups = async (query: string): Promise<unknown[]> => (await reading.get(`/trades/latest?${query}`)).items.map(place);
    expect(await groups('size=1&window=1m')).to.deep.equal([
      [['a', 1], '1m', minute(1), '2'],
      [['b', 1], '1m', minute(6), '8'],
    ]);
    expect(await groups('isNull=size&sliding=2m')).to.deep.equal([[['b', null], '~2m', minute(6), '16']]);
    expect(await groups('pair=a&size=2&window=5m')).to.deep.equal([[['a', 2], '5m', minute(0), '4']]);
    expect(await groups('pair=c')).to.deep.equal([]);
  });

  it('pages over groups', async () => {
    const found: unknown[] = [];
    let path: string | undefined = '/trades/latest?window=1m&limit=3';
    for (let pages = 0; path !== undefined; pages++) {
      expect(pages).to.be.lessThan(3);
      const { items, next } = await reading.get(path);
      found.push(...items.map((item): unknown => Object.values(item['by'] as object)));
      path = next === null ? undefined : `/trades/latest?window=1m&limit=3&cursor=${next}`;
    }
    expect(found).to.deep.equal([
      ['a', 1],
      ['a', 2],
      ['b', 1],
      ['b', null],
    ]);
  });

  it('has sliding windows alone, and one group for all rows, where that is what is defined', async () => {
    const { items } = await reading.get('/all/latest');
    expect(items.map(({ by, sliding, start, end, count }) => [by, sliding, start, end, count])).to.deep.equal([
      [{}, '2m', minute(6), minute(8), 2],
      [{}, '5m', minute(3), minute(8), 2],
    ]);
    const series = await reading.get(`/all?sliding=5m&from=${minute(0)}&to=${minute(3)}`);
    expect(series.items.map(({ start, count }) => [start, count])).to.deep.equal([
      [minute(0), 3],
      [minute(1), 2],
      [minute(2), 1],
    ]);
  });

  it('is empty once everything is gone, and says which sequence that includes', async () => {
    const seq = await reading.append(...[1, 2, 3, 4, 5].map((id) => trade('delete', id)));
    const { items, seq: included } = await reading.get('/trades/latest');
    expect([items, included]).to.deep.equal([[], seq]);
  });
});
