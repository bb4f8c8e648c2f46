import { expect } from 'chai';
import fc from 'fast-check';
import type { RuleCondition, Scalar } from '../../../schemas/condition/condition.ts';
import { parseCondition, parseRuleCondition } from '../../../schemas/condition/parse.ts';
import { printCondition } from '../../../schemas/condition/print.ts';

const columns = new Map([
  ['price', 'numeric'],
  ['chain', 'text'],
  ['symbol', 'text'],
  ['active', 'boolean'],
  ['change', 'numeric'],
  ['in', 'text'],
  ['Total $', 'numeric'],
]);

function parsed(text: string): RuleCondition {
  const { value, problems } = parseRuleCondition(text, { columns, name: 'when', edges: true });
  if (!value) throw new Error(`${text}: ${JSON.stringify(problems)}`);
  return value;
}

describe('conditions as text', () => {
  const price = { field: 'price', op: 'gt', value: 100 };
  const chain = { field: 'chain', op: 'in', value: ['Base', 'Optimism'] };
  const symbol = { field: 'symbol', op: 'like', value: 'W%' };
  const cases: readonly (readonly [text: string, tree: unknown])[] = [
    ['price > 100 AND NOT (chain IN ("Base","Optimism") OR symbol LIKE "W%")', { and: [price, { not: { or: [chain, symbol] } }] }],
    ["price>100 or not price>100 and symbol like 'W%'", { or: [price, { and: [{ not: price }, symbol] }] }],
    ['(price > 100 AND price > 100) AND symbol LIKE "W%"', { and: [{ and: [price, price] }, symbol] }],
    ['((price > 100))', price],
    ['NOT NOT price > 100', { not: { not: price } }],
    ['price <> -1.50', { field: 'price', op: 'ne', value: -1.5 }],
    ['price == .5', { field: 'price', op: 'eq', value: 0.5 }],
    ['price >= 0.1234567890123456789', { field: 'price', op: 'gte', value: '0.1234567890123456789' }],
    ['price < 9007199254740993', { field: 'price', op: 'lt', value: '9007199254740993' }],
    ['price > 1e3', { field: 'price', op: 'gt', value: 1000 }],
    ['price > "NaN"', { field: 'price', op: 'gt', value: 'NaN' }],
    ['symbol NOT LIKE "W%"', { not: symbol }],
    ['symbol ILIKE "50\\% ""off"""', { field: 'symbol', op: 'ilike', value: '50\\% "off"' }],
    ["symbol = 'it''s \"it\"'", { field: 'symbol', op: 'eq', value: 'it\'s "it"' }],
    [
      'price NOT BETWEEN 1 AND 2 AND active = TRUE',
      { and: [{ not: { field: 'price', op: 'between', value: [1, 2] } }, { field: 'active', op: 'eq', value: true }] },
    ],
    ['chain not in ("Base", "Optimism")', { field: 'chain', op: 'nin', value: ['Base', 'Optimism'] }],
    [
      'price IS NULL OR price IS NOT NULL',
      {
        or: [
          { field: 'price', op: 'is_null' },
          { field: 'price', op: 'is_null', value: false },
        ],
      },
    ],
    ['price CROSSES ABOVE 100', { field: 'price', op: 'crosses_above', value: 100 }],
    ['price crosses below "1.10"', { field: 'price', op: 'crosses_below', value: '1.10' }],
    ['CHANGED price', { field: 'price', op: 'changed' }],
    ['price CHANGED', { field: 'price', op: 'changed' }],
    ['price CHANGE 1h > 5%', { field: 'price', change: '1h', op: 'gt', value: 5 }],
    ['price CHANGE 30m BETWEEN -5% AND 5%', { field: 'price', change: '30m', op: 'between', value: [-5, 5] }],
    ['ABSENT FOR 10m', { absent_for: '10m' }],
    [
      'change > 5 AND change CHANGE 1h > 5',
      {
        and: [
          { field: 'change', op: 'gt', value: 5 },
          { field: 'change', change: '1h', op: 'gt', value: 5 },
        ],
      },
    ],
    [
      '"in" = "x" AND "Total $" > 1',
      {
        and: [
          { field: 'in', op: 'eq', value: 'x' },
          { field: 'Total $', op: 'gt', value: 1 },
        ],
      },
    ],
  ];
  for (const [text, tree] of cases) {
    it(text, () => expect(parsed(text)).to.deep.equal(tree));
  }

  const faults: readonly (readonly [text: string, line: number, column: number, message: RegExp])[] = [
    ['', 1, 1, /^the condition is empty$/],
    ['price >', 1, 8, /^the text ends, but expected a value/],
    ['price > 100 AND', 1, 16, /^the text ends, but expected the name of a column$/],
    ['pricd > 100', 1, 1, /^the column is "pricd", which is no column of the table; did you mean price\?$/],
    ['price > 1 AND\n  (chain = "é😀" AND pricd = 2)', 2, 21, /"pricd"/],
    ['price > abc', 1, 9, /^found abc, but expected a value: text stands in quotes, "abc"$/],
    ['price = NULL', 1, 9, /^found NULL, but expected IS NULL or IS NOT NULL/],
    ['in = "x"', 1, 1, /^found in, but expected the name of a column: a column of that name is written "in"$/],
    ['price 100', 1, 7, /^found 100, but expected an operator: = !=/],
    ['price > 100 chain = "Base"', 1, 13, /^found chain, but expected AND, OR, or the end$/],
    ['(price > 100', 1, 13, /^the text ends, but expected AND, OR, or \) for the \( at line 1, column 1$/],
    ['price > 100 AND\n (price < 5', 2, 12, /for the \( at line 2, column 2$/],
    ['price > 100)', 1, 12, /^found \), which nothing opens$/],
    ['chain IN "Base"', 1, 10, /^found "Base", but expected a list in parentheses/],
    ['chain IN ()', 1, 11, /^found \), but expected a value/],
    ['chain IN ("a" "b")', 1, 15, /^found "b", but expected a comma or \)$/],
    ['chain = "Base', 1, 9, /^the quotes that open here \("\) are not closed$/],
    ['price > 5x', 1, 9, /^"5x" has no meaning here$/],
    ['price > 100 && chain = "a"', 1, 13, /^"&&" has no meaning here$/],
    ['price > 5%', 1, 10, /^found %, but expected AND, OR, or the end$/],
    ['price NOT > 5', 1, 11, /^found >, but expected IN, BETWEEN, LIKE or ILIKE after NOT$/],
    ['price CROSSES 5', 1, 15, /^found 5, but expected ABOVE or BELOW$/],
    ['price CHANGE 5 > 1', 1, 14, /^found 5, but expected a duration like/],
    ['price CHANGE 30m NOT BETWEEN 1 AND 2', 1, 18, /^found NOT, but expected an operator/],
    ['ABSENT FOR 400d', 1, 12, /^the duration is "400d", and must be a duration/],
    ['price > "abc"', 1, 9, /^the value is "abc", and must be a number \(price is numeric\)$/],
    ['price IN (1, "x")', 1, 14, /^the value is "x", and must be a number/],
    ['price BETWEEN 1 AND "x"', 1, 21, /^the value is "x"/],
    ['chain CROSSES ABOVE 5', 1, 7, /^the operator is crosses_above, which chain does not have: it is text$/],
    ['NOT price CROSSES ABOVE 5', 1, 11, /cannot stand under not$/],
    [`${'('.repeat(50)}price > 1${')'.repeat(50)}`, 1, 33, /^the condition is nested too deeply here$/],
    [`${'NOT '.repeat(20)}price > 1`, 1, 65, /deeper than the 16 levels/],
  ];
  for (const [text, line, column, message] of faults) {
    it(`${text.slice(0, 50)}: says what is wrong, and where`, () => {
      const [problem, ...others] = parseRuleCondition(text, { columns, name: 'when', edges: true }).problems!;
      expect(others).to.deep.equal([]);
      expect(problem!.message).to.match(message);
      expect([problem!.line, problem!.column]).to.deep.equal([line, column]);
      expect(text.slice(0, problem!.offset).split('\n')).to.have.length(line);
    });
  }

  it('wrong names and values are told all at once', () => {
    const { problems } = parseRuleCondition('pricd > 1 OR chain = 5 OR price = "x"', { columns, name: 'when', edges: true });
    expect(problems!.map(({ column }) => column)).to.deep.equal([1, 22, 35]);
  });

  it('a query has no operators of rules', () => {
    const [problem] = parseCondition('price > 1 AND price CROSSES ABOVE 1', { columns, name: 'where' }).problems!;
    expect(problem).to.include({ message: 'the operator is crosses_above, which is for rules', column: 21 });
  });
});

