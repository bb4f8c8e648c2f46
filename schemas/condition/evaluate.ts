import { parseDuration } from '../duration.ts';
import { columnType, type ColumnType, type ColumnTypes } from './column-type.ts';
import type { Absence, Changed, Comparison, Condition, Crossing, PercentChange, RuleCondition, Scalar } from './condition.ts';
import { compileLike } from './like.ts';
import { comparePercent } from './percent.ts';
import type { Comparable } from './value-type.ts';

/**
 * What a condition says of a row: true, false, or undefined for unknown. `and` and `or` are Kleene's: false and unknown is
 * false, true or unknown is true, all else with an unknown in it is unknown. What `ne`, `nin`, `not` and `is_null` make of the
 * unknown depends on who asks:
 *
 * | | null | missing | `ne`, `nin` of it | `not` of unknown | a row passes when |
 * |---|---|---|---|---|---|
 * | query (`compileFilter`) | unknown, `is_null` true | as null | true | true | it is true |
 * | rule (`compileRule`) | unknown, `is_null` true | unknown, `is_null` too | unknown | unknown | true fires, false resolves, unknown does neither |
 *
 * So in a query `ne` is IS DISTINCT FROM, `nin` is NOT IN that holds for null, `not` is IS NOT TRUE, and a filter and its
 * `not` share all rows between them. A rule that knows nothing of a value neither fires nor resolves by it, whichever way
 * round it is written.
 */
export type Truth = boolean | undefined;

/**
 * A column's value as in the log's events: number, text, boolean, object or array; null for SQL NULL; undefined when it is
 * missing. Must look at own members only (a column may be called `constructor`), and must not give null for a json column that
 * holds JSON `null` (`jsonNull` in the event): any object will do.
 */
export type Read = (field: string) => unknown;

/** What a rule can ask of an entity. */
export interface RuleView {
  /** The present value. */
  readonly value: Read;
  /** The value at the entity's event before, where this evaluation is for an event that can be an edge; else undefined. */
  readonly previous: Read;
  /** The value as of so many microseconds ago; undefined when it is not known. */
  ago(field: string, micros: number): unknown;
  /** Microseconds since the entity's last event; undefined when it is not known. */
  quiet(): number | undefined;
}

/**
 * Compiles a filter of a query.
 * @param condition one that `checkCondition` has accepted
 * @param columns without them values compare as their JSON forms suggest
 */
export function compileFilter(condition: Condition, columns: ColumnTypes | undefined): (read: Read) => Truth {
  const evaluate = compile(condition, columns, true);
  return (read) => evaluate({ value: read, previous: nothing, ago: nothing, quiet: nothing });
}

/**
 * Compiles the condition of a rule: `when` or `clear`.
 * @param condition one that `checkRuleCondition` has accepted
 * @param columns without them values compare as their JSON forms suggest
 */
export function compileRule(condition: RuleCondition, columns: ColumnTypes | undefined): (view: RuleView) => Truth {
  return compile(condition, columns, false);
}

/** Compiles one comparison of a rule into a test of its column's value (see `Read` for its forms). */
export function compileComparison(comparison: Comparison, type: ColumnType): (value: unknown) => Truth {
  return comparisonTest(comparison, type, false);
}

const nothing = (): undefined => undefined;

type Evaluate = (view: RuleView) => Truth;

function compile(node: RuleCondition, columns: ColumnTypes | undefined, query: boolean): Evaluate {
  if ('and' in node)
    return all(
      node.and.map((part) => compile(part, columns, query)),
      false,
    );
  if ('or' in node)
    return all(
      node.or.map((part) => compile(part, columns, query)),
      true,
    );
  if ('not' in node) {
    const inner = compile(node.not, columns, query);
    return query ? (view) => inner(view) !== true : (view) => negate(inner(view));
  }
  if ('absent_for' in node) return absence(node);
  const type = columnType(columns?.get(node.field));
  if ('change' in node) return percentChange(node, type);
  if (isCrossing(node)) return crossing(node, type);
  if (isChanged(node)) return changed(node, type);
  const { field } = node;
  const test = comparisonTest(node, type, query);
  return ({ value }) => test(value(field));
}

