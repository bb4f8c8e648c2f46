import { compareDecimal, isDecimal } from '../decimal.ts';
import { durationForm, parseDuration } from '../duration.ts';
import { suggestion } from '../nearest.ts';
import { allows, columnType, type ColumnType, type ColumnTypes, type LeafOp } from './column-type.ts';
import type { CompareOp, Condition, RuleCondition, Scalar } from './condition.ts';
import { endsInEscape } from './like.ts';

/** The largest condition: levels of nesting, nodes, and items of all lists together. */
export const conditionLimits = { depth: 16, nodes: 256, items: 1_000 } as const;

/** What is wrong with a part of a document, which `field` names: `when.and[1].value`. The message is a sentence without that name. */
export interface Fault {
  readonly field: string;
  readonly message: string;
}

/** A fault with the steps that lead to its place. */
export interface PlacedFault extends Fault {
  readonly path: Path;
}

type Path = readonly (string | number)[];

/** Either the document, in its normal form, or all that is wrong with what was given. */
export type Checked<T> =
  { readonly value: T; readonly faults?: never } | { readonly faults: readonly PlacedFault[]; readonly value?: never };

export interface CheckOptions {
  /** The table's columns; undefined: not known, and only what can be judged without them is judged. */
  readonly columns: ColumnTypes | undefined;
  /** What the condition is called in the faults: `when`, `where`. */
  readonly name: string;
}

/**
 * Checks a condition of a query that comes from outside, as parsed JSON.
 * Refused are: what is not of the grammar, more than `conditionLimits` allow, an empty `and` or `or`, columns that are not there,
 * operators that the column's type does not have, values that are not of its type, null.
 * @returns the condition, with nothing in it that is not of the grammar, or all faults at once
 */
export function checkCondition(input: unknown, options: CheckOptions): Checked<Condition> {
  return check(input, { ...options, rule: false, edges: false }) as Checked<Condition>;
}

/**
 * Checks a condition of a rule likewise.
 * @param options `edges`: whether the operators are accepted that hold at an event alone; under `not` they never are
 */
export function checkRuleCondition(input: unknown, options: CheckOptions & { readonly edges: boolean }): Checked<RuleCondition> {
  return check(input, { ...options, rule: true });
}

interface Context extends CheckOptions {
  readonly rule: boolean;
  readonly edges: boolean;
}

/** So many faults are told; someone who mends them sees the others. */
const mostFaults = 50;

function check(input: unknown, context: Context): Checked<RuleCondition> {
  const checker = new Checker(context);
  const value = checker.node(input, { path: [], depth: 1, negated: false });
  return value === undefined || checker.faults.length > 0 ? { faults: checker.faults.slice(0, mostFaults) } : { value };
}

/** Where a node stands. */
interface Place {
  readonly path: Path;
  readonly depth: number;
  readonly negated: boolean;
}

type Members = Readonly<Record<string, unknown>>;

const comparisons: readonly CompareOp[] = ['eq', 'ne', 'gt', 'gte', 'lt', 'lte', 'in', 'nin', 'between', 'like', 'ilike', 'is_null'];
const edgeOps: readonly string[] = ['crosses_above', 'crosses_below', 'changed'];
const changeOps: readonly string[] = ['gt', 'gte', 'lt', 'lte', 'eq', 'ne', 'between'];
const branches = ['and', 'or', 'not', 'absent_for'] as const;

class Checker {
  readonly faults: PlacedFault[] = [];
  readonly #context: Context;
  #nodes = 0;
  #items = 0;

  constructor(context: Context) {
    this.#context = context;
  }

