import { expect } from 'chai';
import { startReading, trade, type Item, type Reading } from '../support/reading.ts';

const yaml = `
aggregates:
  trades: { table: public.trades, by: [pair], value: price, time: traded_at, of: rows, windows: [1m, 5m], sliding: [3m], functions: [open, high, low, close, sum, avg, p50] }
  sized: { table: public.trades, by: [pair, size], value: price, time: traded_at, of: rows, windows: [1m], functions: [count], retention: { 1m: 10m } }
others: true
exclude: []
`;

const minute = (n: number): string => `2026-11-22T00:${String(n).padStart(2, '0')}:00Z`;
const ohlc = ({ open, high, low, close, count, p50 }: Item): string => [open, high, low, close, count, p50].join('/');

describe('aggregates over HTTP: series', function () {
  this.timeout(60_000);
  let reading: Reading;
  beforeEach(async () => void (reading = await startReading(yaml)));
  afterEach(() => reading.close());

  it('follows the check table: late, corrected, deleted and moved rows', async () => {
    const first = async (): Promise<string> => ohlc((await reading.get('/trades?pair=a')).items[0]!);
    await reading.append(
      trade('insert', 1, { price: '100' }, 5),
      trade('insert', 2, { price: '105' }, 20),
      trade('insert', 3, { price: '95' }, 59.999),
      trade('insert', 4, { price: '110' }, 60),
    );
    expect(await first()).to.equal('100/105/95/95/3/100');
    await reading.append(trade('insert', 5, { price: '120' }, 30));
    expect(await first()).to.equal('100/120/95/95/4/100');
    await reading.append(trade('update', 5, { price: '90' }, 30));
    expect(await first()).to.equal('100/105/90/95/4/95');
    await reading.append(trade('delete', 3));
    expect(await first()).to.equal('100/105/90/90/3/100');
    const seq = await reading.append(trade('update', 2, { price: '105' }, 70));
    const { items, seq: included, gaps } = await reading.get('/trades?pair=a');
    expect(items.map(ohlc)).to.deep.equal(['100/100/90/90/2/90', '110/110/105/105/2/105']);
    expect(items[0]).to.deep.equal({
      by: { pair: 'a' },
      start: minute(0),
      end: minute(1),
      revision: seq,
      count: 2,
      sum: '190',
      avg: '95',
      open: '100',
      high: '100',
      low: '90',
      close: '90',
      p50: '90',
      exact: true,
    });
    expect([included, gaps]).to.deep.equal([seq, []]);
  });

  it('gives pages that join, whatever their size, with the gaps between and around the windows', async () => {
    for (const at of [2, 3, 6, 12]) await reading.append(trade('insert', at, { price: '1.10' }, at * 60 + 1));
    const range = `/trades?pair=a&from=${minute(1)}&to=${minute(15)}`;
    const whole = await reading.get(range);
    expect(whole.items.map(({ start }) => start)).to.deep.equal([2, 3, 6, 12].map(minute));
    expect(whole.next).to.equal(null);
    expect(whole.gaps).to.deep.equal(
      [
        [1, 2],
        [4, 6],
        [7, 12],
        [13, 15],
      ].map(([start, end]) => ({ start: minute(start!), end: minute(end!), reason: 'empty' })),
    );
    const starts: unknown[] = [];
    const gaps: { start: string; end: string }[] = [];
    let cursor = '';
    for (let pages = 0; pages < 9; pages++) {
      const page = await reading.get(`${range}&limit=1${cursor}`);
      starts.push(...page.items.map(({ start }) => start));
      gaps.push(...page.gaps);
      if (page.next === null) break;
      cursor = `&cursor=${page.next}`;
    }
    expect(starts).to.deep.equal([2, 3, 6, 12].map(minute));
    expect(gaps).to.deep.equal(whole.gaps);
  });

  it('takes bounds as ISO 8601 and as milliseconds: from included, to excluded', async () => {
    for (const at of [0, 1, 2]) await reading.append(trade('insert', at, { price: '1' }, at * 60));
    const ms = (n: number): number => Date.parse(minute(n));
    expect((await reading.get(`/trades?pair=a&from=${ms(1)}&to=${ms(2)}`)).items.map(({ start }) => start)).to.deep.equal([minute(1)]);
    expect((await reading.get(`/trades?pair=a&from=2026-11-22T01:00:30%2B01:00`)).items.map(({ start }) => start)).to.deep.equal([
      minute(1),
      minute(2),
    ]);
    expect((await reading.get('/trades?pair=a&window=5m')).items.map(({ start, end, count }) => [start, end, count])).to.deep.equal([
      [minute(0), minute(5), 3],
    ]);
    expect((await reading.get('/trades?pair=b')).items).to.deep.equal([]);
  });

  it('slides over panes, one window at each of their ends, also as time passes without rows', async () => {
    await reading.append(
      trade('insert', 1, { price: '1' }, 0),
      trade('insert', 2, { price: '5' }, 61),
      trade('insert', 3, { price: '3' }, 301),
      trade('insert', 9, { price: '7', pair: 'b' }, 540),
    );
    const slid = await reading.get('/trades?pair=a&sliding=3m');
    expect(slid.items.map(({ start, end, count, high, p50 }) => [start, end, count, high, p50])).to.deep.equal([
      ['2026-11-21T23:58:00Z', minute(1), 1, '1', '1'],
      ['2026-11-21T23:59:00Z', minute(2), 2, '5', '1'],
      [minute(0), minute(3), 2, '5', '1'],
      [minute(1), minute(4), 1, '5', '5'],
      [minute(3), minute(6), 1, '3', '3'],
      [minute(4), minute(7), 1, '3', '3'],
      [minute(5), minute(8), 1, '3', '3'],
    ]);
    expect(slid.gaps).to.deep.equal([{ start: minute(2), end: minute(3), reason: 'empty' }]);
  });

  it('finds groups of any kind of value, and of none', async () => {
    await reading.append(
      trade('insert', 1, { price: '1', size: 5 }, 1),
      trade('insert', 2, { price: '1', size: '7' }, 2),
      trade('insert', 3, { price: '1', size: true }, 3),
      trade('insert', 4, { price: '1', size: null }, 4),
    );
    for (const [size, by] of [
      ['size=5', 5],
      ['size=7', '7'],
      ['by.size=true', true],
      ['isNull=size', null],
    ] as const) {
      const { items } = await reading.get(`/sized?pair=a&${size}`);
      expect(
        items.map((item) => item['by']),
        size,
      ).to.deep.equal([{ pair: 'a', size: by }]);
    }
    expect((await reading.get('/sized?pair=a&size=6')).items).to.deep.equal([]);
  });

  it('says from when on windows are kept', async () => {
    await reading.append(trade('insert', 1, { price: '1', size: 1 }, 0), trade('insert', 2, { price: '1', size: 1 }, 20 * 60 + 30));
    const { items, gaps } = await reading.get(`/sized?pair=a&size=1&from=${minute(0)}&to=${minute(21)}`);
    expect(items.map(({ start }) => start)).to.deep.equal([minute(20)]);
    expect(gaps).to.deep.equal([
      { start: minute(0), end: minute(11), reason: 'expired' },
      { start: minute(11), end: minute(20), reason: 'empty' },
    ]);
  });

  it('refuses what makes no sense, and names the field', async () => {
    const cases: readonly (readonly [path: string, field: string | undefined, message: RegExp])[] = [
      ['/trades', 'pair', /one group: give pair/],
      ['/trades?pai=a', 'pai', /did you mean pair/],
      ['/trades?pair=a&window=2m', 'window', /one of 1m, 5m/],
      ['/trades?pair=a&window=1m&sliding=3m', 'sliding', /not both/],
      ['/sized?pair=a&size=1&sliding=3m', 'sliding', /no sliding sizes/],
      ['/trades?pair=a&from=yesterday', 'from', /time with its zone/],
      ['/trades?pair=a&from=2&to=1', 'from', /later than to/],
      ['/trades?pair=a&limit=1001', 'limit', /1 to 1000/],
      ['/trades?pair=a&cursor=x', 'cursor', /not the "next"/],
      ['/trades?pair=a&isNull=pair', 'isNull', /both be null/],
      ['/trades?pair=a&format=xml', 'format', /json or csv/],
    ];
    await reading.append(trade('insert', 1, { price: '1' }, 0), trade('insert', 2, { price: '1' }, 60));
    for (const [path, field, message] of cases) {
      const { status, error } = await reading.get(path);
      expect([status, error?.code, error?.field], path).to.deep.equal([400, 'bad_request', field]);
      expect(error?.message).to.match(message);
    }
    const { next } = await reading.get('/trades?pair=a&limit=1');
    const other = await reading.get(`/trades?pair=b&limit=1&cursor=${next}`);
    expect([other.status, other.error?.field]).to.deep.equal([400, 'cursor']);
    const unknown = await reading.get('/trade?pair=a');
    expect([unknown.status, unknown.error?.message]).to.deep.equal([404, 'there is no aggregate trade; did you mean trades?']);
  });

  it('is for those who may read it', async () => {
    await reading.append(trade('insert', 1, { price: '1' }, 0));
    const status = async (path: string, as: string): Promise<number> => (await reading.get(path, { as })).status;
    expect(await status('/trades?pair=a', 'narrow')).to.equal(200);
    expect(await status('/sized?pair=a&size=1', 'narrow')).to.equal(403);
    expect(await status('/trades?pair=a', 'table')).to.equal(200);
    expect(await status('/trades?pair=a', 'other')).to.equal(403);
    const names = async (as: string): Promise<unknown[]> => (await reading.get('', { as })).items.map(({ name }) => name);
    expect([await names('secret'), await names('narrow'), await names('other')]).to.deep.equal([['sized', 'trades'], ['trades'], []]);
  });

  it('describes the definitions', async () => {
    await reading.append(trade('insert', 1, { price: '1' }, 0));
    expect((await reading.get('')).items[1]).to.deep.equal({
      name: 'trades',
      table: 'public.trades',
      by: ['pair'],
      value: 'price',
      time: 'traded_at',
      of: 'rows',
      windows: ['1m', '5m'],
      sliding: ['3m'],
      functions: ['sum', 'avg', 'open', 'high', 'low', 'close', 'p50'],
      retention: { '1m': '10000m', '5m': '50000m' },
      channel: 'aggregates:trades',
    });
  });

  it('answers in CSV when it is asked to', async () => {
    await reading.append(trade('insert', 1, { price: '1.50', pair: 'a,"b"' }, 0), trade('insert', 2, { price: '2', pair: 'a,"b"' }, 60));
    const lines = [
      'pair,start,end,revision,count,sum,avg,open,high,low,close,p50,exact',
      `"a,""b""",${minute(0)},${minute(1)},1,1,1.5,1.5,1.50,1.50,1.50,1.50,1.5,true`,
    ];
    const path = '/trades?pair=a%2C%22b%22&limit=1';
    for (const answer of [await reading.get(`${path}&format=csv`), await reading.get(path, { headers: { accept: 'text/csv' } })]) {
      expect(answer.headers.get('content-type')).to.equal('text/csv; charset=utf-8');
      expect(answer.text).to.equal(`${lines.join('\r\n')}\r\n`);
      expect(answer.headers.get('headwater-seq')).to.equal('2');
      expect((await reading.get(`${path}&cursor=${answer.headers.get('headwater-next')}`)).items).to.have.length(1);
    }
  });
});
