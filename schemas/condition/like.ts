/**
 * LIKE and ILIKE as Postgres has them: `%` is any text, `_` any one character, a backslash takes the meaning from what
 * follows it. A pattern is split at its `%` once; each part is then found at its leftmost place, without going back.
 */

/** A part of a pattern between two `%`: texts, and numbers for so many characters of any kind. */
type Part = readonly (string | number)[];

/** True for a pattern that Postgres refuses: its last backslash escapes nothing. */
export function endsInEscape(pattern: string): boolean {
  let escapes = 0;
  while (pattern[pattern.length - 1 - escapes] === '\\') escapes++;
  return escapes % 2 === 1;
}

/**
 * Compiles a pattern.
 * @param caseless ILIKE: both sides in lower case, character by character, as Unicode has it (Postgres does what the
 *   database's locale says: with the locale C, of ASCII letters alone)
 */
export function compileLike(pattern: string, caseless: boolean): (text: string) => boolean {
  const parts = partsOf(caseless ? lowerCase(pattern) : pattern);
  return caseless ? (text) => matches(parts, lowerCase(text)) : (text) => matches(parts, text);
}

function partsOf(pattern: string): readonly Part[] {
  const parts: (string | number)[][] = [[]];
  let escaped = false;
  for (const char of pattern) {
    const part = parts.at(-1)!;
    const last = part.at(-1);
    if (!escaped && char === '\\') {
      escaped = true;
      continue;
    }
    if (!escaped && char === '%') parts.push([]);
    else if (!escaped && char === '_') {
      if (typeof last === 'number') part[part.length - 1] = last + 1;
      else part.push(1);
    } else if (typeof last === 'string') part[part.length - 1] = last + char;
    else part.push(char);
    escaped = false;
  }
  return parts;
}

function matches(parts: readonly Part[], text: string): boolean {
  let at = endOfPart(parts[0]!, text, 0);
  if (parts.length === 1) return at === text.length;
  for (let i = 1; at >= 0 && i < parts.length - 1; i++) at = find(parts[i]!, text, at);
  return at >= 0 && endsWith(parts.at(-1)!, text, at);
}

/** Where the part ends when it begins at `at`; -1 when it does not match there. */
function endOfPart(part: Part, text: string, at: number): number {
  let end = at;
  for (const piece of part) {
    if (typeof piece === 'string') {
      if (!text.startsWith(piece, end)) return -1;
      end += piece.length;
    } else {
      end = skip(text, end, piece);
      if (end < 0) return -1;
    }
  }
  return end;
}

/** Where the leftmost match of the part from `from` on ends; -1 when there is none. */
function find(part: Part, text: string, from: number): number {
  if (part.length === 0) return from;
  const first = part[0]!;
  if (part.length === 1 && typeof first === 'string') {
    const at = text.indexOf(first, from);
    return at < 0 ? -1 : at + first.length;
  }
  for (let at = from; at >= 0 && at <= text.length; at = skip(text, at, 1)) {
    if (typeof first === 'string') {
      at = text.indexOf(first, at);
      if (at < 0) return -1;
    }
    const end = endOfPart(part, text, at);
    if (end >= 0) return end;
  }
  return -1;
}

/** Does the text, from `from` on, end in the part? */
function endsWith(part: Part, text: string, from: number): boolean {
  let at = text.length;
  for (let i = part.length - 1; i >= 0; i--) {
    const piece = part[i]!;
    if (typeof piece === 'string') {
      if (!text.endsWith(piece, at)) return false;
      at -= piece.length;
    } else {
      for (let n = piece; n > 0; n--) {
        if (at <= from) return false;
        at -= isPair(text, at - 2) ? 2 : 1;
      }
    }
    if (at < from) return false;
  }
  return true;
}

/** The place `count` characters on; -1 when the text has not so many. */
function skip(text: string, at: number, count: number): number {
  let end = at;
  for (let n = count; n > 0; n--) {
    if (end >= text.length) return -1;
    end += isPair(text, end) ? 2 : 1;
  }
  return end;
}

function isPair(text: string, at: number): boolean {
  const [high, low] = [text.charCodeAt(at), text.charCodeAt(at + 1)];
  return high >= 0xd800 && high < 0xdc00 && low >= 0xdc00 && low < 0xe000;
}

/** In lower case, each character for itself: one stays one (`İ` becomes `i`), whatever stands around it. */
function lowerCase(text: string): string {
  if (/^[\0-\x7f]*$/.test(text)) return text.toLowerCase();
  let lower = '';
  for (const char of text) {
    const one = char.toLowerCase();
    lower += one.length > char.length ? String.fromCodePoint(one.codePointAt(0)!) : one;
  }
  return lower;
}
