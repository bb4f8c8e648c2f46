import { expect } from 'chai';
import fc from 'fast-check';
import { checkRuleCondition } from '../../../schemas/condition/check.ts';
import type { RuleCondition, Scalar } from '../../../schemas/condition/condition.ts';
import { compileFilter, compileRule, usesOf, type RuleView, type Truth } from '../../../schemas/condition/evaluate.ts';
import { comparePercent } from '../../../schemas/condition/percent.ts';

const columns = new Map([
  ['n', 'numeric'],
  ['m', 'numeric(20,2)'],
  ['s', 'text'],
]);

/** What a rule sees, by column; undefined is missing. */
interface Seen {
  readonly now: Readonly<Record<string, unknown>>;
  readonly before: Readonly<Record<string, unknown>>;
  readonly hourAgo: Readonly<Record<string, unknown>>;
  readonly quietMinutes: number | undefined;
}

function viewOf(seen: Seen): RuleView {
  return {
    value: (field) => seen.now[field],
    previous: (field) => seen.before[field],
    ago: (field) => seen.hourAgo[field],
    quiet: () => (seen.quietMinutes === undefined ? undefined : seen.quietMinutes * 60_000_000),
  };
}

/** Truth as a number, so that `and` is the least, `or` the greatest, and `not` what is missing to one. */
type Degree = 0 | 0.5 | 1;

/** The same as `compileRule`, thought of differently: whole numbers of hundredths, degrees of truth. */
function degree(node: RuleCondition, seen: Seen): Degree {
  if ('and' in node) return Math.min(...node.and.map((part) => degree(part, seen))) as Degree;
  if ('or' in node) return Math.max(...node.or.map((part) => degree(part, seen))) as Degree;
  if ('not' in node) return (1 - degree(node.not, seen)) as Degree;
  if ('absent_for' in node)
    return seen.quietMinutes === undefined ? 0.5 : seen.quietMinutes >= Number.parseInt(node.absent_for, 10) ? 1 : 0;
  const now = seen.now[node.field];
  const wanted = 'value' in node ? [node.value].flat() : [];
  if ('change' in node) {
    const then = seen.hourAgo[node.field];
    if (now == null || then == null || cents(then) === 0n) return 0.5;
    // (now − then) × 100 / |then|, in hundredths, compared without dividing.
    const [change, base] = [(cents(now) - cents(then)) * 100n * 100n, cents(then) < 0n ? -cents(then) : cents(then)];
    return test(
      node.op,
      change,
      wanted.map((percent) => cents(percent) * base),
    );
  }
  const before = seen.before[node.field];
  switch (node.op) {
    case 'is_null':
      return now === undefined ? 0.5 : (now === null) === (node.value !== false) ? 1 : 0;
    case 'changed':
      return now === undefined || before === undefined ? 0.5 : comparable(now) === comparable(before) ? 0 : 1;
    case 'crosses_above':
      return Math.min(atThreshold('lte', before, wanted[0]!), atThreshold('gt', now, wanted[0]!)) as Degree;
    case 'crosses_below':
      return Math.min(atThreshold('gte', before, wanted[0]!), atThreshold('lt', now, wanted[0]!)) as Degree;
    default:
      return now == null
        ? 0.5
        : test(
            node.op,
            comparable(now)!,
            wanted.map((value) => comparable(value)!),
          );
  }
}

function atThreshold(op: string, value: unknown, threshold: Scalar): Degree {
  return value == null ? 0.5 : test(op, cents(value), [cents(threshold)]);
}

function test(op: string, value: bigint | string, wanted: readonly (bigint | string)[]): Degree {
  const [first, second] = wanted as [bigint | string, bigint | string];
  const truths: Readonly<Record<string, boolean>> = {
    eq: value === first,
    ne: value !== first,
    gt: value > first,
    gte: value >= first,
    lt: value < first,
    lte: value <= first,
    in: wanted.includes(value),
    nin: !wanted.includes(value),
    between: value >= first && value <= second,
  };
  return truths[op] === true ? 1 : 0;
}

function comparable(value: unknown): bigint | string | null {
  return value === null ? null : typeof value === 'string' && /^[a-z]*$/.test(value) ? value : cents(value);
}

/** Hundredths. */
function cents(value: unknown): bigint {
  const [whole = '', fraction = ''] = String(value).split('.');
  return BigInt(`${whole}${fraction.padEnd(2, '0')}`);
}

