import type { ColumnType } from '../../../schemas/condition/column-type.ts';
import type { RuleCondition, Scalar } from '../../../schemas/condition/condition.ts';
import { parseDuration } from '../../../schemas/duration.ts';
import { equalKey, orderKey } from './comparable-key.ts';
import type { RuleDefinition } from './live-rule.ts';

/** Percent have no type of a column; they compare as decimals. */
export interface TriggerTypes {
  typeOf(field: string): ColumnType;
  readonly percent: ColumnType;
}

/**
 * What has to happen to a value so that a rule's condition can change. `window`: the value is the percentage change over so many
 * microseconds. Lists: `up` has thresholds that are passed upwards when the condition comes true, `down` downwards; `cross` is passed at
 * an event alone; `equal` are values; `change` is any change.
 */
export interface Trigger {
  readonly field: string;
  readonly window: number | undefined;
  readonly list: 'up' | 'down' | 'cross' | 'equal' | 'change';
  /** Of all lists but `change`. */
  readonly key: number | string;
}

/** All triggers of a rule. */
export interface Triggers {
  readonly fields: readonly Trigger[];
  /** Looked at whenever an event of the entity comes. */
  readonly always: boolean;
}

type Leaf = Exclude<RuleCondition, { and: unknown } | { or: unknown } | { not: unknown } | { absent_for: unknown }>;

/**
 * A condition without negations over its leaves comes true only when one of its leaves does; so a rule has to be looked at only when a
 * leaf of its condition may have changed. Of an edge rule, all leaves but one that must hold at the event are left out.
 * @param watched columns that decide besides the condition whether the rule concerns an entity
 */
export function triggersOf(rule: RuleDefinition, types: TriggerTypes, watched: readonly string[]): Triggers {
  const fields: Trigger[] = [];
  let always = false;
  const add = (leaf: Leaf, negated: boolean): void => void fields.push(...leafTriggers(leaf, negated, types));
  const visit = (node: RuleCondition, negated: boolean): void => {
    if ('and' in node) node.and.forEach((part) => visit(part, negated));
    else if ('or' in node) node.or.forEach((part) => visit(part, negated));
    else if ('not' in node) visit(node.not, !negated);
    // At an event of the entity it is false; its negation has just come true.
    else if ('absent_for' in node) always ||= negated;
    else add(node, negated);
  };
  if (rule.edge) {
    const edges = momentary(rule.when);
    if (edges) edges.forEach((leaf) => add(leaf, false));
    else always = true;
    return { fields, always };
  }
  visit(rule.when, false);
  if (rule.clear) visit(rule.clear, false);
  for (const field of watched) fields.push({ field, window: undefined, list: 'change', key: 0 });
  return { fields, always };
}

/** Leaves that hold for a moment, one of which holds whenever the condition does; undefined when it can hold without any. */
function momentary(node: RuleCondition): readonly Leaf[] | undefined {
  if ('and' in node) {
    const sets = node.and.map(momentary).filter((set) => set !== undefined);
    return sets.sort((a, b) => a.length - b.length)[0];
  }
  if ('or' in node) {
    const sets = node.or.map(momentary);
    return sets.every((set) => set !== undefined) ? sets.flat() : undefined;
  }
  if ('not' in node || 'absent_for' in node || 'change' in node) return undefined;
  return node.op === 'crosses_above' || node.op === 'crosses_below' || node.op === 'changed' ? [node] : undefined;
}

function leafTriggers(leaf: Leaf, negated: boolean, types: TriggerTypes): readonly Trigger[] {
  const { field, op } = leaf;
  const window = 'change' in leaf ? (parseDuration(leaf.change) ?? 0) : undefined;
  const type = window === undefined ? types.typeOf(field) : types.percent;
  const value = 'value' in leaf ? leaf.value : undefined;
  const any: Trigger = { field, window, list: 'change', key: 0 };
  const at = (list: 'up' | 'down' | 'cross', constant: Scalar): Trigger => {
    const key = type.family === 'open' && typeof constant !== 'number' ? NaN : orderKey(type, constant);
    return Number.isNaN(key) ? any : { field, window, list, key };
  };
  const [rise, fall] = negated ? (['down', 'up'] as const) : (['up', 'down'] as const);
  switch (op) {
    case 'gt':
    case 'gte':
      return [at(rise, value as Scalar)];
    case 'lt':
    case 'lte':
      return [at(fall, value as Scalar)];
    case 'crosses_above':
    case 'crosses_below':
      return [at('cross', value as Scalar)];
    case 'between': {
      const [low, high] = value as readonly [Scalar, Scalar];
      // Of what is not between, either bound is a way in.
      return [at(rise, low), at(fall, high)];
    }
    case 'eq':
    case 'in': {
      if (negated || window !== undefined) return [any];
      const keys = (Array.isArray(value) ? (value as readonly Scalar[]) : [value as Scalar]).map((one) => equalKey(type, one));
      return keys.every((key) => key !== undefined) ? keys.map((key) => ({ field, window, list: 'equal', key })) : [any];
    }
    default:
      return [any];
  }
}
