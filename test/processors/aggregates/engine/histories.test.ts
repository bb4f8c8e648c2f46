import { expect } from 'chai';
import fc from 'fast-check';
import type { Definition } from '../../../../processors/aggregates/model.ts';
import { definition } from './definitions.ts';
import { runEngine, type Cuts, type EngineStore } from './engine-run.ts';
import { Naive, scaled, toEvent, type Key, type Price, type Step } from './naive.ts';

const keys: fc.Arbitrary<Key> = fc.record({
  id: fc.constantFrom(-7, 2, 10, 9),
  name: fc.constantFrom('', 'a', '10', '9', '\uFFFD', '\u{1F600}', 'a:b'),
});

const prices: fc.Arbitrary<Price> = fc.oneof(
  fc
    .constantFrom(
      '1',
      '1.0',
      '1.00',
      '-1',
      '0',
      '0.00',
      '3.5',
      '-0.5',
      '100',
      '12345678901234567890.123456789',
      '0.00000000000000000000000001',
    )
    .map((text): Price => ({ raw: text, text })),
  fc.integer({ min: -300, max: 300 }).map((cents): Price => ({ raw: (cents / 100).toFixed(2), text: (cents / 100).toFixed(2) })),
  fc.constantFrom<Price>(
    { raw: 7, text: '7' },
    { raw: -2.25, text: '-2.25' },
    { raw: 1e21, text: '1e+21' },
    { raw: 0.00001, text: '1e-05' },
    { raw: 'NaN', text: undefined },
    { raw: '-Infinity', text: undefined },
    { raw: null, text: undefined },
    { raw: undefined, text: undefined },
  ),
);

/** Within few windows, often at their edges, rarely far away. */
const seconds = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0, max: 20 }).map((n) => n * 30) },
  { weight: 2, arbitrary: fc.constantFrom(59.999, 60, 119.999, 3_599.999, 3_600, 7_200) },
  { weight: 1, arbitrary: fc.constantFrom(null, -1, -90_000) },
);

const steps: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 48,
    arbitrary: fc.record({
      op: fc.constantFrom('insert' as const, 'update' as const, 'update' as const, 'read' as const),
      key: keys,
      from: fc.option(keys, { nil: undefined, freq: 4 }),
      chain: fc.constantFrom('Base', 'Base', 'Ethereum', null),
      price: prices,
      second: seconds,
      unchanged: fc.oneof(
        { weight: 8, arbitrary: fc.constant([]) },
        { weight: 1, arbitrary: fc.subarray<'chain' | 'price'>(['chain', 'price']) },
      ),
    }),
  },
  { weight: 12, arbitrary: fc.record({ op: fc.constant('delete' as const), key: keys }) },
  { weight: 1, arbitrary: fc.constant({ op: 'truncate' as const }) },
);

const cutsOf: fc.Arbitrary<Cuts> = fc.record({
  read: fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 5 }),
  effects: fc.array(fc.integer({ min: 1, max: 15 }), { minLength: 1, maxLength: 5 }),
  underWay: fc.integer({ min: 0, max: 2 }),
  restart: fc.constantFrom(Infinity, 13, 30),
  mostRecords: fc.constantFrom(0, 8, 1_000),
});

/** Compares everything that is stored, and kept, with what the naive way makes of the same history. */
function compare(store: EngineStore, naive: Naive, { levels, percentiles }: Definition): void {
  const found = [...store.windows].map(([name, { record, values }]) => {
    const [, level, rest] = /^(\d+):(.*)$/s.exec(name)!;
    const { count, sum, min, max, open, close, revision } = record;
    return {
      name: `${levels[Number(level)]!.text}:${rest}`,
      ...{ count, sum: scaled(sum), min, max, open: open.value, close: close.value, revision },
      values: [...values].flatMap(([value, times]) => Array<bigint>(times).fill(scaled(value))).toSorted((a, b) => (a < b ? -1 : 1)),
    };
  });
  const expected = [...naive.windows.values()].map(({ name, count, sum, min, max, open, close, revision, values }) => ({
    name,
    count,
    sum,
    min,
    max,
    open,
    close,
    revision,
    values: percentiles ? values : [],
  }));
  const kept = <T extends { readonly name: string }>(list: T[]): T[] =>
    list.filter(({ name }) => naive.isKept(name)).toSorted((a, b) => (a.name < b.name ? -1 : 1));
  expect(kept(found)).to.deep.equal(kept(expected));
}

/** What expires leaves the store by its own sweeps; so this is only true as long as nothing does. */
function compareRows(store: EngineStore, naive: Naive, { of }: Definition): void {
  expect(store.rows.size).to.equal(naive.rows);
  const points = [...store.points.values()].reduce((sum, { size }) => sum + size, 0);
  expect(points).to.equal(of === 'rows' ? naive.rows : 0);
}

/** The table's columns, as capture tells them. */
const schemaEvent = {
  subject: 'ev._schema.public.trades',
  data: Buffer.from(
    JSON.stringify({
      v: 1,
      id: '0000000000000000.00000000',
      columns: [
        { name: 'id', type: 'integer', key: true },
        { name: 'name', type: 'text', key: true },
      ],
      at: '2026-11-22T00:00:00.000000Z',
    }),
  ),
};

const cases = { numRuns: 300 };

function check(given: Definition): void {
  fc.assert(
    fc.property(fc.array(steps, { minLength: 1, maxLength: 60, size: 'max' }), cutsOf, (history, cuts) => {
      const naive = new Naive(given);
      history.forEach((step, n) => naive.apply(step, n + 2, 0));
      const store = runEngine(given, [schemaEvent, ...history.map((step, n) => toEvent(step, n + 2, 0))], cuts);
      compare(store, naive, given);
      compareRows(store, naive, given);
    }),
    cases,
  );
}

/** A step that comes so many seconds after the one before, and perhaps is of something recent. */
const timedSteps = fc.record({
  step: steps,
  later: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, fc.constantFrom(1, 30, 60, 299.999, 300, 600, 1_800)),
  recent: fc.boolean(),
});

function checkExpiring(given: Definition): void {
  fc.assert(
    fc.property(fc.array(timedSteps, { minLength: 1, maxLength: 60, size: 'max' }), cutsOf, (timed, cuts) => {
      let now = 0;
      const history = timed.map(({ step, later, recent }) => {
        now += later;
        const moves = recent && 'second' in step && step.second !== null;
        return { step: moves ? { ...step, second: step.second + now - 600 } : step, now };
      });
      const naive = new Naive(given);
      history.forEach((one, n) => naive.apply(one.step, n + 2, one.now));
      const store = runEngine(given, [schemaEvent, ...history.map((one, n) => toEvent(one.step, n + 2, one.now))], cuts);
      compare(store, naive, given);
    }),
    cases,
  );
}

describe('aggregates: random histories, cut into random batches', () => {
  const ofRows = { by: ['chain'] };
  const ofChanges = { ...ofRows, of: 'changes' } as const;
  const oneLevel = { ...ofRows, sizes: ['5m'], percentiles: false };
  it('of rows equal what all rows together make', () => check(definition(ofRows)));
  it('of changes equal what all observations together make', () => check(definition(ofChanges)));
  it('without percentiles, over one level', () => check(definition(oneLevel)));
  // Ten times as long.
  it('of rows, while windows expire', () => checkExpiring(definition({ ...ofRows, keep: '3m' })));
  it('of changes, while windows expire', () => checkExpiring(definition({ ...ofChanges, keep: '3m' })));
  it('over one level, while windows expire', () => checkExpiring(definition({ ...oneLevel, keep: '1m' })));
});
