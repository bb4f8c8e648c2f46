import { expect } from 'chai';
import fc from 'fast-check';
import { AggregateEngine } from '../../../../processors/aggregates/engine/aggregate-engine.ts';
import { parseEventTime } from '../../../../processors/aggregates/engine/event-time.ts';
import { sortableId } from '../../../../processors/aggregates/engine/row-id.ts';
import { HeadwaterError } from '../../../../pipeline/runtime/errors.ts';
import { rowEvent } from '../../../support/row-events.ts';
import { definition } from './definitions.ts';
import { EngineStore, oneByOne, runEngine } from './engine-run.ts';

const day = 86_400_000_000;
const key = { id: 1 };

describe('aggregates: ids of rows', () => {
  const byCodePoint = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b));
  const texts = fc
    .string({
      unit: fc.oneof(
        fc.constantFrom('\uD7FF', '\uE000', '\uFFFF', '\u{10000}', '\u{10FFFF}', 'a', '0', '~', '1'),
        fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }),
      ),
    })
    .filter((text) => !text.includes('\0'));
  const numbers = fc.tuple(fc.bigInt({ min: -(10n ** 25n), max: 10n ** 25n }), fc.constantFrom(0n, 0n, 12n, 24n));

  it('sort as the keys do: numbers by value, text by code point, column after column', () => {
    const keys = fc.tuple(
      numbers.map(([n, shift]) => n / 10n ** shift),
      texts,
      fc.integer({ min: -1_200, max: 1_200 }),
    );
    const idOf = ([n, text, cents]: [bigint, string, number]): string =>
      sortableId([String(n), text, (cents / 100).toFixed(2)], (position) => position !== 1);
    fc.assert(
      fc.property(keys, keys, (a, b) => {
        const expected = a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : byCodePoint(a[1], b[1]) || a[2] - b[2];
        const [x, y] = [idOf(a), idOf(b)];
        expect(Math.sign(x < y ? -1 : x > y ? 1 : 0)).to.equal(Math.sign(expected));
        expect(x).to.equal(Buffer.from(x).toString());
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('aggregates: event times', () => {
  it('are read to the microsecond', () => {
    const times = fc.date({ min: new Date('1700-01-01'), max: new Date('2254-12-31'), noInvalidDate: true });
    fc.assert(
      fc.property(times, fc.nat(999), (date, micros) => {
        const text = `${date.toISOString().slice(0, -1)}${String(micros).padStart(3, '0')}`;
        expect([parseEventTime(`${text}Z`), parseEventTime(text)]).to.deep.equal(Array(2).fill(date.getTime() * 1_000 + micros));
        expect(parseEventTime(text.slice(0, 10))).to.equal(Math.floor(date.getTime() / 86_400_000) * day);
      }),
    );
    expect(parseEventTime('2026-11-22T00:00:00.5Z')).to.equal(Date.UTC(2026, 10, 22) * 1_000 + 500_000);
  });

  it('are none where there is no finite time', () => {
    const none = [
      'infinity',
      '-infinity',
      '',
      '0044-03-15 00:00:00+00 BC',
      '10000-01-01',
      '2026-11-22T00:00:00.Z',
      '2026-11-22 00:00:00',
      '9999-12-31',
      'noon',
    ];
    for (const text of none) expect(parseEventTime(text), text).to.equal(undefined);
  });
});

describe('aggregates: what is left out', () => {
  const trade = (n: number, after: Readonly<Record<string, unknown>>, more: object = {}) =>
    rowEvent(n, 'insert', { table: 'trades', key, after: { ...key, price: '1', traded_at: '2026-11-22T00:00:00Z', ...after }, ...more });
  const leftOut = (of: 'rows' | 'changes', ...events: ReturnType<typeof trade>[]) => {
    const engine = new AggregateEngine(definition({ of, keep: '1d' }));
    const store = new EngineStore();
    const log = events.map((event, n) => ({ ...event, seq: n + 1 }));
    const steps = engine.prepare(log);
    for (let step = steps.next(); !step.done;) step = steps.next(store.load(step.value));
    const effects = engine.begin();
    for (const event of log) engine.apply(event, effects);
    return { windows: effects.seal().windows.length, leftOut: Object.entries(engine.leftOut).filter(([, count]) => count > 0) };
  };

  for (const of of ['rows', 'changes'] as const) {
    it(`is counted by its reason (${of})`, () => {
      const cases: [string, ReturnType<typeof trade>][] = [
        ['not_a_number', trade(1, { price: 'NaN' })],
        ['not_a_number', trade(1, { price: '$1.50' })],
        ['not_a_number', trade(1, { price: true })],
        ['no_time', trade(1, { traded_at: null })],
        ['no_time', trade(1, { traded_at: 'infinity' })],
        ['too_old', trade(1, { traded_at: '2026-11-11T00:00:00Z' })],
        ['unchanged', trade(1, { price: undefined }, { unchanged: ['price'] })],
        ['omitted', trade(1, { price: undefined }, { omitted: ['price'] })],
      ];
      for (const [reason, event] of cases) expect(leftOut(of, event), reason).to.deep.equal({ windows: 0, leftOut: [[reason, 1]] });
    });
  }

  it('says nothing of NULL, which counts no more than in SQL', () => {
    expect(leftOut('rows', trade(1, { price: null }))).to.deep.equal({ windows: 0, leftOut: [] });
  });

  it('counts rows without a value when none is asked for', () => {
    const counting = { ...definition({ sizes: ['1m'], percentiles: false }), value: undefined };
    const store = runEngine(counting, [trade(1, { price: null })], oneByOne);
    expect([...store.windows.values()].map(({ record }) => record.count)).to.deep.equal([1]);
  });

  it('takes an old row out of nothing, and the row itself to where it is now', () => {
    const short = definition({ sizes: ['1m'], keep: '10s' });
    const at = (n: number) => new Date(Date.UTC(2026, 10, 22) + n).toISOString();
    const events = [trade(1, { traded_at: at(0) }), trade(150_000, { traded_at: at(150_000) })];
    const store = runEngine(short, events, oneByOne);
    expect([...store.points.keys()]).to.deep.equal([`${Date.UTC(2026, 10, 22) / 60_000 + 2}:[]`]);
    expect(store.rows.get('1')?.at).to.equal((Date.UTC(2026, 10, 22) + 150_000) * 1_000);
  });

  it('refuses rows that cannot be told apart, and bytes that are no event', () => {
    const code = (data: object | string): string => {
      const engine = new AggregateEngine(definition());
      const bytes = Buffer.from(typeof data === 'string' ? data : JSON.stringify(data));
      const event = { seq: 1, subject: 'ev.public.trades.insert', data: bytes };
      expect(engine.prepare([event]).next().done).to.equal(true);
      try {
        engine.apply(event, engine.begin());
      } catch (error) {
        return error instanceof HeadwaterError ? error.code : String(error);
      }
      return 'none';
    };
    expect(code({ at: '2026-11-22T00:00:00Z', after: {} })).to.equal('no_primary_key');
    for (const data of ['{', '[]', 'null', {}, { at: 'x' }, { at: '2026-11-22T00:00:00Z', key }]) expect(code(data)).to.equal('bad_event');
  });
});