describe('conditions as text: printed', () => {
  it('as people write them', () => {
    const text =
      'price NOT BETWEEN 1 AND 2 AND (NOT chain IN ("Base", "it\'s") OR symbol NOT LIKE "W%") AND NOT (price > 1 AND active = TRUE)';
    expect(printCondition(parsed(text))).to.equal(text);
  });

  const fields = fc.oneof(
    fc
      .constantFrom(
        'price',
        'in',
        'Not',
        'change',
        'changed',
        'absent',
        'crosses',
        'for',
        'above',
        'null',
        'naïve',
        'a b',
        'a"b',
        "a'b",
        '1a',
        '',
        'größe',
        'a.b',
      )
      .filter((name) => name !== ''),
    fc.string({ minLength: 1, maxLength: 8 }).filter((name) => !name.includes('\0')),
  );
  const texts = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 12 }).filter((text) => !/[\0\p{Surrogate}]/u.test(text)),
    fc.constantFrom('12345678901234567890', '-0.12345678901234567890', '1.10', '5', '+5', '1e400', '', 'NULL', '"', "'", '\n'),
  );
  const numbers = fc
    .double({ noNaN: true, noDefaultInfinity: true })
    .filter((n) => !Number.isInteger(n) || Number.isSafeInteger(n))
    .map((n) => n + 0);
  const scalars: fc.Arbitrary<Scalar> = fc.oneof(texts, numbers, fc.integer(), fc.boolean());
  const patterns = texts.filter((text) => !text.includes('\\'));
  const durations = fc.constantFrom('500ms', '30s', '5m', '1h', '2d');
  const percents = fc.oneof(fc.integer(), fc.constantFrom('12345678901234567890.5', '1e100'));
  const leaf = fc.oneof(
    fc.record({
      field: fields,
      op: fc.constantFrom('eq', 'ne', 'gt', 'gte', 'lt', 'lte', 'crosses_above', 'crosses_below'),
      value: scalars,
    }),
    fc.record({ field: fields, op: fc.constantFrom('in', 'nin'), value: fc.array(scalars, { minLength: 1, maxLength: 3 }) }),
    fc.record({ field: fields, op: fc.constant('between'), value: fc.tuple(fc.constant('a'), fc.constantFrom('a', 'b"')) }),
    fc.record({ field: fields, op: fc.constantFrom('like', 'ilike'), value: patterns }),
    fc.record({ field: fields, op: fc.constantFrom('is_null', 'changed') }),
    fc.record({ field: fields, op: fc.constant('is_null'), value: fc.constant(false) }),
    fc.record({ field: fields, change: durations, op: fc.constantFrom('gt', 'lte', 'ne'), value: percents }),
    fc.record({ field: fields, change: durations, op: fc.constant('between'), value: fc.constant([-5, 5.5]) }),
    fc.record({ absent_for: durations }),
  ) as fc.Arbitrary<RuleCondition>;
  const { node: conditions } = fc.letrec<{ node: RuleCondition }>((tie) => ({
    node: fc.oneof(
      { maxDepth: 4, withCrossShrink: true },
      leaf,
      fc.record({ and: fc.array(tie('node'), { minLength: 2, maxLength: 3 }) }),
      fc.record({ or: fc.array(tie('node'), { minLength: 2, maxLength: 3 }) }),
      fc.record({ not: tie('node') }),
    ),
  }));

  it('are read back as the same tree', () => {
    let trees = 0;
    fc.assert(
      fc.property(conditions, (condition) => {
        const text = printCondition(condition);
        const { value, problems } = parseRuleCondition(text, { columns: undefined, name: 'when', edges: true });
        // An edge under `not` is refused, wherever it comes from.
        if (problems?.every(({ message }) => /cannot stand under not|and must be a number/.test(message))) return;
        trees++;
        expect(value, `${text} ${JSON.stringify(problems)}`).to.deep.equal(condition);
      }),
      { numRuns: 5_000 },
    );
    expect(trees).to.be.greaterThan(2_000);
  });

  it('of a single part mean that part', () => {
    expect(printCondition({ and: [{ or: [{ field: 'price', op: 'gt', value: 1 }] }] })).to.equal('price > 1');
    expect(
      printCondition({
        and: [
          {
            or: [
              {
                and: [
                  { field: 'a', op: 'changed' },
                  { field: 'b', op: 'changed' },
                ],
              },
            ],
          },
          { field: 'c', op: 'changed' },
        ],
      }),
    ).to.equal('(a CHANGED AND b CHANGED) AND c CHANGED');
  });
});
