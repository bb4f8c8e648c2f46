import type { Comparison, PercentChange, RuleCondition, Scalar } from './condition.ts';
import { exactNumber, isPlainName } from './parser.ts';

/**
 * A condition as text, for people, which the parser reads back as the same tree; only an `and` or `or` of a single part is lost,
 * which means that part.
 * @param condition a checked one
 */
export function printCondition(condition: RuleCondition): string {
  return print(condition, 'or');
}

/** How tightly what stands around binds: `or` least, `not` most. */
type Around = 'or' | 'and' | 'not';

function print(node: RuleCondition, around: Around): string {
  if ('and' in node) return series(node.and, 'and', around);
  if ('or' in node) return series(node.or, 'or', around);
  if ('not' in node) return negation(node.not);
  if ('absent_for' in node) return `ABSENT FOR ${node.absent_for}`;
  const field = name(node.field);
  if ('change' in node) return `${field} CHANGE ${node.change} ${comparison(node)}`;
  switch (node.op) {
    case 'changed':
      return `${field} CHANGED`;
    case 'crosses_above':
      return `${field} CROSSES ABOVE ${literal(node.value)}`;
    case 'crosses_below':
      return `${field} CROSSES BELOW ${literal(node.value)}`;
    default:
      return `${field} ${comparison(node)}`;
  }
}

/** NOT stands inside where the grammar has it there: `symbol NOT LIKE "W%"`. */
function negation(inner: RuleCondition): string {
  const inside = 'op' in inner && !('change' in inner) && (inner.op === 'like' || inner.op === 'ilike' || inner.op === 'between');
  return inside ? `${name(inner.field)} NOT ${comparison(inner)}` : `NOT ${print(inner, 'not')}`;
}

/** A series within one of its own kind keeps its parentheses: the tree has them, too. */
function series(parts: readonly RuleCondition[], word: 'and' | 'or', around: Around): string {
  const [only] = parts;
  if (only && parts.length === 1) return print(only, around);
  const inner = word === 'and' ? 'not' : 'and';
  const text = parts.map((part) => print(part, seriesOf(part) === word ? 'not' : inner)).join(` ${word.toUpperCase()} `);
  return around === 'not' || (around === 'and' && word === 'or') ? `(${text})` : text;
}

function seriesOf(node: RuleCondition): 'and' | 'or' | undefined {
  const parts = 'and' in node ? node.and : 'or' in node ? node.or : undefined;
  if (!parts) return undefined;
  return parts.length === 1 ? seriesOf(parts[0]!) : 'and' in node ? 'and' : 'or';
}

const signs = { eq: '=', ne: '!=', gt: '>', gte: '>=', lt: '<', lte: '<=' } as const;

function comparison({ op, value }: Comparison | PercentChange): string {
  if (op === 'is_null') return value === false ? 'IS NOT NULL' : 'IS NULL';
  const values = (Array.isArray(value) ? (value as readonly Scalar[]) : [value as Scalar]).map(literal);
  switch (op) {
    case 'in':
      return `IN (${values.join(', ')})`;
    case 'nin':
      return `NOT IN (${values.join(', ')})`;
    case 'between':
      return `BETWEEN ${values[0]} AND ${values[1]}`;
    case 'like':
      return `LIKE ${values[0]}`;
    case 'ilike':
      return `ILIKE ${values[0]}`;
    default:
      return `${signs[op]} ${values[0]}`;
  }
}

function name(field: string): string {
  return isPlainName(field) ? field : quoted(field);
}

function literal(value: Scalar): string {
  if (typeof value === 'boolean') return value ? 'TRUE' : 'FALSE';
  if (typeof value === 'number') return String(value);
  // A number of more digits than a double has: read back, it is this text again.
  const digits = /^-?\d+(?:\.\d+)?$/u.test(value) && exactNumber(value) === value;
  return digits ? value : quoted(value);
}

function quoted(text: string): string {
  return `"${text.replaceAll('"', '""')}"`;
}