const numbers = fc.oneof(
  fc.integer({ min: -3, max: 3 }),
  fc
    .integer({ min: -300, max: 300 })
    .map((n) => `${n < 0 ? '-' : ''}${Math.floor(Math.abs(n) / 100)}.${String(Math.abs(n) % 100).padStart(2, '0')}`),
  fc.constantFrom('1.1', '1.10', '123456789012345678901234567890.55', '123456789012345678901234567890.56'),
);
const words = fc.constantFrom('', 'a', 'b', 'ab');
const unknowns = fc.constantFrom(null, undefined);
const row = fc.record({
  n: fc.oneof({ arbitrary: numbers, weight: 5 }, unknowns),
  m: fc.oneof({ arbitrary: numbers, weight: 5 }, unknowns),
  s: fc.oneof({ arbitrary: words, weight: 5 }, unknowns),
});
const sights = fc.record({ now: row, before: row, hourAgo: row, quietMinutes: fc.option(fc.nat(6), { nil: undefined }) });

const number = fc.constantFrom('n', 'm');
const order = fc.constantFrom('gt', 'gte', 'lt', 'lte', 'eq', 'ne');
const leaf = fc.oneof(
  fc.record({ field: number, op: order, value: numbers }),
  fc.record({ field: fc.constant('s'), op: order, value: words }),
  fc.record({ field: number, op: fc.constantFrom('in', 'nin'), value: fc.array(numbers, { minLength: 1, maxLength: 3 }) }),
  fc.record({ field: fc.constant('s'), op: fc.constantFrom('in', 'nin'), value: fc.array(words, { minLength: 1, maxLength: 3 }) }),
  fc.record({ field: number, op: fc.constant('between'), value: fc.tuple(numbers, numbers) }),
  fc.record({ field: fc.constantFrom('n', 'm', 's'), op: fc.constant('is_null'), value: fc.boolean() }),
  fc.record({ field: number, op: fc.constantFrom('crosses_above', 'crosses_below'), value: numbers }),
  fc.record({ field: fc.constantFrom('n', 'm', 's'), op: fc.constant('changed') }),
  fc.record({ field: number, change: fc.constant('1h'), op: order, value: fc.oneof(numbers, fc.integer({ min: -300, max: 300 })) }),
  fc.record({ absent_for: fc.constantFrom('2m', '5m') }),
) as fc.Arbitrary<RuleCondition>;
const { node: conditions } = fc.letrec<{ node: RuleCondition }>((tie) => ({
  node: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    leaf,
    fc.record({ and: fc.array(tie('node'), { minLength: 1, maxLength: 3 }) }),
    fc.record({ or: fc.array(tie('node'), { minLength: 1, maxLength: 3 }) }),
    fc.record({ not: tie('node') }),
  ),
}));

describe('conditions of rules', () => {
  it('are true, false or unknown as a second evaluator finds', () => {
    const found = new Set<Truth>();
    fc.assert(
      fc.property(conditions, sights, (condition, seen) => {
        const expected = { 0: false, 0.5: undefined, 1: true }[degree(condition, seen)];
        found.add(expected);
        expect(compileRule(condition, columns)(viewOf(seen)), JSON.stringify(condition)).to.equal(expected);
      }),
      { numRuns: 20_000 },
    );
    expect(found.size).to.equal(3);
  });

  it('of what is not known neither fire nor resolve, whichever way round they are written', () => {
    const about = (value: unknown) => (condition: RuleCondition) =>
      compileRule(condition, columns)(viewOf({ now: { n: value }, before: {}, hourAgo: {}, quietMinutes: undefined }));
    for (const truth of [about(null), about(undefined)]) {
      for (const op of ['eq', 'ne', 'gt', 'lte'] as const) {
        expect(truth({ field: 'n', op, value: 1 })).to.equal(undefined);
        expect(truth({ not: { field: 'n', op, value: 1 } })).to.equal(undefined);
      }
      expect(truth({ field: 'n', op: 'nin', value: [1] })).to.equal(undefined);
    }
    expect(about(null)({ field: 'n', op: 'is_null' })).to.equal(true);
    expect(about(undefined)({ field: 'n', op: 'is_null' })).to.equal(undefined);
    expect(about(undefined)({ not: { field: 'n', op: 'is_null' } })).to.equal(undefined);
  });

  it('see an edge only where they know the value before', () => {
    const condition: RuleCondition = { field: 'n', op: 'crosses_above', value: '100' };
    const truth = (previous: unknown, now: unknown): Truth =>
      compileRule(condition, columns)(viewOf({ now: { n: now }, before: { n: previous }, hourAgo: {}, quietMinutes: 0 }));
    expect(truth('100.00', '100.000000000000000000001')).to.equal(true);
    expect(truth('100.01', '101')).to.equal(false);
    expect(truth('99', '100')).to.equal(false);
    expect(truth(undefined, '101')).to.equal(undefined);
    expect(truth(null, '101')).to.equal(undefined);
    expect(truth(null, '99')).to.equal(false);
  });

  it('`changed` takes null for a value, the spelling of a number for none, and sees into json', () => {
    const truth = (type: string, before: unknown, now: unknown): Truth =>
      compileRule(
        { field: 'c', op: 'changed' },
        new Map([['c', type]]),
      )(viewOf({ now: { c: now }, before: { c: before }, hourAgo: {}, quietMinutes: 0 }));
    expect(truth('numeric', '1.10', '1.1')).to.equal(false);
    expect(truth('text', '1.10', '1.1')).to.equal(true);
    expect(truth('text', null, 'a')).to.equal(true);
    expect(truth('text', null, null)).to.equal(false);
    expect(truth('text', undefined, 'a')).to.equal(undefined);
    expect(truth('jsonb', { a: [1] }, { a: [1] })).to.equal(false);
    expect(truth('jsonb', { a: [1] }, { a: [2] })).to.equal(true);
    expect(truth('double precision', 'NaN', 'NaN')).to.equal(false);
  });

  it('tell what they depend on', () => {
    const condition: RuleCondition = {
      or: [
        {
          and: [
            { field: 'n', change: '60m', op: 'gt', value: 5 },
            { field: 'n', change: '1h', op: 'lt', value: 50 },
          ],
        },
        { not: { absent_for: '10m' } },
        { field: 's', op: 'changed' },
      ],
    };
    expect(usesOf(condition)).to.deep.equal({
      fields: ['n', 's'],
      edge: true,
      ago: [{ field: 'n', micros: 3_600_000_000 }],
      absences: [600_000_000],
    });
  });
});

