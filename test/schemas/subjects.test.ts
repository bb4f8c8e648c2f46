import { expect } from 'chai';
import fc from 'fast-check';
import { decodeToken, encodeToken, tablesNamed, tableToken } from '../../schemas/subjects.ts';

describe('subjects', () => {
  it('any name comes back from its token, and the token is one that NATS takes', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', minLength: 1, maxLength: 63 }), (name) => {
        const token = encodeToken(name);
        expect(token).to.not.match(/[.*>\s\p{Cc}]/u);
        expect(decodeToken(token)).to.equal(name);
      }),
      { numRuns: 500 },
    );
  });

  it('different tables have different tokens', () => {
    const name = fc.string({ unit: fc.constantFrom('a', '.', '%', '2', 'E'), minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(name, name, name, name, (schema, table, otherSchema, otherTable) => {
        const same = schema === otherSchema && table === otherTable;
        expect(tableToken(schema, table) === tableToken(otherSchema, otherTable)).to.equal(same);
      }),
      { numRuns: 500 },
    );
  });

  it('a table is among those that its name can mean, and no other name is', () => {
    const name = fc.string({ unit: fc.constantFrom('a', '.'), minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(name, name, (schema, table) => {
        const tables = tablesNamed(`${schema}.${table}`);
        expect(tables).to.deep.include({ schema, table });
        for (const one of tables) expect(`${one.schema}.${one.table}`).to.equal(`${schema}.${table}`);
      }),
      { numRuns: 200 },
    );
    expect(tablesNamed('prices')).to.deep.equal([{ schema: 'public', table: 'prices' }]);
    for (const none of ['', '.', '.a', 'a.']) expect(tablesNamed(none), none).to.deep.equal([]);
  });

  it('the wire format is pinned', () => {
    expect(tableToken('public', 'prices')).to.equal('public.prices');
    expect(tableToken('my.schema', 'odd *>% name')).to.equal('my%2Eschema.odd%20%2A%3E%25%20name');
    expect(encodeToken('größe')).to.equal('größe');
    expect(encodeToken('tab\there')).to.equal('tab%09here');
    expect(encodeToken('no-break\u00a0space')).to.equal('no-break%C2%A0space');
  });
});
