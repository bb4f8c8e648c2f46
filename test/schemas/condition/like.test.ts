import { expect } from 'chai';
import fc from 'fast-check';
import { compileLike, endsInEscape } from '../../../schemas/condition/like.ts';

const signs = fc.constantFrom('a', 'b', '%', '_', '\\', '😀', '😁', '\n');
const patterns = fc
  .array(signs, { maxLength: 10 })
  .map((parts) => parts.join(''))
  .filter((pattern) => !endsInEscape(pattern));
const texts = fc.array(signs, { maxLength: 10 }).map((parts) => parts.join(''));

/** The definition itself: what is left of the pattern against what is left of the text, character by character. */
function naive(pattern: readonly string[], text: readonly string[]): boolean {
  const [sign, ...rest] = pattern;
  if (sign === undefined) return text.length === 0;
  if (sign === '%') return naive(rest, text) || (text.length > 0 && naive(pattern, text.slice(1)));
  if (text.length === 0) return false;
  if (sign === '_') return naive(rest, text.slice(1));
  const [literal, after] = sign === '\\' ? [rest[0], rest.slice(1)] : [sign, rest];
  return literal === text[0] && naive(after, text.slice(1));
}

describe('LIKE', () => {
  it('is what its definition says', () => {
    fc.assert(
      fc.property(patterns, texts, (pattern, text) => {
        expect(compileLike(pattern, false)(text), `${JSON.stringify(text)} LIKE ${JSON.stringify(pattern)}`).to.equal(
          naive(Array.from(pattern), Array.from(text)),
        );
      }),
      { numRuns: 20_000 },
    );
  });

  it('takes no long time for patterns that make regular expressions explode', () => {
    const text = 'a'.repeat(100_000);
    const started = performance.now();
    expect(compileLike('%a'.repeat(400) + '%b', false)(text)).to.equal(false);
    expect(compileLike('%_a'.repeat(300) + 'b', false)(text)).to.equal(false);
    expect(compileLike('%' + 'a_'.repeat(400) + 'b', false)(text)).to.equal(false);
    expect(performance.now() - started).to.be.lessThan(2_000);
  });

  it('ILIKE goes by characters in lower case: one stays one', () => {
    expect(compileLike('ΣΑΣ', true)('σας')).to.equal(false);
    expect(compileLike('σασ', true)('ΣΑΣ')).to.equal(true);
    expect(compileLike('_stanbul', true)('İSTANBUL')).to.equal(true);
    expect(compileLike('STRASSE', true)('straße')).to.equal(false);
  });
});
