import { expect } from 'chai';
import fc from 'fast-check';
import { rowScanner } from '../../../pipeline/replay/row-scanner.ts';

/** What a scanner of these columns is to find, taken from all of the event. */
function picked(text: string, fields: readonly string[]): unknown {
  const event = JSON.parse(text) as Readonly<Record<string, unknown>>;
  const found: Record<string, unknown> = {};
  for (const name of ['op', 'unchanged', 'omitted', 'jsonNull']) if (Object.hasOwn(event, name)) found[name] = event[name];
  for (const name of ['after', 'before']) {
    const row = event[name];
    if (row === undefined) continue;
    const isRow = typeof row === 'object' && row !== null && !Array.isArray(row);
    found[name] = isRow ? Object.fromEntries(Object.entries(row).filter(([column]) => fields.includes(column))) : row;
  }
  return found;
}

describe('what a condition looks at in an event', () => {
  const names = ['price', 'op', 'after', 'before', 'näme', 'a"b', 'back\\', 'p', 'unchanged', ''];
  // Quotes, backslashes and names where nobody should take them for what they are elsewhere; short, long, and beyond ASCII.
  const text = fc.oneof(
    fc.string({ unit: fc.constantFrom('"', '\\', ',', ':', '{', '}', 'é', '😀', 'a', '\n', '"price":1') }),
    fc.constantFrom(
      '12.50',
      ',"price":7',
      '{"after":{"price":1}}',
      '\\'.repeat(63),
      `${'x'.repeat(70)}\\`,
      `${'\\'.repeat(7)}"${'y'.repeat(200)}`,
    ),
  );
  const leaf = fc.oneof(text, fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true }), fc.boolean(), fc.constant(null));
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof(
      { maxDepth: 3, withCrossShrink: true },
      leaf,
      fc.array(tie('tree'), { maxLength: 3 }),
      fc.dictionary(fc.constantFrom(...names), tie('tree'), { maxKeys: 3 }),
    ),
  }));
  const row = fc.dictionary(fc.constantFrom(...names), tree, { maxKeys: 6 });
  const event = fc.record(
    {
      v: fc.constant(1),
      op: fc.constantFrom('insert', 'update', 'delete'),
      key: row,
      after: fc.oneof(row, fc.constant(null)),
      before: row,
      unchanged: fc.array(text, { maxLength: 2 }),
      omitted: fc.array(text, { maxLength: 2 }),
      jsonNull: fc.array(text, { maxLength: 2 }),
      price: tree,
      tx: tree,
    },
    { requiredKeys: [] },
  );
  const fields = fc.subarray(['price', 'näme', 'after', 'p', 'a"b', 'constructor']);

  it('is what JSON.parse has of it, however the event is written', () =>
    fc.assert(
      fc.property(event, fields, fc.constantFrom(undefined, 1, '\t'), fc.nat(3), (one, columns, indent, offset) => {
        const written = JSON.stringify(one, undefined, indent);
        const bytes = Buffer.concat([Buffer.alloc(offset, '"'), Buffer.from(written), Buffer.from('"price":8}')]);
        const found = rowScanner(columns)(bytes.subarray(offset, offset + Buffer.byteLength(written)));
        // Names with escapes are left to others.
        if (found === undefined) expect(written).to.match(/\\/);
        else expect(found).to.deep.equal(picked(written, columns));
      }),
      { numRuns: 5_000 },
    ));

  it('is found without parsing in events as capture writes them', () => {
    const after = { id: 'a', note: `${'long '.repeat(40)}"\\`, doc: '{"price": 1}', price: '1.50', big: 12345678901234567890n.toString() };
    const written = JSON.stringify({ v: 1, type: 'row', op: 'update', key: { id: 'a' }, after, unchanged: ['x'], tx: { xid: 1 } });
    expect(rowScanner(['price', 'note'])(Buffer.from(written))).to.deep.equal({
      op: 'update',
      after: { price: '1.50', note: after.note },
      unchanged: ['x'],
    });
  });

  it('leaves to JSON.parse what is cut off, and a column that no object can have as others', () => {
    const written = '{"op":"insert","after":{"price":"1","note":"a\\"","doc":[{"a":1}],"n":1}}';
    for (let length = 0; length < written.length; length++)
      expect(rowScanner(['price'])(Buffer.from(written.slice(0, length))), written.slice(0, length)).to.equal(undefined);
    expect(rowScanner(['price'])(Buffer.from(written))).to.deep.equal({ op: 'insert', after: { price: '1' } });
    expect(rowScanner(['__proto__'])(Buffer.from('{"op":"insert","after":{"__proto__":{"a":1}}}'))).to.equal(undefined);
  });
});
