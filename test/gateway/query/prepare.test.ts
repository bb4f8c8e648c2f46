import { expect } from 'chai';
import fc from 'fast-check';
import type { QueryTable } from '../../../gateway/query/model.ts';
import { describeFaults, prepareQuery, type PrepareOptions } from '../../../gateway/query/prepare.ts';
import { QueryRefused } from '../../../gateway/query/refused.ts';
import { queryFromUrl, urlMembers } from '../../../schemas/query/url.ts';

const prices: QueryTable = {
  ...{ name: 'public.prices', schema: 'public', table: 'prices', channel: 'prices', cacheable: true, version: '1', partitioned: false },
  columns: new Map([
    ['token_id', 'character varying(64)'],
    ['chain', 'text'],
    ['n', 'integer'],
    ['id', 'uuid'],
    ['price', 'numeric(20,8)'],
    ['ratio', 'real'],
    ['at', 'timestamp with time zone'],
    ['day', 'date'],
    ['live', 'boolean'],
    ['nick', 'text'],
  ]),
  key: ['token_id'],
  notNull: new Set(['token_id', 'n']),
  looseText: new Set(['nick']),
  identity: ['token_id', 'n', 'id', 'price', 'live', 'nick'],
};
const options: PrepareOptions = {
  tables: { find: (name) => (name === prices.name ? prices : undefined), names: () => [prices.name] },
  owner: 'alice',
  cursorSecret: 'secret',
};

function prepared(input: Readonly<Record<string, unknown>>, more: Partial<PrepareOptions> = {}) {
  const { query, faults } = prepareQuery({ from: 'prices', ...input }, { ...options, ...more });
  if (!query) throw new Error(describeFaults(faults));
  return query;
}

describe('the canonical text of a query', () => {
  const same: readonly (readonly [what: string, a: unknown, b: unknown])[] = [
    ['trees and texts', { field: 'price', op: 'gt', value: 100 }, 'price > 100'],
    ['the order of parts', 'price > 1 AND chain = "a" AND n = 2', 'n = 2 AND (chain = "a" AND price > 1)'],
    ['parts said twice', 'price > 1 OR price > 1.0', 'price > 1'],
    ['the order of lists', 'chain IN ("b", "a", "b")', 'chain IN ("a", "b")'],
    ['lists of one', 'chain IN ("a") AND n NOT IN (1)', 'n != 1 AND chain = "a"'],
    ['decimals', 'price = 1.50', { field: 'price', op: 'eq', value: '15e-1' }],
    ['whole numbers', { field: 'n', op: 'eq', value: '1e3' }, 'n = 1000.0'],
    ['what a real rounds', 'ratio = 0.1', { field: 'ratio', op: 'eq', value: '0.100000001' }],
    ['moments', 'at > "2026-11-22T12:00:00Z"', 'at > "2026-11-22 14:00:00.000+02:00"'],
    ['the letters of a UUID', 'id = "A81BC81B-DEAD-4E5D-ABFF-90865D1E13B1"', 'id = "a81bc81b-dead-4e5d-abff-90865d1e13b1"'],
    ['a value that goes without saying', { field: 'chain', op: 'is_null', value: true }, 'chain IS NULL'],
  ];
  for (const [what, a, b] of same) {
    it(`is one for ${what}`, () => {
      expect(prepared({ where: a }).canonical).to.equal(prepared({ where: b }).canonical);
      expect(prepared({ where: a }).sql).to.deep.equal(prepared({ where: b }).sql);
    });
  }

  it('is one for members in another order, and for what is said or goes without saying', () => {
    const all = { limit: 100, orderBy: [{ field: 'token_id', dir: 'asc' }], select: [...prices.columns.keys()], from: 'public.prices' };
    expect(prepared({}).canonical).to.equal(prepared(all).canonical);
  });

  const different: readonly (readonly [what: string, a: object, b: object])[] = [
    ['limits', { limit: 1 }, { limit: 2 }],
    ['selections', { select: ['n'] }, { select: ['n', 'price'] }],
    ['directions', { orderBy: [{ field: 'n' }] }, { orderBy: [{ field: 'n', dir: 'desc' }] }],
    ['signs', { where: 'n > -1' }, { where: 'n > 1' }],
    ['digits that a double does not have', { where: 'price > 9007199254740993' }, { where: 'price > 9007199254740992' }],
    ['letters', { where: 'chain = "a"' }, { where: 'chain = "A"' }],
    ['the ends of a range', { where: 'n BETWEEN 1 AND 2' }, { where: 'n BETWEEN 1 AND 3' }],
    ['AND and OR', { where: 'n = 1 AND live = TRUE' }, { where: 'n = 1 OR live = TRUE' }],
    ['texts that look alike', { where: 'chain = "1"' }, { where: 'chain = "1.0"' }],
    ['functions', { aggregate: { x: { fn: 'min', field: 'n' } } }, { aggregate: { x: { fn: 'max', field: 'n' } } }],
    ['buckets', { groupBy: [{ field: 'at', bucket: '1h' }] }, { groupBy: [{ field: 'at', bucket: '1d' }] }],
  ];
  for (const [what, a, b] of different) {
    it(`tells ${what} apart`, () => expect(prepared({ ...a }).canonical).to.not.equal(prepared({ ...b }).canonical));
  }
});

