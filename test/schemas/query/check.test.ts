import { expect } from 'chai';
import { checkQuery } from '../../../schemas/query/check.ts';
import { queryFromUrl } from '../../../schemas/query/url.ts';

const prices = {
  name: 'public.prices',
  columns: new Map([
    ['token_id', 'text'],
    ['chain', 'text'],
    ['price', 'numeric(20,8)'],
    ['volume', 'bigint'],
    ['at', 'timestamp with time zone'],
    ['day', 'date'],
    ['clock', 'time without time zone'],
    ['tags', 'text[]'],
    ['doc', 'jsonb'],
    ['mood', 'public.mood'],
    ['spot', 'point'],
  ]),
  key: ['token_id', 'at'],
};
const keyless = { name: 'audit.lines', columns: new Map([['line', 'text']]), key: [] };
const tables = {
  find: (name: string) => [prices, keyless].find((table) => table.name === name),
  names: () => [prices.name, keyless.name],
};

/** The faults as people read them. */
function faultsOf(input: unknown): readonly string[] {
  return (checkQuery(input, tables).faults ?? []).map(({ field, message, line, column }) =>
    line === undefined ? `${field} ${message}` : `${field} (${line}:${column}) ${message}`,
  );
}

const from = 'prices';

describe('the check of a query', () => {
  it('fills in what is not said: all columns, the primary key, a hundred items', () => {
    expect(checkQuery({ from }, tables).query).to.deep.equal({
      from: 'public.prices',
      select: [...prices.columns.keys()],
      ...{ where: undefined, groupBy: undefined, aggregate: undefined, having: undefined },
      orderBy: [
        { field: 'token_id', dir: 'asc' },
        { field: 'at', dir: 'asc' },
      ],
      limit: 100,
    });
  });

  it('ends an order with the key, in the direction of what stands before it, and drops what then decides nothing', () => {
    const orderOf = (orderBy: unknown): unknown => checkQuery({ from, orderBy }, tables).query?.orderBy;
    expect(orderOf([{ field: 'price', dir: 'desc' }])).to.deep.equal([
      { field: 'price', dir: 'desc' },
      { field: 'token_id', dir: 'desc' },
      { field: 'at', dir: 'desc' },
    ]);
    expect(orderOf([{ field: 'at', dir: 'desc' }, { field: 'token_id' }, { field: 'price' }])).to.deep.equal([
      { field: 'at', dir: 'desc' },
      { field: 'token_id', dir: 'asc' },
    ]);
  });

  it('sorts groups by what they are made of', () => {
    const groups = { from, groupBy: ['chain', { field: 'at', bucket: '1h', as: 'hour' }], aggregate: { n: { fn: 'count' } } };
    expect(checkQuery({ ...groups, orderBy: [{ field: 'n', dir: 'desc' }] }, tables).query).to.deep.include({
      select: undefined,
      groupBy: [
        { as: 'chain', field: 'chain' },
        { as: 'hour', field: 'at', bucket: 3_600_000_000 },
      ],
      aggregate: [{ as: 'n', fn: 'count' }],
      orderBy: [
        { field: 'n', dir: 'desc' },
        { field: 'chain', dir: 'desc' },
        { field: 'hour', dir: 'desc' },
      ],
    });
  });

  const total = { total: { fn: 'sum', field: 'volume' } };
  const cases: readonly (readonly [what: string, input: unknown, ...faults: readonly string[]])[] = [
    ['no object', [1], 'query is [1], and must be an object like {"from": "prices"}'],
    ['no table', {}, 'from is missing: the name of a table, like "prices" or "public.prices"'],
    ['a table misspelled', { from: 'pricse' }, 'from is "pricse", which is no table that this key may read; did you mean prices?'],
    ['of a schema', { from: 'audit.line' }, 'from is "audit.line", which is no table that this key may read; did you mean audit.lines?'],
    ['a member misspelled', { from, orderby: [] }, 'orderby is not known here; did you mean orderBy?'],
    [
      'a member that is nothing',
      { from, '$x y': 1 },
      '"$x y" is not known here: there are from, select, where, groupBy, aggregate, having, orderBy, limit, cursor',
    ],
    [
      'a column misspelled',
      { from, select: ['token_id', 'prise'] },
      'select[1] is "prise", which is no column of the table; did you mean price?',
    ],
    ['everything by a star', { from, select: ['*'] }, 'select[0] is "*": leave select out for all columns'],
    ['a column twice', { from, select: ['at', 'at'] }, 'select[1] is "at" once more'],
    ['nothing selected', { from, select: [] }, 'select is empty: leave it out, or name something'],
    ['no list', { from, select: 'price' }, 'select is "price", and must be a list of columns, like ["id", "price"]'],
    [
      'a condition on no column',
      { from, where: { field: 'prise', op: 'gt', value: 1 } },
      'where.field is "prise", which is no column of the table; did you mean price?',
    ],
    [
      'the same in a text',
      { from, where: 'price > 1\n AND chian = "a"' },
      'where (2:6) the column is "chian", which is no column of the table; did you mean chain?',
    ],
    ['a text that ends', { from, where: 'price >' }, 'where (1:8) the text ends, but expected a value: "text", a number, TRUE or FALSE'],
    [
      'a value of another type',
      { from, where: 'volume = 1.5' },
      'where (1:10) the value is 1.5, and must be a whole number (volume is bigint)',
    ],
    [
      'an enum beside a number',
      { from, where: 'mood = 5' },
      'where compares mood with 5, and must compare it with text, "5": it is public.mood',
    ],
    ['an operator of rules', { from, where: 'price CHANGED' }, 'where (1:7) the operator is changed, which is for rules'],
    ['rows with having', { from, having: 'n > 1' }, 'having is about groups, and there are none: use where, or give groupBy or aggregate'],
    [
      'groups with select',
      { from, select: ['chain'], groupBy: ['chain'] },
      'select is for rows: with groupBy or aggregate the answer has the groups and the aggregates',
    ],
    ['a group of no column', { from, groupBy: ['chian'] }, 'groupBy[0] is "chian", which is no column of the table; did you mean chain?'],
    ['a group that is nothing', { from, groupBy: [5] }, 'groupBy[0] is 5, and must be the name of a column or {"field", "bucket", "as"}'],
    ['groups of arrays', { from, groupBy: ['tags'] }, 'groupBy[0] is tags, which is text[]: such values make no groups'],
    [
      'a bucket that is none',
      { from, groupBy: [{ field: 'at', bucket: '1 hour' }] },
      'groupBy[0].bucket is "1 hour", and must be the length of the buckets: 1ms to 366d, like 5m, 1h or 1d',
    ],
    [
      'a bucket of numbers',
      { from, groupBy: [{ field: 'price', bucket: '1h' }] },
      'groupBy[0].bucket is of times, and price is numeric(20,8)',
    ],
    [
      'a bucket of a clock',
      { from, groupBy: [{ field: 'clock', bucket: '1h' }] },
      'groupBy[0].bucket is of times, and clock is time without time zone, without a date',
    ],
    [
      'hours of a date',
      { from, groupBy: [{ field: 'day', bucket: '1h' }] },
      'groupBy[0].bucket is "1h", and must be whole days: day is a date',
    ],
    [
      'a member of a group',
      { from, groupBy: [{ feild: 'at' }] },
      'groupBy[0].feild is not known here; did you mean field?',
      'groupBy[0].field is missing: the name of a column of the table',
    ],
    [
      'two of one name',
      { from, groupBy: ['chain', { field: 'token_id', as: 'chain' }] },
      'groupBy[1].as is "chain", and another member of the answer is called so: give it another name by "as"',
    ],
    [
      "an aggregate of a group's name",
      { from, groupBy: ['chain'], aggregate: { chain: { fn: 'count' } } },
      'aggregate.chain is "chain", and another member of the answer is called so: give it another name by "as"',
    ],
    ['no aggregates', { from, aggregate: {} }, 'aggregate is empty: it needs at least one, {"<name>": {"fn": "sum", "field": "volume"}}'],
    [
      'aggregates in a list',
      { from, aggregate: ['count'] },
      'aggregate is ["count"], and must be {"<name>": {"fn": "sum", "field": "volume"}}',
    ],
    [
      'a function misspelled',
      { from, aggregate: { n: { fn: 'summ', field: 'volume' } } },
      'aggregate.n.fn is "summ", and must be one of count, count_distinct, sum, avg, min, max, percentile; did you mean sum?',
    ],
    [
      'no function',
      { from, aggregate: { n: { field: 'volume' } } },
      'aggregate.n.fn is missing: one of count, count_distinct, sum, avg, min, max, percentile',
    ],
    ['a sum of nothing', { from, aggregate: { n: { fn: 'sum' } } }, 'aggregate.n.field is missing: the name of a column of the table'],
    [
      'a sum of text',
      { from, aggregate: { n: { fn: 'sum', field: 'chain' } } },
      'aggregate.n.field is chain, which is text: sum is of numbers',
    ],
    [
      'the least of documents',
      { from, aggregate: { n: { fn: 'min', field: 'doc' } } },
      'aggregate.n.field is doc, which is jsonb: min is of numbers, times and text',
    ],
    [
      'different points',
      { from, aggregate: { n: { fn: 'count_distinct', field: 'spot' } } },
      'aggregate.n.field is spot, which is point: values of this type cannot be told apart by PostgreSQL',
    ],
    [
      'a percentile of 95',
      { from, aggregate: { n: { fn: 'percentile', field: 'price', p: 95 } } },
      'aggregate.n.p is 95, and must be a number from 0 to 1, like 0.95',
    ],
    [
      'a percentile of what',
      { from, aggregate: { n: { fn: 'percentile', field: 'price' } } },
      'aggregate.n.p is missing: from 0 to 1, 0.5 for the median',
    ],
    ['p of a sum', { from, aggregate: { n: { fn: 'sum', field: 'price', p: 0.5 } } }, 'aggregate.n.p has no meaning beside sum'],
    [
      'a name that is none',
      { from, aggregate: { 'a b': { fn: 'count' } } },
      'aggregate["a b"] is "a b", which is no name: letters, digits and _, at most 63, and no digit first',
    ],
    [
      'having of a column',
      { from, groupBy: ['chain'], aggregate: total, having: 'volume > 1' },
      'having (1:1) the column is "volume", which is no member of the answer',
    ],
    [
      'order by a column',
      { from, groupBy: ['chain'], aggregate: total, orderBy: [{ field: 'totl' }] },
      'orderBy[0].field is "totl", which is no member of the answer; did you mean total?',
    ],
    ['an order that is a text', { from, orderBy: ['price'] }, 'orderBy[0] is "price", and must be {"field", "dir"}'],
    ['a direction', { from, orderBy: [{ field: 'price', dir: 'DESC' }] }, 'orderBy[0].dir is "DESC", and must be asc or desc'],
    ['an order of documents', { from, orderBy: [{ field: 'doc' }] }, 'orderBy[0].field is doc, which is jsonb: such values have no order'],
    ['an order twice', { from, orderBy: [{ field: 'at' }, { field: 'at', dir: 'desc' }] }, 'orderBy[1].field is "at" once more'],
    ['a limit too high', { from, limit: 1_001 }, 'limit is 1001, and must be a whole number from 1 to 1000'],
    ['a limit in text', { from, limit: '10' }, 'limit is "10", and must be a whole number from 1 to 1000'],
    ['a cursor that is none', { from, cursor: 5 }, 'cursor is 5, and must be the "next" of an answer to the same query'],
    [
      'pages without a key',
      { from: 'audit.lines', cursor: 'x' },
      'cursor cannot be: audit.lines has no primary key, so its rows have no order to go on in',
    ],
    ['pages of one item', { from, aggregate: total, cursor: 'x' }, 'cursor cannot be: without groupBy the answer is a single item'],
    ['groups without end', { from, groupBy: Array(17).fill('chain') }, 'groupBy has 17 items, more than the 16 allowed'],
    ['a null', { from, where: null }, 'where must be one of {"and":[…]}, {"or":[…]}, {"not":…}, {"field","op","value"}'],
  ];
  for (const [what, input, ...faults] of cases) {
    it(`says what is wrong with ${what}`, () => {
      const found = faultsOf(input);
      // Of too many, each repeats the name.
      expect(found.slice(0, faults.length)).to.deep.equal(faults);
      if (!/without end/.test(what)) expect(found).to.have.length(faults.length);
    });
  }

  it('tells all faults at once, and those of columns only when the table is known', () => {
    expect(faultsOf({ from: 'nothing.here', select: ['x'], where: 'y = 1', limit: 0, oder: 1 })).to.deep.equal([
      'oder is not known here: there are from, select, where, groupBy, aggregate, having, orderBy, limit, cursor',
      'from is "nothing.here", which is no table that this key may read',
      'limit is 0, and must be a whole number from 1 to 1000',
    ]);
  });

  it('counts the values of both conditions together', () => {
    const many = (field: string) => ({ field, op: 'in', value: Array.from({ length: 600 }, (_, i) => i) });
    const groups = { from, groupBy: ['chain'], aggregate: total };
    expect(faultsOf({ ...groups, where: many('volume') })).to.deep.equal([]);
    expect(faultsOf({ ...groups, where: many('volume'), having: many('total') })).to.deep.equal([
      'having has, with where, more than the 1000 values that are allowed',
    ]);
  });

  it('counts the parts of both conditions together', () => {
    const many = (field: string, parts: number) => ({ and: Array.from({ length: parts }, (_, i) => ({ field, op: 'gt', value: i })) });
    const groups = { from, groupBy: ['chain'], aggregate: total };
    expect(faultsOf({ ...groups, where: many('volume', 127), having: many('total', 127) })).to.deep.equal([]);
    expect(faultsOf({ ...groups, where: many('volume', 128), having: many('total', 127) })).to.deep.equal([
      'having has, with where, more than the 256 parts that are allowed',
    ]);
  });

  it('takes names of members that objects have anyway', () => {
    const { query } = checkQuery(
      JSON.parse('{"from":"prices","aggregate":{"__proto__":{"fn":"count"},"constructor":{"fn":"count"}}}'),
      tables,
    );
    expect(query?.aggregate?.map(({ as }) => as)).to.deep.equal(['__proto__', 'constructor']);
    expect(faultsOf(JSON.parse('{"from":"prices","select":["__proto__"]}'))).to.deep.equal([
      'select[0] is "__proto__", which is no column of the table',
    ]);
  });
});

