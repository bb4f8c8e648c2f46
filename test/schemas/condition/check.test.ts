import { expect } from 'chai';
import fc from 'fast-check';
import { checkCondition, checkRuleCondition } from '../../../schemas/condition/check.ts';
import type { Fault } from '../../../schemas/condition/faults.ts';
import type { RuleCondition } from '../../../schemas/condition/condition.ts';

const columns = new Map([
  ['price', 'numeric(20,8)'],
  ['count', 'integer'],
  ['total', 'bigint'],
  ['ratio', 'real'],
  ['weight', 'double precision'],
  ['chain', 'text'],
  ['active', 'boolean'],
  ['at', 'timestamp with time zone'],
  ['local', 'timestamp(3) without time zone'],
  ['day', 'date'],
  ['clock', 'time without time zone'],
  ['id', 'uuid'],
  ['data', 'jsonb'],
  ['tags', 'text[]'],
  ['address', 'inet'],
  ['mood', 'mood'],
]);

function faultsOf(input: unknown, known: ReadonlyMap<string, string> | undefined = columns): readonly Fault[] {
  return checkRuleCondition(input, { columns: known, name: 'when', edges: true }).faults ?? [];
}

/** The one fault of a rule's condition. */
function faultOf(input: unknown, known: ReadonlyMap<string, string> | undefined = columns): string {
  const faults = faultsOf(input, known);
  expect(faults, JSON.stringify(faults)).to.have.length(1);
  return `${faults[0]!.field} ${faults[0]!.message}`;
}

const leaf = { field: 'price', op: 'gt', value: 1 };
const nested = (levels: number): unknown => (levels === 1 ? leaf : { not: nested(levels - 1) });
const many = (length: number): unknown[] => Array.from({ length }, () => leaf);

