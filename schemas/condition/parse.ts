import { checkCondition, checkRuleCondition, type CheckOptions } from './check.ts';
import type { PlacedFault } from './faults.ts';
import type { Condition, RuleCondition } from './condition.ts';
import { lineAndColumn, TextFault } from './lexer.ts';
import { Parser } from './parser.ts';

/** What is wrong with a text, and where: `offset` in UTF-16 units from 0, `line` and `column` from 1, in characters. */
export interface TextProblem {
  readonly message: string;
  readonly offset: number;
  readonly line: number;
  readonly column: number;
}

/** Either the condition, or all that is wrong: of the grammar only the first fault, of names and values all at once. */
export type Parsed<T> =
  { readonly value: T; readonly problems?: never } | { readonly problems: readonly TextProblem[]; readonly value?: never };

/**
 * Reads a condition of a query: `price > 100 AND NOT (chain IN ("Base", "Optimism") OR symbol LIKE "W%")`.
 *
 *     condition  := and (OR and)*          and := unary (AND unary)*          unary := NOT unary | '(' condition ')' | comparison
 *     comparison := field (= == != <> < <= > >=) value | field [NOT] IN (value, …) | field [NOT] BETWEEN value AND value
 *                 | field [NOT] LIKE value | field [NOT] ILIKE value | field IS [NOT] NULL
 *     of rules:     field CROSSES (ABOVE | BELOW) value | field CHANGED | CHANGED field | ABSENT FOR duration
 *                 | field CHANGE duration (operator value | BETWEEN value AND value)        in percent; a `%` may follow the number
 *     field      := name | "name"          value := "text" | 'text' | number | TRUE | FALSE
 *
 * Words of the grammar are in any case; a column that is called like one of them stands in double quotes. A number that a double
 * cannot hold exactly becomes text with all its digits.
 */
export function parseCondition(text: string, options: CheckOptions): Parsed<Condition> {
  return parse(text, (tree) => checkCondition(tree, options));
}

/** Reads a condition of a rule likewise. */
export function parseRuleCondition(text: string, options: CheckOptions & { readonly edges: boolean }): Parsed<RuleCondition> {
  return parse(text, (tree) => checkRuleCondition(tree, options));
}

/** The longest text, in UTF-16 units. */
const longestText = 100_000;

function parse<T>(text: string, check: (tree: unknown) => { value?: T; faults?: readonly PlacedFault[] }): Parsed<T> {
  try {
    if (text.length > longestText)
      throw new TextFault(`the text has more than the ${longestText} characters that are allowed`, longestText);
    const parser = new Parser(text);
    const tree = parser.parse();
    const { value, faults = [] } = check(tree);
    if (value !== undefined) return { value };
    return { problems: faults.map((fault) => problem(text, describe(fault), offsetOf(parser.places, tree, fault.path))) };
  } catch (error) {
    if (error instanceof TextFault) return { problems: [problem(text, error.message, error.offset)] };
    throw error;
  }
}

function problem(text: string, message: string, offset: number): TextProblem {
  return { message, offset, ...lineAndColumn(text, offset) };
}

/** Faults name members of the tree, which the writer of a text has not seen: operators and columns speak for themselves. */
function describe({ path, message }: PlacedFault): string {
  const part = path.findLast((step) => typeof step === 'string') ?? '';
  const subject = (
    { field: 'the column', op: 'the operator', value: 'the value', change: 'the duration', absent_for: 'the duration' } as const
  )[part as 'field'];
  return `${subject ?? 'the condition'} ${message}`;
}

/** Where the parts of a node stand in the text. */
type Places = ReadonlyMap<object, Readonly<Record<string, number>>>;

/** Where the part of the tree at the path stands: itself, or the nearest around it. */
function offsetOf(places: Places, tree: object, path: readonly (string | number)[]): number {
  let node: unknown = tree;
  let offset = places.get(tree)?.['start'] ?? 0;
  for (const step of path) {
    if (typeof node !== 'object' || node === null) break;
    offset = places.get(node)?.[step] ?? offset;
    node = (node as Readonly<Record<string | number, unknown>>)[step];
    if (typeof node === 'object' && node !== null) offset = places.get(node)?.['start'] ?? offset;
  }
  return offset;
}
