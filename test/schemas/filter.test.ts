import { expect } from 'chai';
import fc from 'fast-check';
import type { FilterField, TableEntry } from '../../schemas/catalog.ts';
import { unnamedEntry } from '../../schemas/catalog.ts';
import { compareDecimal } from '../../schemas/decimal.ts';
import { FilterError, filterTerms, matches, parseFilter, type Filter, type FilterableEvent } from '../../schemas/filter.ts';

const limits = { maxValues: 500 };

function entry(filters: Partial<Record<FilterField, string>>): TableEntry {
  return { ...unnamedEntry, type: 'price_update', channel: 'prices', filters };
}

const prices = new Map([['public.prices', entry({ tokenIds: 'token_id', chains: 'chain', value: 'price' })]]);
const mixed = new Map([...prices, ['public.votes', { ...entry({ chains: 'network', userId: 'voter' }), type: 'vote' }]]);

function filter(input: unknown, tables = prices): Filter {
  return parseFilter(input, tables, limits);
}

function numbers(length: number): readonly number[] {
  return Array.from({ length }, (_, i) => i);
}

function price(after: Record<string, unknown>, before?: Record<string, unknown>): FilterableEvent {
  return { type: 'price_update', op: 'update', table: 'public.prices', after, ...(before && { before }) };
}

describe('filter: what is refused', () => {
  const refused: readonly (readonly [name: string, input: unknown, field: string | undefined, message: RegExp])[] = [
    ['no object', [], undefined, /must be an object/],
    ['null', null, undefined, /must be an object/],
    ['an unknown field', { tokenId: ['a'] }, 'tokenId', /no field tokenId; did you mean tokenIds/],
    ['a field by the name of a built-in', JSON.parse('{"__proto__":["a"]}'), '__proto__', /no field __proto__/],
    ['a field the channel does not map', { protocolIds: ['a'] }, 'protocolIds', /maps it to no column/],
    ['an empty list', { chains: [] }, 'chains', /at least one/],
    ['text for a list', { chains: 'base' }, 'chains', /must be a list/],
    ['null for a list', { chains: null }, 'chains', /must be a list/],
    ['an object in a list', { chains: [{}] }, 'chains', /only texts/],
    ['true in a list', { types: [true] }, 'types', /only texts/],
    ['a bound that is no decimal', { minValue: 'abc' }, 'minValue', /must be a number/],
    ['an infinite bound', { maxValue: Infinity }, 'maxValue', /must be a number/],
    ['NaN as text', { maxValue: 'NaN' }, 'maxValue', /must be a number/],
    ['a list for a bound', { minValue: [1] }, 'minValue', /must be a number/],
    ['too many values', { tokenIds: numbers(400), chains: numbers(101) }, undefined, /501 values/],
  ];
  for (const [name, input, field, message] of refused) {
    it(name, () => {
      expect(() => filter(input))
        .to.throw(FilterError, message)
        .that.includes({ code: 'bad_filter', field });
    });
  }

  it('a list for userId, which is one', () => {
    expect(() => filter({ userId: ['a'] }, mixed)).to.throw(FilterError, /userId must be text/);
  });
});