describe('the dependency of a query', () => {
  const id = 'a81bc81b-dead-4e5d-abff-90865d1e13b1';
  const cases: readonly (readonly [where: string | undefined, columns?: readonly string[], ...values: readonly (readonly string[])[]])[] = [
    [undefined],
    ['price > 1'],
    ['token_id = "a"', ['token_id'], ['a']],
    ['token_id IN ("b", "a") AND price > 1', ['token_id'], ['a'], ['b']],
    ['token_id = "a" AND n IN (2, 1.0)', ['n', 'token_id'], ['1', 'a'], ['2', 'a']],
    [`id = "${id.toUpperCase()}" AND live = TRUE`, ['id', 'live'], [id, 'true']],
    // Elsewhere than at the top, or of an operator that other values meet, too.
    ['token_id = "a" OR n = 1'],
    ['NOT token_id = "a"'],
    ['token_id != "a"'],
    ['token_id LIKE "a"'],
    // Columns that can change unseen, values of many spellings, texts that are equal to others.
    ['chain = "a"'],
    ['price = 1'],
    ['nick = "a"'],
    // Two demands on one column: the narrower one.
    ['token_id IN ("a", "b", "c") AND token_id IN ("b", "d")', ['token_id'], ['b'], ['d']],
  ];
  for (const [where, columns, ...values] of cases) {
    it(`of ${where ?? 'everything'} is ${columns ? `${columns.join(', ')} of ${values.length}` : 'the table'}`, () => {
      const { dependency } = prepared({ where });
      expect(dependency).to.deep.equal({ table: 'public.prices', ...(columns && { pins: { columns, values } }) });
    });
  }

  it('is of no more than a hundred combinations', () => {
    const list = (count: number): string => `(${Array.from({ length: count }, (_, i) => i).join(', ')})`;
    const texts = (count: number): string => `(${Array.from({ length: count }, (_, i) => `"${i}"`).join(', ')})`;
    expect(prepared({ where: `n IN ${list(10)} AND token_id IN ${texts(10)}` }).dependency.pins?.values).to.have.length(100);
    expect(prepared({ where: `n IN ${list(10)} AND token_id IN ${texts(11)}` }).dependency.pins?.columns).to.deep.equal(['n']);
    expect(prepared({ where: `n IN ${list(101)}` }).dependency).to.deep.equal({ table: 'public.prices' });
  });
});

