import { durationForm, parseDuration } from '../duration.ts';
import { suggestion } from '../nearest.ts';
import { none, percent, ValueChecker } from './check-value.ts';
import { allows, columnType, type ColumnTypes, type LeafOp } from './column-type.ts';
import { conditionLimits, type CompareOp, type Condition, type RuleCondition } from './condition.ts';
import { fieldName, isObject, show, type Members, type Path, type PlacedFault } from './faults.ts';

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

const comparisons: readonly CompareOp[] = ['eq', 'ne', 'gt', 'gte', 'lt', 'lte', 'in', 'nin', 'between', 'like', 'ilike', 'is_null'];
const edgeOps: readonly string[] = ['crosses_above', 'crosses_below', 'changed'];
const changeOps: readonly string[] = ['gt', 'gte', 'lt', 'lte', 'eq', 'ne', 'between'];
const branches = ['and', 'or', 'not', 'absent_for'] as const;

class Checker {
  readonly faults: PlacedFault[] = [];
  readonly #context: Context;
  readonly #values = new ValueChecker((path, message) => this.#fault(path, message));
  #nodes = 0;

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
    const value = this.#values.check(input, op, withChange ? percent : type, path, field);
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