describe('percent', () => {
  it('compares exactly where doubles cannot tell', () => {
    expect(comparePercent('105', '100', '5')).to.equal(0);
    expect(comparePercent('1.05', '1.00', 5)).to.equal(0);
    expect(comparePercent('105.00000000000000000001', '100', '5')).to.be.greaterThan(0);
    expect(comparePercent('104.99999999999999999999', '100', '5')).to.be.lessThan(0);
    expect(comparePercent(`1${'0'.repeat(400)}`, `2${'0'.repeat(400)}`, '-50')).to.equal(0);
    expect(comparePercent('1e-320', '2e-320', '-50')).to.equal(0);
  });

  it('of a negative value upwards is positive; of nothing, and of what is no number, unknown', () => {
    expect(comparePercent('-50', '-100', '50')).to.equal(0);
    expect(comparePercent('-150', '-100', '-50')).to.equal(0);
    expect(comparePercent('5', '0', '1')).to.equal(undefined);
    expect(comparePercent('5', '0.00', '1')).to.equal(undefined);
    expect(comparePercent('NaN', '1', '1')).to.equal(undefined);
    expect(comparePercent('1', 'Infinity', '1')).to.equal(undefined);
  });

  it('agrees with fractions of whole numbers, near the threshold as far from it', () => {
    const whole = fc.oneof(fc.bigInt({ min: -(10n ** 25n), max: 10n ** 25n }), fc.bigInt({ min: -200n, max: 200n }));
    fc.assert(
      fc.property(whole, whole, whole, fc.boolean(), (now, then, percent, near) => {
        fc.pre(then !== 0n);
        const base = then < 0n ? -then : then;
        // Near: the value at which the change is just this percent, cut to a whole number.
        const present = near ? then + (percent * base) / 100n : now;
        const [change, limit] = [(present - then) * 100n, percent * base];
        const expected = change < limit ? -1 : change > limit ? 1 : 0;
        expect(Math.sign(comparePercent(String(present), String(then), String(percent))!)).to.equal(expected);
      }),
      { numRuns: 5_000 },
    );
  });
});

describe('conditions of queries', () => {
  it('share the rows between a filter and its `not`', () => {
    const plain = conditions.filter(
      (condition) =>
        checkRuleCondition(condition, { columns, name: 'where', edges: false }).value !== undefined &&
        usesOf(condition).ago.length === 0 &&
        usesOf(condition).absences.length === 0,
    );
    fc.assert(
      fc.property(plain, row, (condition, values) => {
        const read = (field: string): unknown => (values as Readonly<Record<string, unknown>>)[field];
        const passes = compileFilter(condition as never, columns)(read) === true;
        expect(compileFilter({ not: condition as never }, columns)(read)).to.equal(!passes);
      }),
      { numRuns: 3_000 },
    );
  });

  it('without types go by the forms of the values', () => {
    const passes = (value: Scalar, of: unknown): Truth => compileFilter({ field: 'x', op: 'gte', value }, undefined)(() => of);
    expect(passes(100, '100.00')).to.equal(true);
    expect(passes(100, '99.99999999999999999999')).to.equal(false);
    // Two texts are texts, whatever they look like.
    expect(passes('100', '99')).to.equal(true);
    expect(passes(100, 'abc')).to.equal(undefined);
    expect(passes(100, 'NaN')).to.equal(true);
    expect(passes(100, true)).to.equal(undefined);
    expect(passes(100, { a: 1 })).to.equal(undefined);
  });
});
