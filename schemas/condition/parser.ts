import { compareDecimal } from '../decimal.ts';
import { conditionLimits } from './condition.ts';
import type { Scalar } from './condition.ts';
import { lineAndColumn, TextFault, tokensOf, type Token } from './lexer.ts';

const compareSigns: ReadonlyMap<string, string> = new Map([
  ['=', 'eq'],
  ['==', 'eq'],
  ['!=', 'ne'],
  ['<>', 'ne'],
  ['>', 'gt'],
  ['>=', 'gte'],
  ['<', 'lt'],
  ['<=', 'lte'],
]);

/** Words that are no names of columns unless they stand in double quotes. */
const reservedWords: ReadonlySet<string> = new Set([
  ...['and', 'or', 'not', 'in', 'between', 'like', 'ilike', 'is', 'null', 'true', 'false'],
]);

/** Words that may be names, but could be read in two ways beside others of them. */
const doubtfulWords: ReadonlySet<string> = new Set(['crosses', 'changed', 'change', 'absent']);

/** Can the name of a column stand as it is, wherever it stands? */
export function isPlainName(name: string): boolean {
  const lower = name.toLowerCase();
  return /^[\p{L}_][\p{L}\p{M}\p{N}_$]*$/u.test(name) && !reservedWords.has(lower) && !doubtfulWords.has(lower);
}

/**
 * Makes a tree of a text, by recursive descent; nesting is bounded, so the stack is, too. The grammar stands at `parseCondition`. What
 * it makes is judged by the checker of trees.
 */
export class Parser {
  /** Where each node of the tree stands in the text, and its members and items. */
  readonly places = new Map<object, Readonly<Record<string, number>>>();
  readonly #text: string;
  readonly #tokens: readonly Token[];
  #at = 0;
  #depth = 0;
  /** In a comparison of percent: the sign may follow its numbers. */
  #percent = false;

  /** @throws TextFault */
  constructor(text: string) {
    this.#text = text;
    this.#tokens = tokensOf(text);
  }

  /** @throws TextFault */
  parse(): object {
    if (this.#peek().kind === 'end') throw new TextFault('the condition is empty', 0);
    const tree = this.#or();
    const rest = this.#peek();
    if (rest.kind === 'end') return tree;
    throw this.#unexpected(rest, rest.text === ')' ? undefined : 'AND, OR, or the end');
  }

  #or(): object {
    return this.#series('or', () => this.#series('and', () => this.#unary()));
  }

  #series(word: 'and' | 'or', next: () => object): object {
    const { start } = this.#peek();
    const parts = [next()];
    while (this.#takeWord(word)) parts.push(next());
    return parts.length === 1 ? parts[0]! : this.#placed({ [word]: parts }, { start });
  }