describe('condition check: what is refused, and what is said', () => {
  const cases: readonly (readonly [name: string, input: unknown, message: RegExp])[] = [
    ['no object', 5, /^when must be one of \{"and":\[…\]\}/],
    ['null', null, /^when must be one of/],
    ['an empty object', {}, /^when must be one of/],
    ['an empty and', { and: [] }, /^when\.and is empty: it needs at least one condition$/],
    ['an or that is no list', { or: leaf }, /^when\.or must be a list of conditions$/],
    ['and beside or', { and: [leaf], or: [leaf] }, /^when\.or cannot stand beside and: nest one in the other$/],
    ['17 levels', nested(17), /is nested deeper than the 16 levels allowed$/],
    ['257 parts', { and: many(256) }, /^when has more than the 256 parts that are allowed$/],
    [
      '1,001 items in one list',
      { field: 'count', op: 'in', value: Array(1_001).fill(1) },
      /^when\.value brings the condition to more than the 1000/,
    ],
    [
      '1,001 items in two lists',
      {
        or: [
          { field: 'count', op: 'in', value: Array(500).fill(1) },
          { field: 'count', op: 'nin', value: Array(501).fill(1) },
        ],
      },
      /^when\.or\[1\]\.value brings the condition/,
    ],
    ['no op', { field: 'price', value: 1 }, /^when\.op is missing: one of eq, ne/],
    ['an unknown op', { field: 'price', op: 'gte ', value: 1 }, /^when\.op is "gte ", and must be one of .*; did you mean gte\?$/],
    ['no field', { op: 'gt', value: 1 }, /^when\.field is missing: the name of a column$/],
    [
      'an unknown column',
      { field: 'pricd', op: 'gt', value: 1 },
      /^when\.field is "pricd", which is no column of the table; did you mean price\?$/,
    ],
    ['a column by the name of a built-in', { field: 'constructor', op: 'gt', value: 1 }, /no column of the table$/],
    ['an unknown member', { ...leaf, valu: 1 }, /^when\.valu is not known here; did you mean value\?$/],
    [
      'a member by the name of a built-in',
      JSON.parse('{"field":"price","op":"gt","value":1,"__proto__":1}'),
      /^when\.__proto__ is not known here$/,
    ],
    ['no value', { field: 'price', op: 'gt' }, /^when\.value is missing$/],
    ['null', { field: 'price', op: 'eq', value: null }, /^when\.value is null, which nothing equals: ask with is_null$/],
    ['null in a list', { field: 'price', op: 'in', value: [1, null] }, /^when\.value\[1\] is null/],
    ['an empty list', { field: 'price', op: 'in', value: [] }, /^when\.value is empty/],
    ['a value for a list', { field: 'price', op: 'in', value: 1 }, /^when\.value is 1, and must be a list of values$/],
    ['a list for a value', { field: 'price', op: 'gt', value: [1] }, /^when\.value is \[1\], and must be text, a number, true or false$/],
    ['between one value', { field: 'price', op: 'between', value: [1] }, /must be a list of two values$/],
    ['between the wrong way round', { field: 'price', op: 'between', value: ['1.10', '1.0999'] }, /nothing is between those$/],
    [
      'percent beyond reason',
      { field: 'price', change: '1h', op: 'gt', value: '1e130000' },
      /^when\.value is 1e130000, and must be 0 or from/,
    ],
    ['percent of nearly nothing', { field: 'price', change: '1h', op: 'gt', value: '1e-101' }, /and must be 0 or from 1e-100/],
    ['a value for changed', { field: 'price', op: 'changed', value: 1 }, /^when\.value has no meaning beside changed$/],
    ['text for is_null', { field: 'price', op: 'is_null', value: 'yes' }, /must be true or false, or be left out$/],
    [
      'text for a number',
      { field: 'price', op: 'gt', value: 'abc' },
      /^when\.value is "abc", and must be a number \(price is numeric\(20,8\)\)$/,
    ],
    ['true for a number', { field: 'price', op: 'eq', value: true }, /^when\.value is true, and must be a number/],
    ['a fraction for an integer', { field: 'count', op: 'eq', value: '1.50' }, /^when\.value is 1\.50, and must be a whole number/],
    ['too large for an integer', { field: 'count', op: 'lt', value: 2_147_483_648 }, /must be between -2147483648 and 2147483647/],
    ['too large for a bigint', { field: 'total', op: 'lt', value: '9223372036854775808' }, /must be between -9223372036854775808/],
    ['NaN for an integer', { field: 'count', op: 'eq', value: 'NaN' }, /must be a number/],
    ['too large for real', { field: 'ratio', op: 'lt', value: '1e39' }, /beyond what the type can hold/],
    ['too small for double precision', { field: 'weight', op: 'gt', value: '1e-400' }, /beyond what the type can hold/],
    ['too large for numeric', { field: 'price', op: 'gt', value: '1e131073' }, /beyond what Postgres can hold/],
    ['a number that has lost digits', { field: 'total', op: 'eq', value: 2 ** 60 }, /JSON readers round: give it as text/],
    ['a number for text', { field: 'chain', op: 'eq', value: 5 }, /^when\.value is 5, and must be text: "5" \(chain is text\)$/],
    ['NUL in text', { field: 'chain', op: 'eq', value: 'a\0b' }, /NUL character/],
    ['half a surrogate pair', { field: 'chain', op: 'eq', value: 'a\ud800' }, /no valid Unicode/],
    ['a long text', { field: 'chain', op: 'eq', value: 'a'.repeat(8_193) }, /8193 characters/],
    ['text for a boolean', { field: 'active', op: 'eq', value: 'true' }, /must be true or false/],
    ['an order of booleans', { field: 'active', op: 'gt', value: false }, /^when\.op is gt, which active does not have: it is boolean$/],
    ['30 February', { field: 'at', op: 'gt', value: '2026-02-30T00:00:00Z' }, /must be a time like 2026-11-22T12:00:00Z/],
    ['a zone for a time without one', { field: 'local', op: 'gt', value: '2026-02-20T00:00:00+02:00' }, /must be a time without zone/],
    ['a time for a date', { field: 'day', op: 'eq', value: '2026-02-20T00:00:00' }, /must be a date like/],
    ['25 hours', { field: 'clock', op: 'eq', value: '25:00' }, /must be a time of day/],
    ['no UUID', { field: 'id', op: 'eq', value: 'x' }, /must be a UUID/],
    ['json beside a value', { field: 'data', op: 'eq', value: 1 }, /^when\.op is eq, which data does not have: it is jsonb$/],
    ['an array beside a value', { field: 'tags', op: 'in', value: ['a'] }, /^when\.op is in, which tags does not have: it is text\[\]$/],
    ['an order of addresses', { field: 'address', op: 'lt', value: '10.0.0.1' }, /does not have: it is inet$/],
    ['like on a number', { field: 'price', op: 'like', value: '1%' }, /^when\.op is like, which price does not have/],
    ['a pattern that ends in an escape', { field: 'chain', op: 'like', value: 'a\\\\\\' }, /escapes nothing: write two for one$/],
    ['a long pattern', { field: 'chain', op: 'ilike', value: '%'.repeat(1_001) }, /longer than the 1000 characters/],
    [
      'crossing text',
      { field: 'chain', op: 'crosses_above', value: 'a' },
      /^when\.op is crosses_above, which chain does not have: it is text$/,
    ],
    [
      'an edge under not',
      { not: { and: [{ field: 'price', op: 'changed' }] } },
      /^when\.not\.and\[0\]\.op is changed, which holds only for a moment: it cannot stand under not$/,
    ],
    [
      'a duration that is none',
      { absent_for: '10 minutes' },
      /^when\.absent_for is "10 minutes", and must be a duration like 30s, 5m, 1h or 2d, up to 366d$/,
    ],
    ['no duration', { field: 'price', change: '0s', op: 'gt', value: 5 }, /^when\.change is "0s", and must be a duration/],
    ['a year and more', { absent_for: '367d' }, /^when\.absent_for is "367d"/],
    [
      'change with another operator',
      { field: 'price', change: '1h', op: 'crosses_above', value: 5 },
      /^when\.op is "crosses_above", and must beside change be one of gt/,
    ],
    [
      'change of text',
      { field: 'chain', change: '1h', op: 'gt', value: 5 },
      /^when\.change asks for percent, which only numbers change by: chain is text$/,
    ],
    ['change in NaN percent', { field: 'price', change: '1h', op: 'gt', value: 'NaN' }, /^when\.value is NaN, and must be a number$/],
  ];
  for (const [name, input, message] of cases) it(name, () => expect(faultOf(input)).to.match(message));

  it('edges where they have no place, and rules’ operators in queries', () => {
    const crossing = { field: 'price', op: 'crosses_above', value: 1 };
    const clear = checkRuleCondition(crossing, { columns, name: 'clear', edges: false }).faults!;
    expect(clear).to.have.length(1);
    expect(`${clear[0]!.field} ${clear[0]!.message}`).to.equal(
      'clear.op is crosses_above, which holds only for a moment and has no place in clear',
    );
    for (const [input, message] of [
      [crossing, 'where.op is crosses_above, which is for rules'],
      [{ absent_for: '1m' }, 'where.absent_for is for rules: a query knows no events'],
      [{ field: 'price', change: '1h', op: 'gt', value: 1 }, 'where.change is not known here'],
    ] as const) {
      const [fault] = checkCondition(input, { columns, name: 'where' }).faults!;
      expect(`${fault!.field} ${fault!.message}`).to.equal(message);
    }
  });

  it('all faults at once, each once', () => {
    const faults = faultsOf({
      or: [
        { field: 'pric', op: 'gt', value: 1 },
        {
          and: [
            { field: 'price', op: 'gtt', value: 1 },
            { field: 'chain', op: 'in', value: [1, 'a', null] },
          ],
        },
      ],
    });
    expect(faults.map(({ field }) => field)).to.deep.equal([
      'when.or[0].field',
      'when.or[1].and[0].op',
      'when.or[1].and[1].value[0]',
      'when.or[1].and[1].value[2]',
    ]);
  });
});

