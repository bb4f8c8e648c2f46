import { expect } from 'chai';
import { mergedRow } from '../../../../pipeline/capture/backfill/merged-row.ts';

const head = '{"v":1,"id":"0.1","type":"row","op":"read","table":"public.t"';

function merge(read: string, newer: readonly string[], limit = 10_000): string {
  return mergedRow(
    Buffer.from(read),
    newer.map((text) => Buffer.from(text)),
    limit,
  ).toString('utf8');
}

describe('a row that was read, with what is newer', () => {
  const read = `${head},"key":{"id":1},"after":{"id":1,"v":"old","big":"lärge","j":{"n":12345678901234567890}}`;

  it('has the newest value of each column byte for byte, and the newest key', () => {
    const first = `{"v":1,"op":"update","key":{"id":2},"after":{"id":2,"v":"é 1"},"before":{"id":1},"unchanged":["big","j"],"tx":{"xid":1,"idx":0}}`;
    const second = `{"v":1,"op":"update","key":{"id":2},"after":{"id":2,"v":"é 2","j":[1.10]},"unchanged":["big"],"tx":{"xid":2,"idx":0}}`;
    expect(merge(read, [first])).to.equal(`${head},"key":{"id":2},"after":{"id":2,"v":"é 1","big":"lärge","j":{"n":12345678901234567890}}`);
    expect(merge(read, [first, second])).to.equal(`${head},"key":{"id":2},"after":{"id":2,"v":"é 2","big":"lärge","j":[1.10]}`);
  });

  it('names what the newest event could not hold, and which JSON null is no SQL NULL', () => {
    const newer = `{"key":{"id":1},"after":{"id":1,"j":null},"unchanged":["big"],"omitted":["v"],"jsonNull":["j"]}`;
    expect(merge(read, [newer])).to.equal(
      `${head},"key":{"id":1},"after":{"id":1,"big":"lärge","j":null},"omitted":["v"],"jsonNull":["j"]`,
    );
    const later = `{"key":{"id":1},"after":{"id":1,"v":"back","j":null},"unchanged":["big"]}`;
    expect(merge(read, [newer, later])).to.equal(`${head},"key":{"id":1},"after":{"id":1,"big":"lärge","j":null,"v":"back"}`);
  });

  it('leaves out the largest columns, never the key, when it would be too large', () => {
    const newer = `{"key":{"id":1},"after":{"id":1,"v":"${'x'.repeat(300)}"},"unchanged":["big","j"]}`;
    const merged = merge(read, [newer], 250);
    expect(merged).to.equal(`${head},"key":{"id":1},"after":{"id":1,"big":"lärge","j":{"n":12345678901234567890}},"omitted":["v"]`);
    expect(Buffer.byteLength(merged)).to.be.at.most(250);
  });
});
