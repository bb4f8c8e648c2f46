import { expect } from 'chai';
import fc from 'fast-check';
import {
  columnKind,
  oldRow,
  readBegin,
  readMessage,
  readRelation,
  readRowChange,
  readTruncate,
  Tuple,
} from '../../../pipeline/source/pgoutput.ts';
import { bytes, cstring, int16, int32, int64, tupleData, type Cell } from './support/pgoutput-bytes.ts';

const cells: fc.Arbitrary<Cell> = fc.oneof(
  fc.constant(null),
  fc.constant('unchanged' as const),
  fc.string({ unit: 'binary' }).map((text) => ({ text })),
);
const rows = fc.array(cells, { maxLength: 40 });
/** Messages do not begin where their buffer does. */
const leads = fc.nat(9);

function cellsOf(tuple: Tuple): readonly Cell[] {
  return Array.from({ length: tuple.count }, (_, i): Cell => {
    if (tuple.kinds[i] === columnKind.null) return null;
    if (tuple.kinds[i] === columnKind.unchanged) return 'unchanged';
    return { text: tuple.source.toString('utf8', tuple.starts[i], tuple.ends[i]) };
  });
}

describe('pgoutput', () => {
  it('reads rows of any columns from anywhere in a buffer, into tuples that held others before', () => {
    const before = new Tuple();
    const after = new Tuple();
    fc.assert(
      fc.property(leads, rows, rows, fc.constantFrom('I', 'U', 'UK', 'UO', 'DK', 'DO'), (lead, old, now, kind) => {
        const part = kind[1] ?? '';
        const message = bytes(
          kind[0]!,
          int32(4_000_000_000),
          part,
          part === '' ? '' : tupleData(old),
          kind[0] === 'D' ? '' : bytes('N', tupleData(now)),
        );
        const source = Buffer.concat([Buffer.alloc(lead, 'x'), message, Buffer.from('next')]);
        const change = readRowChange(source, lead, before, after);
        expect(change).to.deep.equal({ relation: 4_000_000_000, oldKind: part === 'K' ? oldRow.key : part === 'O' ? oldRow.full : 0 });
        if (part !== '') expect(cellsOf(before)).to.deep.equal(old);
        if (kind[0] !== 'D') expect(cellsOf(after)).to.deep.equal(now);
      }),
    );
  });

  it('reads a BEGIN: the commit record, its time, and a transaction id of 32 bits without sign', () => {
    const message = bytes('B', int64(0xffff_fffe_0000_0001n), int64(817_000_000_123_456n), int32(0xfffffff0));
    expect(readBegin(Buffer.concat([Buffer.from('xx'), message]), 2)).to.deep.equal({
      lsn: 0xffff_fffe_0000_0001n,
      time: 817_000_000_123_456,
      xid: 0xfffffff0,
    });
  });

  it('reads a relation', () => {
    const columns = bytes('\x01', cstring('id'), int32(23), int32(-1), '\0', cstring('naïve "name"'), int32(1700), int32(655_366));
    expect(readRelation(bytes('R', int32(16_400), cstring('public'), cstring('T a.b'), 'd', int16(2), columns), 0)).to.deep.equal({
      oid: 16_400,
      schema: 'public',
      table: 'T a.b',
      identity: 'd',
      columns: [
        { name: 'id', identity: true, typeOid: 23, typeModifier: -1 },
        { name: 'naïve "name"', identity: false, typeOid: 1700, typeModifier: 655_366 },
      ],
    });
    expect(readRelation(bytes('R', int32(1), '\0', cstring('t'), 'f', int16(0)), 0).schema).to.equal('pg_catalog');
  });

  it('reads a TRUNCATE of several tables', () => {
    expect(readTruncate(bytes('T', int32(3), '\x03', int32(7), int32(4_000_000_000), int32(9)), 0)).to.deep.equal([7, 4_000_000_000, 9]);
  });

  it('reads logical messages', () => {
    const content = Buffer.from([0, 255, 10]);
    const message = bytes('M', '\x01', int64(0x16_b374d848n), cstring('my.prefix'), int32(3), content, 'next');
    expect(readMessage(message, 0)).to.deep.equal({ transactional: true, lsn: 0x16_b374d848n, prefix: 'my.prefix', content });
    expect(readMessage(bytes('M', '\0', int64(1n), '\0', int32(0)), 0)).to.deep.equal({
      transactional: false,
      lsn: 1n,
      prefix: '',
      content: Buffer.alloc(0),
    });
  });

  it('refuses a column of a kind that it does not know', () => {
    expect(() => new Tuple().read(bytes(int16(1), 'b', int32(1), 'x'), 0)).to.throw('unknown column kind 98');
  });
});
