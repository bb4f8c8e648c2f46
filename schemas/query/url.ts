import { lineAndColumn, TextFault, tokensOf, type Token } from '../condition/lexer.ts';
import { suggestion } from '../nearest.ts';
import { aggregateFunctions, type QueryFault } from './query.ts';

/** The parameters of a URL that make a query; `minSeq` and others are the route's. */
export const urlMembers = ['from', 'select', 'where', 'groupBy', 'aggregate', 'having', 'orderBy', 'limit', 'cursor'] as const;

/** Either what `prepareQuery` takes, or what is wrong with the texts. */
export type UrlQuery =
  | { readonly input: Readonly<Record<string, unknown>>; readonly faults?: never }
  | { readonly faults: readonly QueryFault[]; readonly input?: never };

/**
 * Makes a query of a URL's parameters, all texts:
 *
 *     select=token_id,price        groupBy=chain,bucket(at,1h) as hour     aggregate=count(*),sum(volume) as total,percentile(price,0.95) as p95
 *     where=price > 100            having=total > 1000                     orderBy=price desc,chain
 *
 * Names that are no plain words stand in double quotes. An aggregate without a name of its own is called `count`, `sum_volume`, `p95_price`.
 * What the names mean, and whether the rest is right, `prepareQuery` sees.
 */
export function queryFromUrl(parameters: Readonly<Record<string, string | readonly string[] | undefined>>): UrlQuery {
  const faults: QueryFault[] = [];
  const input: Record<string, unknown> = {};
  for (const name of urlMembers) {
    const text = parameters[name];
    if (text === undefined) continue;
    if (typeof text !== 'string') {
      faults.push({ field: name, message: 'is given more than once' });
      continue;
    }
    try {
      input[name] = readers[name]?.(text) ?? text;
    } catch (error) {
      if (!(error instanceof TextFault)) throw error;
      const { line, column } = lineAndColumn(text, error.offset);
      faults.push({ field: name, message: error.message, line, column });
    }
  }
  return faults.length > 0 ? { faults } : { input };
}

const readers: Readonly<Partial<Record<string, (text: string) => unknown>>> = {
  select: (text) => itemsOf(text, (tokens) => tokens.name('the name of a column')),
  groupBy: (text) => itemsOf(text, groupOf),
  aggregate: aggregatesOf,
  orderBy: (text) => itemsOf(text, orderOf),
  limit: (text) => (/^\d{1,9}$/u.test(text) ? Number(text) : text),
};

/** So long a list is refused before it is taken apart. */
const longestText = 20_000;

function itemsOf<T>(text: string, item: (tokens: Tokens) => T): readonly T[] {
  if (text.length > longestText) throw new TextFault(`has more than the ${longestText} characters that are allowed`, longestText);
  const tokens = new Tokens(text);
  const items: T[] = [];
  do items.push(item(tokens));
  while (tokens.takeSign(','));
  tokens.end();
  return items;
}

function groupOf(tokens: Tokens): unknown {
  if (!tokens.isCall()) {
    const field = tokens.name('the name of a column, or bucket(column, 1h)');
    const as = tokens.alias();
    return as === undefined ? field : { field, as };
  }
  const name = tokens.take();
  if (name.text.toLowerCase() !== 'bucket')
    throw new TextFault(`found ${name.text}(…), but groups are made by a column, or by bucket(column, 1h)`, name.start);
  tokens.sign('(');
  const field = tokens.name('the name of a column of times');
  tokens.sign(',');
  const bucket = tokens.piece(['duration', 'text', 'quoted'], 'a duration like 5m, 1h or 1d');
  tokens.sign(')');
  const as = tokens.alias();
  return { field, bucket, ...(as !== undefined && { as }) };
}

function orderOf(tokens: Tokens): unknown {
  const field = tokens.name('the name to sort by');
  const dir = (['asc', 'desc'] as const).find((word) => tokens.takeWord(word));
  return { field, ...(dir !== undefined && { dir }) };
}