describe('a query in a URL', () => {
  it('is the same query as the tree', () => {
    const { input } = queryFromUrl({
      from: 'prices',
      where: 'price > 100 AND chain IN ("Base")',
      groupBy: 'chain, bucket(at, 1h) as hour',
      aggregate: 'count(*), sum(volume) AS total, percentile(price, 0.95), percentile(price,.5) as "median"',
      having: 'total > 1000',
      orderBy: 'total desc, chain',
      limit: '10',
    });
    expect(input).to.deep.equal({
      from: 'prices',
      where: 'price > 100 AND chain IN ("Base")',
      groupBy: ['chain', { field: 'at', bucket: '1h', as: 'hour' }],
      aggregate: {
        count: { fn: 'count' },
        total: { fn: 'sum', field: 'volume' },
        p95_price: { fn: 'percentile', field: 'price', p: 0.95 },
        median: { fn: 'percentile', field: 'price', p: 0.5 },
      },
      having: 'total > 1000',
      orderBy: [{ field: 'total', dir: 'desc' }, { field: 'chain' }],
      limit: 10,
    });
    expect(faultsOf(input)).to.deep.equal([]);
  });

  it('quotes names that are no plain words', () => {
    expect(queryFromUrl({ select: 'price,"a ""b"", c",desc', orderBy: '"desc" desc,as' }).input).to.deep.equal({
      select: ['price', 'a "b", c', 'desc'],
      orderBy: [{ field: 'desc', dir: 'desc' }, { field: 'as' }],
    });
  });

  const cases: readonly (readonly [parameter: string, text: string, column: number, message: string])[] = [
    ['select', 'price,,at', 7, 'found ,, but expected the name of a column'],
    ['select', 'price at', 7, 'found at, but expected a comma or the end'],
    ['select', '', 1, 'the text ends, but expected the name of a column'],
    ['groupBy', 'hour(at)', 1, 'found hour(…), but groups are made by a column, or by bucket(column, 1h)'],
    ['groupBy', 'bucket(at, hour)', 12, 'found hour, but expected a duration like 5m, 1h or 1d'],
    ['groupBy', 'bucket(at)', 10, 'found ), but expected ,'],
    ['aggregate', 'totl(price)', 1, 'found totl, but expected one of count, count_distinct, sum, avg, min, max, percentile'],
    [
      'aggregate',
      'summ(price)',
      1,
      'found summ, but expected one of count, count_distinct, sum, avg, min, max, percentile; did you mean sum?',
    ],
    ['aggregate', 'sum', 4, 'the text ends, but expected (: sum(column)'],
    ['aggregate', 'sum(*)', 5, 'found *, but expected the name of a column'],
    ['aggregate', 'count(*),count()', 1, 'two aggregates are called count: give one another name, sum(volume) as total'],
    ['orderBy', 'price down', 7, 'found down, but expected a comma or the end'],
    ['orderBy', 'price; DROP TABLE x', 6, '";" has no meaning here'],
  ];
  for (const [parameter, text, column, message] of cases) {
    it(`says what is wrong with ${parameter}=${text}`, () => {
      expect(queryFromUrl({ [parameter]: text }).faults).to.deep.equal([{ field: parameter, message, line: 1, column }]);
    });
  }

  it('refuses what is given twice', () => {
    expect(queryFromUrl({ select: ['a', 'b'] }).faults).to.deep.equal([{ field: 'select', message: 'is given more than once' }]);
  });
});