describe('filter: what matches', () => {
  it('everything, without fields', () => {
    expect(matches(filter(undefined), price({}))).to.equal(true);
    expect(matches(filter({}), price({}))).to.equal(true);
  });

  it('any value of a list, by its text', () => {
    const wanted = filter({ tokenIds: ['ethereum:0x1', 42] });
    expect(matches(wanted, price({ token_id: 'ethereum:0x1' }))).to.equal(true);
    expect(matches(wanted, price({ token_id: 42 }))).to.equal(true);
    expect(matches(wanted, price({ token_id: '42' }))).to.equal(true);
    expect(matches(wanted, price({ token_id: 'ethereum:0x2' }))).to.equal(false);
    expect(matches(wanted, price({ token_id: null }))).to.equal(false);
    expect(matches(wanted, price({}))).to.equal(false);
  });

  it('inclusive bounds, exactly', () => {
    const wanted = filter({ minValue: '9007199254740992.1', maxValue: '9007199254740993' });
    const at = (value: unknown): boolean => matches(wanted, price({ price: value }));
    expect(['9007199254740992.1', '9007199254740992.10', '9007199254740993', '9007199254740993.0'].map(at)).to.deep.equal([
      true,
      true,
      true,
      true,
    ]);
    expect(['9007199254740992.09', '9007199254740993.1', 'NaN', 'Infinity', null, true, {}, undefined].some(at)).to.equal(false);
  });

  it('a row that leaves the filter is seen to leave', () => {
    expect(matches(filter({ chains: ['base'] }), price({ chain: 'arbitrum' }, { chain: 'base' }))).to.equal(true);
  });

  it('all fields in one image of the row, not one here and one there', () => {
    const wanted = filter({ chains: ['base'], minValue: 10 });
    expect(matches(wanted, price({ chain: 'base', price: '1' }, { chain: 'arbitrum', price: '20' }))).to.equal(false);
  });

  it('a delete of which only the key is known', () => {
    const deleted = { type: 'price_update', op: 'delete', table: 'public.prices', key: { token_id: 'a' } };
    expect(matches(filter({ tokenIds: ['a'] }), deleted)).to.equal(true);
    expect(matches(filter({ tokenIds: ['b'] }), deleted)).to.equal(false);
    expect(matches(filter({ chains: ['base'] }), deleted)).to.equal(false);
  });

  it('truncates, whatever the filter', () => {
    const truncated = { type: 'price_update', op: 'truncate', table: 'public.prices' };
    expect(matches(filter({ types: ['other'], chains: ['base'], minValue: 1 }), truncated)).to.equal(true);
  });

  it('each table by its own column; one that lacks the field does not match', () => {
    const vote = { type: 'vote', op: 'insert', table: 'public.votes', after: { network: 'base', voter: 'ann', chain: 'arbitrum' } };
    expect(matches(filter({ chains: ['base'] }, mixed), vote)).to.equal(true);
    expect(matches(filter({ chains: ['arbitrum'] }, mixed), vote)).to.equal(false);
    expect(matches(filter({ userId: 'ann' }, mixed), vote)).to.equal(true);
    expect(matches(filter({ userId: 'ann' }, mixed), price({ voter: 'ann' }))).to.equal(false);
    expect(matches(filter({ types: ['vote'] }, mixed), vote)).to.equal(true);
    expect(matches(filter({ types: ['vote'] }, mixed), price({}))).to.equal(false);
  });

  it('no column that the row only inherits', () => {
    const odd = new Map([['public.prices', entry({ chains: 'constructor' })]]);
    expect(matches(filter({ chains: [String(Object)] }, odd), price({}))).to.equal(false);
  });
});

describe('filter: terms for an index', () => {
  it('come from the most selective equality', () => {
    expect(filterTerms(filter({ chains: ['base'], tokenIds: ['a', 'b'] }))).to.deep.equal([
      { table: 'public.prices', column: 'token_id', value: 'a' },
      { table: 'public.prices', column: 'token_id', value: 'b' },
    ]);
  });

  it('are there for every table that has the field', () => {
    expect(filterTerms(filter({ chains: ['base'] }, mixed))?.map(({ table, column }) => `${table}.${column}`)).to.deep.equal([
      'public.prices.chain',
      'public.votes.network',
    ]);
  });

  it('are none without an equality', () => {
    expect(filterTerms(filter({ types: ['price_update'], minValue: 1 }))).to.equal(undefined);
  });
});