function isCrossing(node: Comparison | Crossing | Changed): node is Crossing {
  return node.op === 'crosses_above' || node.op === 'crosses_below';
}

function isChanged(node: Comparison | Changed): node is Changed {
  return node.op === 'changed';
}

/** `decisive`: the answer of one part that settles the whole: false for `and`, true for `or`. */
function all(parts: readonly Evaluate[], decisive: boolean): Evaluate {
  return (view) => {
    let unknown = false;
    for (const part of parts) {
      const truth = part(view);
      if (truth === decisive) return decisive;
      if (truth === undefined) unknown = true;
    }
    return unknown ? undefined : !decisive;
  };
}

function negate(truth: Truth): Truth {
  return truth === undefined ? undefined : !truth;
}

function comparisonTest(comparison: Comparison, type: ColumnType, query: boolean): (value: unknown) => Truth {
  const { op, value: wanted } = comparison;
  if (op === 'is_null') {
    const expected = wanted !== false;
    return (value) => (value === undefined && !query ? undefined : ((value ?? null) === null) === expected);
  }
  if (op === 'like' || op === 'ilike') return likeTest(String(wanted), op === 'ilike');
  const holds = knownTest({ op, value: wanted! }, type);
  const distinct = query && (op === 'ne' || op === 'nin');
  return (value) => {
    const known = value === null ? undefined : type.read(value);
    const truth = known === undefined ? undefined : holds(known);
    return truth === undefined && distinct ? true : truth;
  };
}

/** Of the column's text as it is: spaces at the end of a `character(n)` count, as in Postgres. */
function likeTest(pattern: string, caseless: boolean): (value: unknown) => Truth {
  const matches = compileLike(pattern, caseless);
  return (value) => (typeof value === 'string' ? matches(value) : undefined);
}

type Valued = { readonly op: keyof typeof orderTests | 'in' | 'nin' | 'between'; readonly value: Scalar | readonly Scalar[] };

/** The test of a value that is known, in the form that the type reads it in. */
function knownTest({ op, value }: Valued, type: ColumnType): (known: Comparable) => Truth {
  const constants = (Array.isArray(value) ? (value as readonly Scalar[]) : [value as Scalar]).map((one) => type.read(one));
  const [first, second] = constants;
  const order = (known: Comparable, constant: Comparable | undefined): number | undefined =>
    constant === undefined ? undefined : type.order(known, constant);
  switch (op) {
    case 'in':
      return anyOf(constants, type);
    case 'nin': {
      const any = anyOf(constants, type);
      return (known) => negate(any(known));
    }
    case 'between':
      return (known) => both(atLeast(order(known, first)), atMost(order(known, second)));
    default: {
      const holds = orderTests[op];
      return (known) => {
        const difference = order(known, first);
        return difference === undefined ? undefined : holds(difference);
      };
    }
  }
}

const orderTests: Readonly<Record<'eq' | 'ne' | 'gt' | 'gte' | 'lt' | 'lte', (difference: number) => boolean>> = {
  eq: (difference) => difference === 0,
  ne: (difference) => difference !== 0,
  gt: (difference) => difference > 0,
  gte: (difference) => difference >= 0,
  lt: (difference) => difference < 0,
  lte: (difference) => difference <= 0,
};

function atLeast(difference: number | undefined): Truth {
  return difference === undefined ? undefined : difference >= 0;
}

function atMost(difference: number | undefined): Truth {
  return difference === undefined ? undefined : difference <= 0;
}

function both(a: Truth, b: Truth): Truth {
  if (a === false || b === false) return false;
  return a === undefined || b === undefined ? undefined : true;
}

/** Is the value equal to one of them? Texts are looked up; other types compare with each. */
function anyOf(constants: readonly (Comparable | undefined)[], type: ColumnType): (known: Comparable) => Truth {
  if (type.family === 'text' || type.family === 'uuid' || type.family === 'printed') {
    const set = new Set(constants);
    return (known) => set.has(known);
  }
  return (known) => {
    let unknown = false;
    for (const constant of constants) {
      const difference = constant === undefined ? undefined : type.order(known, constant);
      if (difference === 0) return true;
      if (difference === undefined) unknown = true;
    }
    return unknown ? undefined : false;
  };
}

