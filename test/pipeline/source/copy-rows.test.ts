import { expect } from 'chai';
import fc from 'fast-check';
import { CopyRows } from '../../../pipeline/source/copy-rows.ts';
import { columnKind, type Tuple } from '../../../pipeline/source/pgoutput.ts';

type Row = readonly (string | null)[];

/** Text with much of what the format escapes, and of what only looks like it. */
const values = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc
    .array(fc.constantFrom('\\', '\n', '\t', '\r', '\b', '\f', '\v', '\\N', '\\.', 'N', 'n', '"', 'é', '😀', ''), { maxLength: 12 })
    .map((parts) => parts.join('')),
);

const tables = fc
  .integer({ min: 1, max: 6 })
  .chain((columns) =>
    fc.array(fc.array(fc.option(values, { nil: null, freq: 4 }), { minLength: columns, maxLength: columns }), { maxLength: 30 }),
  );

const letters: Readonly<Record<string, string>> = { '\b': 'b', '\f': 'f', '\n': 'n', '\r': 'r', '\t': 't', '\v': 'v', '\\': '\\' };

/** The text format of COPY TO, as the manual has it. */
function copyText(rows: readonly Row[]): Buffer {
  const escaped = (value: string): string => value.replaceAll('\0', '').replace(/[\b\f\n\r\t\v\\]/g, (char) => `\\${letters[char]}`);
  return Buffer.from(rows.map((row) => `${row.map((value) => (value === null ? '\\N' : escaped(value))).join('\t')}\n`).join(''));
}

function read(tuple: Tuple): Row {
  return Array.from({ length: tuple.count }, (_, i) =>
    tuple.kinds[i] === columnKind.null ? null : tuple.source.toString('utf8', tuple.starts[i], tuple.ends[i]),
  );
}

describe('COPY rows', () => {
  it('come back as they were, wherever the bytes are cut into chunks', () => {
    fc.assert(
      fc.property(tables, fc.infiniteStream(fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 400 }))), (rows, sizes) => {
        const bytes = copyText(rows);
        const reader = new CopyRows();
        const found: Row[] = [];
        for (let at = 0; at < bytes.length;) {
          const size = sizes.next().value as number;
          reader.feed(Buffer.from(bytes.subarray(at, at + size)), (row) => found.push(read(row)));
          at += size;
        }
        expect(found).to.deep.equal(rows.map((row) => row.map((value) => value?.replaceAll('\0', '') ?? null)));
      }),
      { numRuns: 500 },
    );
  });

  it('are complete at their newline, not only when the next one begins', () => {
    const found: Row[] = [];
    new CopyRows().feed(Buffer.from('1\ta\n2\t\\N\n3'), (row) => found.push(read(row)));
    expect(found).to.deep.equal([
      ['1', 'a'],
      ['2', null],
    ]);
  });
});
