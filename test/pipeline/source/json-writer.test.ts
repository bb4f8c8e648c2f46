import { expect } from 'chai';
import fc from 'fast-check';
import { JsonWriter } from '../../../pipeline/source/json-writer.ts';

/** Unicode text of any size up to some hundred thousand bytes: documents that fit a buffer, cross its end, and outgrow it. */
const texts = fc
  .tuple(
    fc.string({ unit: 'binary', maxLength: 40 }),
    fc.oneof({ weight: 9, arbitrary: fc.nat(30) }, { weight: 1, arbitrary: fc.nat(9_000) }),
  )
  .map(([text, times]) => text.repeat(times));

describe('JSON writer', () => {
  it('writes what JSON.stringify writes, document after document, and leaves earlier documents as they were', () => {
    fc.assert(
      fc.property(fc.array(fc.array(texts, { maxLength: 5 }), { maxLength: 60 }), (documents) => {
        const out = new JsonWriter();
        const written = documents.map((values) => {
          out.ascii('[');
          for (const [i, value] of values.entries()) {
            if (i > 0) out.byte(0x2c);
            if (i % 2 === 0) out.string(Buffer.from(value));
            else out.text(value);
          }
          out.ascii(']');
          return out.take();
        });
        expect(written.map((document) => document.toString('utf8'))).to.deep.equal(documents.map((values) => JSON.stringify(values)));
      }),
      { numRuns: 60 },
    );
  });

  it('writes a part of a buffer, raw or as a string', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), texts, fc.string({ unit: 'binary' }), (before, value, after) => {
        const source = Buffer.from(before + value + after);
        const start = Buffer.byteLength(before);
        const end = start + Buffer.byteLength(value);
        const out = new JsonWriter();
        out.raw(source, start, end);
        out.string(source, start, end);
        expect(out.length).to.equal(Buffer.byteLength(value) + Buffer.byteLength(JSON.stringify(value)));
        expect(out.take().toString('utf8')).to.equal(value + JSON.stringify(value));
      }),
    );
  });

  it('writes numbers of 32 bits in decimal and hexadecimal', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.integer({ min: 0, max: 0xffffffff }),
          fc.nat(1_000),
          fc.constantFrom(999_999_999, 1_000_000_000, 0x80000000, 0xffffffff),
        ),
        (value) => {
          const out = new JsonWriter();
          out.decimal(value);
          expect(out.take().toString()).to.equal(String(value));
          out.hex8(value);
          expect(out.take().toString()).to.equal(value.toString(16).toUpperCase().padStart(8, '0'));
        },
      ),
    );
  });

  it('forgets what was written after a place, also when the document has moved to another buffer since', () => {
    fc.assert(
      fc.property(texts, texts, texts, (kept, dropped, then) => {
        const out = new JsonWriter();
        out.text(kept);
        const place = out.length;
        out.text(dropped);
        out.truncate(place);
        out.text(then);
        expect(out.take().toString('utf8')).to.equal(JSON.stringify(kept) + JSON.stringify(then));
      }),
      { numRuns: 60 },
    );
  });

  it('does not keep the buffer of a large document alive for the small ones after it', () => {
    const out = new JsonWriter();
    out.string(Buffer.alloc(5_000_000, 'x'));
    expect(out.take()).to.have.length(5_000_002);
    out.text('small');
    expect(out.take().buffer.byteLength).to.be.below(1_000_000);
  });
});