function aggregatesOf(text: string): unknown {
  const entries = itemsOf(text, aggregateOf);
  const twice = entries.find(([as], i) => entries.findIndex(([other]) => other === as) !== i);
  if (twice) throw new TextFault(`two aggregates are called ${twice[0]}: give one another name, sum(volume) as total`, 0);
  return Object.fromEntries(entries);
}

function aggregateOf(tokens: Tokens): readonly [string, unknown] {
  const name = tokens.take();
  const fn = name.text.toLowerCase();
  if (name.kind !== 'word' || !(aggregateFunctions as readonly string[]).includes(fn)) {
    const near = name.kind === 'word' ? suggestion(fn, aggregateFunctions) : '';
    throw tokens.unexpected(name, `one of ${aggregateFunctions.join(', ')}${near}`);
  }
  let field: string | undefined;
  let p: string | undefined;
  if (tokens.takeSign('(')) {
    if (!(fn === 'count' && tokens.takeSign('*')) && !tokens.isSign(')')) field = tokens.name('the name of a column');
    if (field !== undefined && tokens.takeSign(',')) p = tokens.piece(['number'], 'a number from 0 to 1');
    tokens.sign(')');
  } else if (fn !== 'count') throw tokens.unexpected(tokens.peek(), `(: ${fn}(column)`);
  const as = tokens.alias() ?? nameOf(fn, field, p);
  return [as, { fn, ...(field !== undefined && { field }), ...(p !== undefined && { p: Number(p) }) }];
}

/** `sum_volume`, `p95_price`; of a percentile like 0.999 `p99_9_price`. */
function nameOf(fn: string, field: string | undefined, p: string | undefined): string {
  const head = p === undefined ? fn : `p${String(Number((Number(p) * 100).toPrecision(12))).replace('.', '_')}`;
  const name = field === undefined ? head : `${head}_${field}`;
  return name.replaceAll(/[^\p{L}\p{M}\p{N}_$]/gu, '_').slice(0, 63);
}

class Tokens {
  readonly #tokens: readonly Token[];
  #at = 0;

  /** @throws TextFault */
  constructor(text: string) {
    this.#tokens = tokensOf(text);
  }

  peek(ahead = 0): Token {
    return this.#tokens[Math.min(this.#at + ahead, this.#tokens.length - 1)]!;
  }

  take(): Token {
    const token = this.peek();
    this.#at++;
    return token;
  }

  isSign(sign: string, ahead = 0): boolean {
    const { kind, text } = this.peek(ahead);
    return kind === 'sign' && text === sign;
  }

  isCall(): boolean {
    return this.peek().kind === 'word' && this.isSign('(', 1);
  }

  takeSign(sign: string): boolean {
    const found = this.isSign(sign);
    if (found) this.#at++;
    return found;
  }

  sign(sign: string): void {
    if (!this.takeSign(sign)) throw this.unexpected(this.peek(), sign);
  }

  takeWord(word: string): boolean {
    const { kind, text } = this.peek();
    const found = kind === 'word' && text.toLowerCase() === word;
    if (found) this.#at++;
    return found;
  }

  piece(kinds: readonly Token['kind'][], expected: string): string {
    const token = this.peek();
    if (!kinds.includes(token.kind)) throw this.unexpected(token, expected);
    this.#at++;
    return token.text;
  }

  name(expected: string): string {
    return this.piece(['word', 'quoted'], expected);
  }

  alias(): string | undefined {
    return this.takeWord('as') ? this.name('a name') : undefined;
  }

  end(): void {
    if (this.peek().kind !== 'end') throw this.unexpected(this.peek(), 'a comma or the end');
  }

  unexpected({ kind, text, start }: Token, expected: string): TextFault {
    const shown = kind === 'end' ? 'the text ends' : `found ${kind === 'quoted' || kind === 'text' ? JSON.stringify(text) : text}`;
    return new TextFault(`${shown}, but expected ${expected}`, start);
  }
}