function crossing({ field, op, value }: Crossing, type: ColumnType): Evaluate {
  const threshold = type.read(value);
  const sign = op === 'crosses_above' ? 1 : -1;
  const orderAt = (one: unknown): number | undefined => {
    const known = one === null ? undefined : type.read(one);
    return known === undefined || threshold === undefined ? undefined : type.order(known, threshold);
  };
  return (view) => {
    const [before, now] = [orderAt(view.previous(field)), orderAt(view.value(field))];
    return both(before === undefined ? undefined : before * sign <= 0, now === undefined ? undefined : now * sign > 0);
  };
}

/** Null is a value here that differs from all others; what is missing is unknown. */
function changed({ field }: Changed, type: ColumnType): Evaluate {
  return (view) => {
    const [before, now] = [view.previous(field), view.value(field)];
    if (before === undefined || now === undefined) return undefined;
    if (before === null || now === null) return before !== now;
    const [a, b] = [type.read(before), type.read(now)];
    const difference = a === undefined || b === undefined ? undefined : type.order(a, b);
    return difference === undefined ? JSON.stringify(before) !== JSON.stringify(now) : difference !== 0;
  };
}

function percentChange({ field, change, op, value }: PercentChange, type: ColumnType): Evaluate {
  const micros = parseDuration(change) ?? 0;
  const [first, second] = (Array.isArray(value) ? value : [value]) as readonly (string | number)[];
  return (view) => {
    const [now, then] = [view.value(field), view.ago(field, micros)].map((one) => (one === null ? undefined : type.read(one)));
    if (!isNumber(now) || !isNumber(then)) return undefined;
    const low = first === undefined ? undefined : comparePercent(now, then, first);
    if (low === undefined) return undefined;
    if (op !== 'between') return orderTests[op](low);
    const high = second === undefined ? undefined : comparePercent(now, then, second);
    return both(atLeast(low), atMost(high));
  };
}

function isNumber(value: Comparable | undefined): value is string | number {
  return typeof value === 'string' || typeof value === 'number';
}

function absence(node: Absence): Evaluate {
  const micros = parseDuration(node.absent_for) ?? Infinity;
  return (view) => {
    const quiet = view.quiet();
    return quiet === undefined ? undefined : quiet >= micros;
  };
}

/** What a rule's condition depends on. */
export interface RuleUses {
  /** The columns that it names, each once, in the order of its text. */
  readonly fields: readonly string[];
  /** It has an operator that holds at an event alone: `crosses_above`, `crosses_below`, `changed`. */
  readonly edge: boolean;
  /** Columns whose values of so many microseconds ago it asks for. */
  readonly ago: readonly { readonly field: string; readonly micros: number }[];
  /** After so many microseconds without an event something in it changes. */
  readonly absences: readonly number[];
}

/** @param condition one that `checkRuleCondition` has accepted */
export function usesOf(condition: RuleCondition): RuleUses {
  const fields = new Set<string>();
  const ago = new Map<string, { field: string; micros: number }>();
  const absences = new Set<number>();
  let edge = false;
  const visit = (node: RuleCondition): void => {
    if ('and' in node) node.and.forEach(visit);
    else if ('or' in node) node.or.forEach(visit);
    else if ('not' in node) visit(node.not);
    else if ('absent_for' in node) absences.add(parseDuration(node.absent_for) ?? Infinity);
    else {
      fields.add(node.field);
      if ('change' in node) {
        const micros = parseDuration(node.change) ?? 0;
        ago.set(`${micros} ${node.field}`, { field: node.field, micros });
      } else if (node.op === 'changed' || isCrossing(node)) edge = true;
    }
  };
  visit(condition);
  return { fields: [...fields], edge, ago: [...ago.values()], absences: [...absences] };
}