  #unary(): object {
    const token = this.#peek();
    // Twice, since parentheses may stand where no level of the tree is.
    if (++this.#depth > 2 * conditionLimits.depth) throw new TextFault('the condition is nested too deeply here', token.start);
    try {
      if (this.#takeWord('not')) return this.#placed({ not: this.#unary() }, { start: token.start });
      if (!this.#takeSign('(')) return this.#leaf();
      const inner = this.#or();
      const close = this.#peek();
      if (!this.#takeSign(')')) throw this.#unexpected(close, `AND, OR, or ) for the ( at ${placeOf(this.#text, token.start)}`);
      return inner;
    } finally {
      this.#depth--;
    }
  }

  #leaf(): object {
    const { start } = this.#peek();
    if (this.#isWord('absent') && this.#isWord('for', 1)) return this.#absence();
    if (this.#isWord('changed') && this.#isField(1)) {
      this.#at++;
      const { start: field } = this.#peek();
      return this.#placed({ field: this.#field(), op: 'changed' }, { start, field, op: start });
    }
    const field = this.#field();
    const op = this.#peek().start;
    const negated = this.#takeWord('not');
    const { members, places } = this.#tail(negated);
    const leaf = this.#placed({ field, ...members }, { start, field: start, op, ...places });
    return negated && members['op'] !== 'nin' ? this.#placed({ not: leaf }, { start }) : leaf;
  }

  /** What stands behind a field; `negated`: after NOT. */
  #tail(negated: boolean): Tail {
    const token = this.#peek();
    if (this.#takeWord('in')) return this.#list(negated ? 'nin' : 'in');
    if (this.#takeWord('between')) return this.#range();
    if (this.#takeWord('like')) return this.#valued('like');
    if (this.#takeWord('ilike')) return this.#valued('ilike');
    if (negated) throw this.#unexpected(token, 'IN, BETWEEN, LIKE or ILIKE after NOT');
    if (this.#takeWord('is')) return this.#isNull();
    if (this.#takeWord('crosses')) return this.#crosses();
    if (this.#takeWord('changed')) return { members: { op: 'changed' }, places: {} };
    if (this.#takeWord('change')) return this.#change();
    const op = token.kind === 'sign' ? compareSigns.get(token.text) : undefined;
    if (op === undefined) throw this.#unexpected(token, 'an operator: = != < <= > >= IN BETWEEN LIKE ILIKE IS');
    this.#at++;
    return this.#valued(op);
  }

  #valued(op: string): Tail {
    const { start } = this.#peek();
    return { members: { op, value: this.#value() }, places: { value: start } };
  }

  #list(op: 'in' | 'nin'): Tail {
    const open = this.#peek();
    if (!this.#takeSign('(')) throw this.#unexpected(open, 'a list in parentheses, like ("a", "b")');
    const [values, starts]: [Scalar[], number[]] = [[], []];
    do {
      starts.push(this.#peek().start);
      values.push(this.#value());
    } while (this.#takeSign(','));
    if (!this.#takeSign(')')) throw this.#unexpected(this.#peek(), 'a comma or )');
    this.#placed(values, { ...Object.fromEntries(starts.entries()), start: open.start });
    return { members: { op, value: values }, places: { value: open.start } };
  }

  #range(): Tail {
    const { start: low } = this.#peek();
    const first = this.#value();
    if (!this.#takeWord('and')) throw this.#unexpected(this.#peek(), 'AND and the upper end');
    const { start: high } = this.#peek();
    const value = [first, this.#value()];
    this.#placed(value, { 0: low, 1: high, start: low });
    return { members: { op: 'between', value }, places: { value: low } };
  }

  #isNull(): Tail {
    const not = this.#takeWord('not');
    if (!this.#takeWord('null')) throw this.#unexpected(this.#peek(), 'NULL or NOT NULL');
    return { members: { op: 'is_null', ...(not && { value: false }) }, places: {} };
  }

  #crosses(): Tail {
    const above = this.#takeWord('above');
    if (!above && !this.#takeWord('below')) throw this.#unexpected(this.#peek(), 'ABOVE or BELOW');
    return this.#valued(above ? 'crosses_above' : 'crosses_below');
  }

  #change(): Tail {
    const { start } = this.#peek();
    const change = this.#duration();
    const token = this.#peek();
    const sign = token.kind === 'sign' ? compareSigns.get(token.text) : undefined;
    if (sign === undefined && !this.#isWord('between')) throw this.#unexpected(token, 'an operator: > < >= <= = != BETWEEN');
    this.#at++;
    this.#percent = true;
    const { members, places } = sign === undefined ? this.#range() : this.#valued(sign);
    this.#percent = false;
    return { members: { change, ...members }, places: { ...places, change: start, op: token.start } };
  }

  #absence(): object {
    const { start } = this.#peek();
    this.#at += 2;
    const { start: place } = this.#peek();
    return this.#placed({ absent_for: this.#duration() }, { start, absent_for: place });
  }

  #duration(): string {
    const token = this.#take();
    if (token.kind === 'duration') return token.text;
    throw this.#unexpected(token, 'a duration like 30s, 5m, 1h or 2d');
  }

  #field(): string {
    const token = this.#peek();
    if (!this.#isField(0)) {
      const hint = token.kind === 'word' ? `: a column of that name is written "${token.text}"` : '';
      throw this.#unexpected(token, `the name of a column${hint}`);
    }
    this.#at++;
    return token.text;
  }

  #isField(ahead: number): boolean {
    const { kind, text } = this.#peek(ahead);
    return kind === 'quoted' || (kind === 'word' && !reservedWords.has(text.toLowerCase()));
  }

  #value(): Scalar {
    const token = this.#peek();
    const value = this.#scalar(token);
    this.#at++;
    if (this.#percent && token.kind === 'number') this.#takeSign('%');
    return value;
  }

  #scalar(token: Token): Scalar {
    switch (token.kind) {
      case 'quoted':
      case 'text':
        return token.text;
      case 'number':
        return exactNumber(token.text);
      case 'word': {
        const word = token.text.toLowerCase();
        if (word === 'true' || word === 'false') return word === 'true';
        const hint = word === 'null' ? 'IS NULL or IS NOT NULL for null, or a value' : `a value: text stands in quotes, "${token.text}"`;
        throw this.#unexpected(token, hint);
      }
      default:
        throw this.#unexpected(token, 'a value: "text", a number, TRUE or FALSE');
    }
  }

  #peek(ahead = 0): Token {
    return this.#tokens[Math.min(this.#at + ahead, this.#tokens.length - 1)]!;
  }

  #take(): Token {
    const token = this.#peek();
    this.#at++;
    return token;
  }

  #isWord(word: string, ahead = 0): boolean {
    const { kind, text } = this.#peek(ahead);
    return kind === 'word' && text.toLowerCase() === word;
  }

  #takeWord(word: string): boolean {
    const found = this.#isWord(word);
    if (found) this.#at++;
    return found;
  }

  #takeSign(sign: string): boolean {
    const { kind, text } = this.#peek();
    const found = kind === 'sign' && text === sign;
    if (found) this.#at++;
    return found;
  }

  #placed<T extends object>(node: T, places: Readonly<Record<string, number>>): T {
    this.places.set(node, places);
    return node;
  }

  #unexpected({ kind, text, start }: Token, expected: string | undefined): TextFault {
    const shown = kind === 'end' ? 'the text ends' : `found ${kind === 'quoted' || kind === 'text' ? JSON.stringify(text) : text}`;
    return new TextFault(expected === undefined ? `${shown}, which nothing opens` : `${shown}, but expected ${expected}`, start);
  }
}

/** For messages. */
function placeOf(text: string, offset: number): string {
  const { line, column } = lineAndColumn(text, offset);
  return `line ${line}, column ${column}`;
}

interface Tail {
  readonly members: Readonly<Record<string, unknown>>;
  readonly places: Readonly<Record<string, number>>;
}

/** The number, if a double holds just what is written, and JSON readers agree; else the text. */
export function exactNumber(text: string): string | number {
  const value = Number(text);
  const exact = compareDecimal(String(value), text) === 0 && (!Number.isInteger(value) || Number.isSafeInteger(value));
  return exact ? value + 0 : text;
}
