import { compareDecimal, isDecimal } from '../decimal.ts';
import { columnType, type ColumnType, type LeafOp } from './column-type.ts';
import { conditionLimits, type Scalar } from './condition.ts';
import { show, type Members, type Path } from './faults.ts';
import { endsInEscape } from './like.ts';

/** An operator has no value, and that is right. */
export const none = Symbol('no value');

/** Percent: a number that has an end, and not so many digits that each comparison with it would take its time. */
export const percent: ColumnType = {
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

/** Checks what columns are compared with: the `value` of each leaf of one condition. */
export class ValueChecker {
  readonly #fault: (path: Path, message: string) => undefined;
  #items = 0;

  constructor(fault: (path: Path, message: string) => undefined) {
    this.#fault = fault;
  }

  /** The value, `none` where the operator has none, or undefined after a fault. */
  check(
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
}
