/** A piece of a condition's text; `start` and `end` are offsets in it. */
export interface Token {
  readonly kind: 'word' | 'quoted' | 'text' | 'number' | 'duration' | 'sign' | 'end';
  /** The piece as it stands there; of `quoted` (in double quotes) and `text` (in single quotes) what it means. */
  readonly text: string;
  readonly start: number;
  readonly end: number;
}

/** A text that is no condition, and where it ceases to be one. */
export class TextFault extends Error {
  readonly offset: number;

  constructor(message: string, offset: number) {
    super(message);
    this.name = 'TextFault';
    this.offset = offset;
  }
}

/** Both from 1, the column in characters. */
export function lineAndColumn(text: string, offset: number): { readonly line: number; readonly column: number } {
  const before = text.slice(0, offset).split(/\r\n|\r|\n/u);
  return { line: before.length, column: Array.from(before.at(-1)!).length + 1 };
}

/** Letters of any script, digits, `_` and `$`, as in names of Postgres that need no quotes. */
const word = /[\p{L}_][\p{L}\p{M}\p{N}_$]*/uy;
/** A number must not run into letters: `5m` is a duration, and `5x` nothing. */
const number = /[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\p{L}\p{N}_$.])/uy;
const duration = /\d+(?:ms|[smhd])(?![\p{L}\p{N}_$.])/uy;
const sign = /<=|>=|<>|!=|==|[=<>(),%*]/uy;
const space = /\s+/uy;

/**
 * Takes a text apart. Both kinds of quotes are written twice inside themselves; a backslash is a character like any other.
 * @throws TextFault
 */
export function tokensOf(text: string): readonly Token[] {
  const tokens: Token[] = [];
  let at = 0;
  while (at < text.length) {
    const blank = lengthAt(space, text, at);
    if (blank > 0) {
      at += blank;
      continue;
    }
    const token = tokenAt(text, at);
    tokens.push(token);
    at = token.end;
  }
  return [...tokens, { kind: 'end', text: '', start: text.length, end: text.length }];
}

function tokenAt(text: string, start: number): Token {
  const first = text[start]!;
  if (first === '"' || first === "'") return quotedAt(text, start, first);
  for (const [kind, pattern] of kinds) {
    const length = lengthAt(pattern, text, start);
    if (length > 0) return { kind, text: text.slice(start, start + length), start, end: start + length };
  }
  const rest = /^[^\s(),]*/u.exec(text.slice(start, start + 40))?.[0] ?? '';
  const shown = JSON.stringify(rest === '' ? String.fromCodePoint(text.codePointAt(start)!) : rest);
  throw new TextFault(`${shown} has no meaning here`, start);
}

const kinds = [
  ['word', word],
  ['number', number],
  ['duration', duration],
  ['sign', sign],
] as const;

function lengthAt(pattern: RegExp, text: string, at: number): number {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0].length ?? 0;
}

function quotedAt(text: string, start: number, quote: '"' | "'"): Token {
  let end = start + 1;
  for (;;) {
    end = text.indexOf(quote, end);
    if (end < 0) throw new TextFault(`the quotes that open here (${quote}) are not closed`, start);
    if (text[end + 1] !== quote) break;
    end += 2;
  }
  const content = text.slice(start + 1, end).replaceAll(quote + quote, quote);
  return { kind: quote === '"' ? 'quoted' : 'text', text: content, start, end: end + 1 };
}