  node(input: unknown, place: Place): RuleCondition | undefined {
    if (++this.#nodes > conditionLimits.nodes) {
      if (this.#nodes === conditionLimits.nodes + 1) this.#fault([], `has more than the ${conditionLimits.nodes} parts that are allowed`);
      return undefined;
    }
    if (place.depth > conditionLimits.depth)
      return this.#fault(place.path, `is nested deeper than the ${conditionLimits.depth} levels allowed`);
    if (!isObject(input)) return this.#fault(place.path, `must be ${this.#forms()}`);
    const given = branches.filter((name) => Object.hasOwn(input, name));
    const [branch] = given;
    if (branch === undefined) return this.#leaf(input, place);
    this.#onlyMembers(input, [branch], place.path);
    switch (branch) {
      case 'and':
        return this.#parts(input['and'], 'and', place);
      case 'or':
        return this.#parts(input['or'], 'or', place);
      case 'not': {
        const inner = this.node(input['not'], { path: [...place.path, 'not'], depth: place.depth + 1, negated: true });
        return inner && { not: inner };
      }
      case 'absent_for':
        return this.#absence(input['absent_for'], place.path);
    }
  }

  #forms(): string {
    return `one of {"and":[…]}, {"or":[…]}, {"not":…}, {"field","op","value"}${this.#context.rule ? ', {"absent_for"}' : ''}`;
  }

  #parts(input: unknown, name: 'and' | 'or', { path, depth, negated }: Place): RuleCondition | undefined {
    if (!Array.isArray(input)) return this.#fault([...path, name], 'must be a list of conditions');
    if (input.length === 0) return this.#fault([...path, name], 'is empty: it needs at least one condition');
    const parts: RuleCondition[] = [];
    for (const [i, part] of (input as readonly unknown[]).entries()) {
      const checked = this.node(part, { path: [...path, name, i], depth: depth + 1, negated });
      if (checked) parts.push(checked);
      if (this.#nodes > conditionLimits.nodes) return undefined;
    }
    return name === 'and' ? { and: parts } : { or: parts };
  }

  #absence(input: unknown, path: Path): RuleCondition | undefined {
    if (!this.#context.rule) return this.#fault([...path, 'absent_for'], 'is for rules: a query knows no events');
    const duration = this.#duration(input, [...path, 'absent_for']);
    return duration === undefined ? undefined : { absent_for: duration };
  }