describe('condition check: what is accepted', () => {
  const cases: readonly unknown[] = [
    { and: Array.from({ length: 255 }, () => leaf) },
    nested(16),
    { field: 'count', op: 'in', value: Array.from({ length: 1_000 }, (_, i) => i) },
    { field: 'count', op: 'eq', value: '1.500e1' },
    { field: 'total', op: 'eq', value: '-9223372036854775808' },
    { field: 'price', op: 'lt', value: 'Infinity' },
    { field: 'ratio', op: 'eq', value: 'NaN' },
    { field: 'at', op: 'between', value: ['2026-01-01', '2026-01-01T00:00:00.000001+00:00'] },
    { field: 'at', op: 'lt', value: 'infinity' },
    { field: 'day', op: 'gt', value: '0044-03-15 BC' },
    { field: 'data', op: 'changed' },
    { field: 'address', op: 'in', value: ['10.0.0.1', '::1'] },
    { field: 'mood', op: 'eq', value: 'happy' },
    { field: 'chain', op: 'like', value: '100\\%\\\\' },
    { or: [{ field: 'price', op: 'changed' }, { not: { field: 'price', op: 'is_null', value: false } }] },
    { field: 'price', change: '500ms', op: 'between', value: [-5, '5.5'] },
  ];
  for (const input of cases) {
    it(JSON.stringify(input).slice(0, 90), () => {
      expect(checkRuleCondition(input, { columns, name: 'when', edges: true })).to.deep.equal({ value: input });
    });
  }

  it('without columns, whatever can be judged without them', () => {
    expect(faultsOf({ field: 'anything', op: 'gt', value: 'x' }, new Map())).to.have.length(1);
    expect(
      checkRuleCondition({ field: 'anything', op: 'gt', value: 'x' }, { columns: undefined, name: 'when', edges: true }).faults,
    ).to.equal(undefined);
    expect(
      checkRuleCondition({ field: 'anything', op: 'between', value: [10, '9'] }, { columns: undefined, name: 'when', edges: true }).faults,
    ).to.have.length(1);
    // As numbers or as times these are in order; only the column's type says so.
    for (const value of [
      ['9', '10'],
      ['2026-01-01T00:00:00+02:00', '2025-12-31T23:00:00Z'],
    ])
      expect(
        checkRuleCondition({ field: 'anything', op: 'between', value }, { columns: undefined, name: 'when', edges: true }).faults,
        String(value),
      ).to.equal(undefined);
    expect(
      checkRuleCondition({ field: 'anything', op: 'in', value: [] }, { columns: undefined, name: 'when', edges: true }).faults,
    ).to.have.length(1);
  });

  it('in one form: is_null without true, 0 without a sign', () => {
    const { value } = checkRuleCondition(
      {
        and: [
          { field: 'price', op: 'is_null', value: true },
          { field: 'price', op: 'gt', value: -0 },
        ],
      },
      { columns, name: 'when', edges: true },
    );
    const parts = (value as { and: readonly RuleCondition[] }).and;
    expect(parts[0]).to.deep.equal({ field: 'price', op: 'is_null' });
    expect(Object.is((parts[1] as { value: number }).value, 0)).to.equal(true);
  });

  it('nothing else, whatever comes: it answers, and never throws', () => {
    const names = fc.constantFrom('and', 'or', 'not', 'field', 'op', 'value', 'change', 'absent_for', 'x');
    const words = fc.constantFrom('price', 'chain', 'gt', 'in', 'between', 'like', 'changed', '1h', '__proto__');
    const { any } = fc.letrec<{ any: unknown }>((tie) => ({
      any: fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom(null, 1, true, NaN),
        words,
        fc.dictionary(names, tie('any'), { maxKeys: 3 }),
        fc.array(tie('any'), { maxLength: 3 }),
      ),
    }));
    fc.assert(
      fc.property(any, (input) => {
        const { value, faults } = checkRuleCondition(input, { columns, name: 'when', edges: true });
        expect((value === undefined) !== (faults === undefined)).to.equal(true);
        if (faults) expect(faults).to.not.have.length(0);
      }),
      { numRuns: 5_000 },
    );
  });
});