describe('the cursor of a query', () => {
  const input = { where: 'n > 1', orderBy: [{ field: 'price', dir: 'desc' }] };
  const next = prepared(input).cursorAfter!(['1.5', 'a']);

  it('goes on in a page of another size, whatever the spelling of the query', () => {
    const page = prepared({ ...input, where: { field: 'n', op: 'gt', value: '1.0' }, limit: 7, cursor: next });
    expect(page.sql.values).to.include.members(['1.5', 'a']);
    expect(page.canonical).to.not.equal(prepared({ ...input, limit: 7 }).canonical);
  });

  const strange: readonly (readonly [what: string, input: Readonly<Record<string, unknown>>, more?: Partial<PrepareOptions>])[] = [
    ['another condition', { ...input, where: 'n > 2', cursor: next }],
    ['another order', { where: 'n > 1', orderBy: [{ field: 'price' }], cursor: next }],
    ['another selection', { ...input, select: ['n'], cursor: next }],
    ['another owner', { ...input, cursor: next }, { owner: 'bob' }],
    ['another secret', { ...input, cursor: next }, { cursorSecret: 'other' }],
    ['a cursor that was cut', { ...input, cursor: next.slice(0, -2) }],
    ['a cursor with more behind it', { ...input, cursor: `${next}=` }],
    ['a cursor changed in one letter', { ...input, cursor: next.slice(0, -1) + (next.endsWith('A') ? 'E' : 'A') }],
    ['a cursor of our own making', { ...input, cursor: Buffer.from('["1","a"]').toString('base64url') }],
  ];
  for (const [what, asked, more] of strange) {
    it(`is refused with ${what}`, () => {
      const { code, faults } = prepareQuery({ from: 'prices', ...asked }, { ...options, ...more });
      expect(code).to.equal('bad_cursor');
      expect(describeFaults(faults!)).to.match(/^cursor is of another query, of another owner, or of a table that has been changed since/);
    });
  }

  it('is refused when it would be longer than a request may be', () => {
    expect(() => prepared(input).cursorAfter!(['1', 'x'.repeat(30_000)])).to.throw(QueryRefused, 'too long for a cursor');
  });

  it('is bound to the owner and the query each for itself', () => {
    const page = prepared({ where: 'chain = "x"' }, { owner: 'a1:b' }).cursorAfter!(['k']);
    expect(prepareQuery({ from: 'prices', where: 'chain = "x"', cursor: page }, { ...options, owner: 'a' }).code).to.equal('bad_cursor');
  });
});