  #duration(input: unknown, path: Path): string | undefined {
    const micros = typeof input === 'string' ? parseDuration(input) : undefined;
    if (micros === undefined || micros === 0) return this.#fault(path, `is ${show(input)}, and must be ${durationForm}, up to 366d`);
    return input as string;
  }

  #leaf(input: Members, { path, negated }: Place): RuleCondition | undefined {
    if (!Object.hasOwn(input, 'field') && !Object.hasOwn(input, 'op')) return this.#fault(path, `must be ${this.#forms()}`);
    const withChange = Object.hasOwn(input, 'change');
    this.#onlyMembers(input, ['field', 'op', 'value', ...(this.#context.rule ? ['change'] : [])], path);
    const op = this.#op(input['op'], withChange, [...path, 'op']);
    const field = this.#field(input['field'], [...path, 'field']);
    const change = withChange && this.#context.rule ? this.#duration(input['change'], [...path, 'change']) : undefined;
    if (op === undefined) return undefined;
    const edge = edgeOps.includes(op);
    if (edge) this.#edge(op, negated, [...path, 'op']);
    const type = columnType(field === undefined ? undefined : this.#context.columns?.get(field));
    if (field !== undefined && withChange && !allows(type, 'change'))
      return this.#fault([...path, 'change'], `asks for percent, which only numbers change by: ${field} is ${type.name}`);
    if (field !== undefined && !withChange && !allows(type, op))
      return this.#fault([...path, 'op'], `is ${op}, which ${field} does not have: it is ${type.name}`);
    const value = this.#value(input, op, withChange ? percent : type, path, field);
    if (field === undefined || value === undefined || (withChange && change === undefined)) return undefined;
    const leaf = { field, ...(change !== undefined && { change }), op, ...(value !== none && { value }) };
    return leaf as RuleCondition;
  }

  #op(input: unknown, withChange: boolean, path: Path): LeafOp | undefined {
    const known = withChange ? changeOps : [...comparisons, ...(this.#context.rule ? edgeOps : [])];
    if (typeof input === 'string' && known.includes(input)) return input as LeafOp;
    const beside = withChange ? ' beside change' : '';
    if (input === undefined) return this.#fault(path, `is missing: one of ${known.join(', ')}`);
    if (typeof input === 'string' && edgeOps.includes(input) && !withChange) return this.#fault(path, `is ${input}, which is for rules`);
    const near = typeof input === 'string' ? suggestion(input, known) : '';
    return this.#fault(path, `is ${show(input)}, and must${beside} be one of ${known.join(', ')}${near}`);
  }

  #field(input: unknown, path: Path): string | undefined {
    if (input === undefined) return this.#fault(path, 'is missing: the name of a column');
    if (typeof input !== 'string' || input === '') return this.#fault(path, `is ${show(input)}, and must be the name of a column`);
    const { columns } = this.#context;
    if (!columns && (input.length > 63 * 4 || /[\0\p{Surrogate}]/u.test(input))) return this.#fault(path, 'is no name of a column');
    if (!columns || columns.has(input)) return input;
    return this.#fault(path, `is ${show(input)}, which is no column of the table${suggestion(input, [...columns.keys()])}`);
  }

  #edge(op: string, negated: boolean, path: Path): void {
    if (!this.#context.edges) this.#fault(path, `is ${op}, which holds only for a moment and has no place in ${this.#context.name}`);
    else if (negated) this.#fault(path, `is ${op}, which holds only for a moment: it cannot stand under not`);
  }

  /** The value, `none` where the operator has none, or undefined after a fault. */
  #value(
    input: Members,
    op: LeafOp,
    type: ColumnType,
    path: Path,
    field: string | undefined,
  ): Scalar | readonly Scalar[] | typeof none | undefined {
    const { value } = input;
    const at = [...path, 'value'];
    switch (op) {
      case 'changed':
        return value === undefined ? none : this.#fault(at, 'has no meaning beside changed');
      case 'is_null':
        if (value === undefined || value === true) return none;
        return value === false ? false : this.#fault(at, `is ${show(value)}, and must be true or false, or be left out`);
      case 'in':
      case 'nin':
        return this.#list(value, type, at, field);
      case 'between':
        return this.#range(value, type, at, field);
      case 'like':
      case 'ilike':
        return this.#pattern(value, at);
      default:
        return this.#scalar(value, type, at, field);
    }
  }

  #list(input: unknown, type: ColumnType, path: Path, field: string | undefined): readonly Scalar[] | undefined {
    if (!Array.isArray(input)) return this.#fault(path, `is ${show(input)}, and must be a list of values`);
    if (input.length === 0) return this.#fault(path, 'is empty: it needs at least one value');
    const before = this.#items;
    this.#items += input.length;
    if (this.#items > conditionLimits.items) {
      if (before > conditionLimits.items) return undefined;
      return this.#fault(path, `brings the condition to more than the ${conditionLimits.items} list items that are allowed`);
    }
    const items = (input as readonly unknown[]).map((item, i) => this.#scalar(item, type, [...path, i], field));
    return items.includes(undefined) ? undefined : (items as readonly Scalar[]);
  }

  #range(input: unknown, type: ColumnType, path: Path, field: string | undefined): readonly Scalar[] | undefined {
    if (!Array.isArray(input) || input.length !== 2) return this.#fault(path, `is ${show(input)}, and must be a list of two values`);
    const [low, high] = (input as readonly unknown[]).map((item, i) => this.#scalar(item, type, [...path, i], field));
    if (low === undefined || high === undefined) return undefined;
    const [first, second] = [type.read(low), type.read(high)];
    // Two texts of a column whose type is not known may be numbers or times, in another order than theirs.
    const unordered = first === undefined || second === undefined || (type.name === '' && type !== percent && typeof first === 'string');
    const order = unordered ? undefined : type.order(first, second);
    if (order !== undefined && order > 0) return this.#fault(path, `is from ${show(low)} to ${show(high)}, and nothing is between those`);
    return [low, high];
  }

  #pattern(input: unknown, path: Path): string | undefined {
    if (typeof input !== 'string')
      return this.#fault(path, `is ${show(input)}, and must be a pattern: text in which % is any text and _ any character`);
    const fault = columnType('text').refuse(input);
    if (fault !== undefined) return this.#fault(path, `is ${fault}`);
    if (input.length > longestPattern) return this.#fault(path, `is longer than the ${longestPattern} characters that a pattern may have`);
    if (endsInEscape(input)) return this.#fault(path, 'ends in a backslash that escapes nothing: write two for one');
    return input;
  }

  #scalar(input: unknown, type: ColumnType, path: Path, field: string | undefined): Scalar | undefined {
    if (input === undefined) return this.#fault(path, 'is missing');
    if (input === null) return this.#fault(path, 'is null, which nothing equals: ask with is_null');
    if (typeof input !== 'string' && typeof input !== 'number' && typeof input !== 'boolean') {
      return this.#fault(path, `is ${show(input)}, and must be text, a number, true or false`);
    }
    if (typeof input === 'number' && (!Number.isFinite(input) || (Number.isInteger(input) && !Number.isSafeInteger(input)))) {
      return this.#fault(path, `is a number that JSON readers round: give it as text, "${input}" with all its digits`);
    }
    const fault = type.refuse(input);
    if (fault !== undefined)
      return this.#fault(path, `is ${fault}${type.name === '' || field === undefined ? '' : ` (${field} is ${type.name})`}`);
    return Object.is(input, -0) ? 0 : input;
  }

  #onlyMembers(input: Members, known: readonly string[], path: Path): void {
    for (const name of Object.keys(input)) {
      if (known.includes(name)) continue;
      const other = branches.includes(name as never) && known.length === 1;
      const reason = other ? `cannot stand beside ${known[0]}: nest one in the other` : `is not known here${suggestion(name, known)}`;
      this.#fault([...path, name], reason);
    }
  }

  #fault(path: Path, message: string): undefined {
    this.faults.push({ field: fieldName(this.#context.name, path), message, path });
  }
}

/** An operator has no value, and that is right. */
const none = Symbol('no value');

/** Percent: a number that has an end, and not so many digits that each comparison with it would take its time. */
const percent: ColumnType = {
  ...columnType('numeric'),
  name: '',
  refuse(value) {
    const fault = columnType('numeric').refuse(value) ?? (isDecimal(String(value)) ? undefined : `${value}, and must be a number`);
    if (fault !== undefined) return fault;
    const size = Math.abs(Number(value));
    const zero = compareDecimal(String(value), '0') === 0;
    return zero || (size >= 1e-100 && size <= 1e100) ? undefined : `${value}, and must be 0 or from 1e-100 to 1e100`;
  },
};

/** The longest pattern of `like` and `ilike`. */
const longestPattern = 1_000;

/** `when.and[1].value`. */
export function fieldName(name: string, path: Path): string {
  return path.reduce<string>(
    (text, step) => (typeof step === 'number' ? `${text}[${step}]` : text === '' ? step : `${text}.${step}`),
    name,
  );
}

/** A value as a message shows it: short. */
export function show(value: unknown): string {
  if (value === undefined) return 'missing';
  const text = JSON.stringify(outermost(value, shownLength)) ?? typeof value;
  return text.length > shownLength ? `${text.slice(0, shownLength)}…` : text;
}

const shownLength = 80;

/** What a message shows of a value: all that lies deeper or behind would be cut off, and very deep values overflow the stack. */
function outermost(value: unknown, depth: number): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (depth === 0) return [];
  if (Array.isArray(value)) return value.slice(0, shownLength).map((item) => outermost(item, depth - 1));
  const entries = Object.entries(value).slice(0, shownLength);
  return Object.fromEntries(entries.map(([name, item]) => [name, outermost(item, depth - 1)]));
}

export function isObject(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