/** What the words of the rule say, written as plainly as possible, from the input and not from the parsed filter. */
function shouldMatch(input: Record<string, unknown>, event: FilterableEvent): boolean {
  if (event.op === 'truncate') return true;
  const columns: Record<string, Record<string, string>> = {
    'public.prices': { tokenIds: 'token_id', chains: 'chain', value: 'price' },
    'public.votes': { chains: 'network', userId: 'voter' },
  };
  const ok = (row: Readonly<Record<string, unknown>> | undefined): boolean => {
    if (!row) return false;
    return Object.entries(input).every(([field, wanted]) => {
      if (field === 'types') return (wanted as unknown[]).map(String).includes(event.type);
      const column = columns[event.table ?? '']?.[field === 'minValue' || field === 'maxValue' ? 'value' : field];
      const value = column === undefined ? undefined : row[column];
      if (value === undefined || value === null) return false;
      const order = compareDecimal(String(value), String(wanted));
      if (field === 'minValue') return order !== undefined && order >= 0;
      if (field === 'maxValue') return order !== undefined && order <= 0;
      return [wanted].flat().map(String).includes(String(value));
    });
  };
  if (Object.keys(input).every((field) => field === 'types')) return ok({});
  return ok(event.after) || ok(event.before) || ok(event.key);
}

describe('filter: against a brute-force reading of the rule', () => {
  const value = fc.oneof(
    fc.constantFrom('1', '2', '3', '1.0', '1.1', 'NaN'),
    fc.integer({ min: 0, max: 3 }),
    fc.boolean(),
    fc.constant(null),
  );
  const columns = { token_id: value, chain: value, price: value, network: value, voter: value };
  const row = fc.oneof(fc.record(columns), fc.record(columns, { requiredKeys: [] }));
  const event: fc.Arbitrary<FilterableEvent> = fc.record(
    {
      type: fc.constantFrom('price_update', 'vote'),
      op: fc.constantFrom('insert', 'update', 'update', 'delete', 'read', 'truncate'),
      table: fc.constantFrom('public.prices', 'public.prices', 'public.votes', 'public.other'),
      after: row,
      before: row,
      key: row,
    },
    { requiredKeys: ['type', 'op', 'table'] },
  );
  const item = fc.oneof(fc.constantFrom('1', '2', '1.0', 'true'), fc.integer({ min: 0, max: 3 }));
  const items = fc.array(item, { minLength: 1, maxLength: 4 });
  const bound = fc.oneof(fc.constantFrom('0', '1.00', '2.5', '1e1'), fc.integer({ min: 0, max: 3 }));
  const types = fc.subarray(['price_update', 'vote'], { minLength: 1 });
  const fields = { types, tokenIds: items, chains: items, userId: item, minValue: bound, maxValue: bound };
  // `requiredKeys: []` would keep nearly all fields, and nearly nothing would match.
  const input = fc
    .tuple(fc.record(fields), fc.subarray(Object.keys(fields)))
    .map(([all, kept]): Record<string, unknown> => Object.fromEntries(Object.entries(all).filter(([field]) => kept.includes(field))));

  it('agrees on every filter and event', () => {
    let hits = 0;
    fc.assert(
      fc.property(input, event, (given, seen) => {
        const expected = shouldMatch(given, seen);
        if (expected && seen.op !== 'truncate') hits++;
        expect(matches(filter(given, mixed), seen)).to.equal(expected);
      }),
      { numRuns: 5000 },
    );
    expect(hits).to.be.greaterThan(200);
  });

  it('whatever matches has one of the terms', () => {
    fc.assert(
      fc.property(input, event, (given, seen) => {
        const parsed = filter(given, mixed);
        const terms = filterTerms(parsed);
        if (!terms || seen.op === 'truncate' || !matches(parsed, seen)) return;
        const rows: readonly (Readonly<Record<string, unknown>> | undefined)[] = [seen.after, seen.before, seen.key];
        const found = terms.some(
          ({ table, column, value: text }) => table === seen.table && rows.some((r) => r && String(r[column]) === text),
        );
        expect(found).to.equal(true);
      }),
      { numRuns: 5000 },
    );
  });
});