describe('SQL of a query', () => {
  const attacks = [
    `'; DROP TABLE prices; --`,
    `" OR 1=1 --`,
    `$1`,
    `\\'; SELECT 1`,
    `%s`,
    `{1,2}`,
    `x','y`,
    `}","{`,
    '\u2019;--',
    ')) OR ((true',
  ];

  it('has no trace of values: it is the same for all of them', () => {
    const queryWith = (text: string) =>
      prepared({
        where: {
          and: [
            { field: 'chain', op: 'eq', value: text },
            { field: 'chain', op: 'in', value: [text, `${text}!`] },
            { field: 'chain', op: 'like', value: `${text.replaceAll('\\', '')}%` },
            {
              or: [
                { field: 'nick', op: 'gt', value: text },
                { field: 'nick', op: 'between', value: [text, `${text}~`] },
              ],
            },
          ],
        },
      });
    for (const attack of attacks) {
      expect(queryWith(attack).sql.text).to.equal(queryWith('harmless').sql.text);
      expect(queryWith(attack).sql.values.flat()).to.include(attack);
    }
  });

  it('has no name that the table does not have', () => {
    for (const attack of attacks) {
      const inputs = [
        { select: [attack] },
        { orderBy: [{ field: attack }] },
        { groupBy: [attack] },
        { groupBy: [{ field: 'at', bucket: attack }] },
        { aggregate: { n: { fn: attack, field: 'n' } } },
        { aggregate: { n: { fn: 'sum', field: attack } } },
        { aggregate: { [attack]: { fn: 'count' } } },
        { groupBy: [{ field: 'chain', as: attack }] },
        { orderBy: [{ field: 'n', dir: attack }] },
        { where: { field: attack, op: 'eq', value: 1 } },
        { where: { field: 'n', op: attack, value: 1 } },
        { limit: attack },
        { from: attack },
      ];
      for (const input of inputs)
        expect(prepareQuery({ from: 'prices', ...input }, options).code, JSON.stringify(input)).to.equal('bad_query');
    }
  });

  it("has no names of members of the answer: they are the asker's", () => {
    const groups = (as: string) =>
      prepared({ groupBy: [{ field: 'chain', as }], aggregate: { [`${as}_n`]: { fn: 'count' } }, having: `${as}_n > 1` });
    expect(groups('select').sql).to.deep.equal(groups('x').sql);
    expect(groups('select').output).to.deep.equal(['select', 'select_n']);
  });

  it('quotes the names of the database, whatever they are', () => {
    const odd = `a"; DROP TABLE x; --`;
    const table = { ...prices, schema: 's"s', table: 't t', columns: new Map([[odd, 'text']]), key: [odd] };
    const { query } = prepareQuery({ from: 'prices' }, { ...options, tables: { find: () => table, names: () => [] } });
    expect(query!.sql.text).to.equal(
      `SELECT t."a""; DROP TABLE x; --", t."a""; DROP TABLE x; --" FROM ONLY "s""s"."t t" t ORDER BY t."a""; DROP TABLE x; --" LIMIT $1::pg_catalog.int8`,
    );
  });

  it('can begin a page at an index: a bound on the first column stands alone', () => {
    const pageOf = (orderBy: readonly object[], keyset: readonly string[]): string => {
      const asked = { select: ['n'], orderBy };
      return prepared({ ...asked, cursor: prepared(asked).cursorAfter!(keyset) }).sql.text.replace(/^.* WHERE (.*) ORDER BY .*$/u, '$1');
    };
    const text = 'pg_catalog.text';
    expect(pageOf([], ['a'])).to.equal(`(t."token_id" > $1::${text})`);
    expect(pageOf([{ field: 'n' }], ['1', 'a'])).to.equal(`((t."n", t."token_id") > ($1::pg_catalog.int4, $2::${text}))`);
    expect(pageOf([{ field: 'price', dir: 'desc' }], ['1', 'a'])).to.match(/^\(t."price" <= \$1::pg_catalog.numeric AND \(/);
  });

  it('is made of any JSON, or it is said what is wrong', () => {
    const seed = Date.now() % 2 ** 31;
    const member = fc.constantFrom(...urlMembers, 'field', 'op', 'value', 'and', 'or', 'not', 'fn', 'as', 'bucket', 'p', 'dir', 'x');
    const word = fc.constantFrom(
      'prices',
      'price',
      'chain',
      'at',
      'n',
      'eq',
      'in',
      'count',
      'sum',
      '1h',
      'desc',
      'price > 1',
      '',
      '__proto__',
    );
    const { value } = fc.letrec<{ value: unknown }>((tie) => ({
      value: fc.oneof(
        { maxDepth: 6 },
        word,
        fc.jsonValue({ maxDepth: 1 }),
        fc.array(tie('value'), { maxLength: 4 }),
        fc.dictionary(member, tie('value'), { maxKeys: 6 }),
      ),
    }));
    fc.assert(
      fc.property(fc.oneof(value, fc.dictionary(fc.constantFrom(...urlMembers), value)), (input) => {
        const asked = typeof input === 'object' && input !== null && !Array.isArray(input) ? { ...input, from: 'prices' } : input;
        const { query, faults } = prepareQuery(asked, options);
        expect(query === undefined).to.equal((faults?.length ?? 0) > 0);
      }),
      { numRuns: 5_000, seed },
    );
    const texts = fc.dictionary(
      fc.constantFrom(...urlMembers),
      fc
        .array(fc.oneof(word, fc.constantFrom('(', ')', ',', '*', '"', ' as ', ' ', '\0', '\ud800'), fc.string()), { maxLength: 8 })
        .map((parts) => parts.join('')),
    );
    fc.assert(
      fc.property(texts, (parameters) => {
        const { input, faults } = queryFromUrl(parameters);
        if (input) prepareQuery({ ...input, from: 'prices' }, options);
        else expect(faults.length).to.be.above(0);
      }),
      { numRuns: 5_000, seed },
    );
  });

  it('is refused, not overflown, by what is nested without end', () => {
    const deep = JSON.parse(`${'['.repeat(30_000)}${']'.repeat(30_000)}`) as unknown;
    const tree = JSON.parse(`${'{"not":'.repeat(9_000)}1${'}'.repeat(9_000)}`) as unknown;
    for (const name of urlMembers) expect(prepareQuery({ from: 'prices', [name]: deep }, options).code, name).to.equal('bad_query');
    expect(prepareQuery({ from: 'prices', where: tree }, options).code).to.equal('bad_query');
    expect(prepareQuery({ from: 'prices', where: `${'('.repeat(30_000)}n = 1${')'.repeat(30_000)}` }, options).code).to.equal('bad_query');
    expect(prepareQuery({ from: 'prices', where: { field: 'n', op: 'eq', value: deep } }, options).code).to.equal('bad_query');
  });
});
