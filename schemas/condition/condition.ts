/** A value in a condition as JSON has it. Numbers that a double cannot hold exactly are given as text: `"1.10"`. */
export type Scalar = string | number | boolean;

/** Operators that compare a column with a value. `between` includes both ends. */
export type CompareOp = 'eq' | 'ne' | 'gt' | 'gte' | 'lt' | 'lte' | 'in' | 'nin' | 'between' | 'like' | 'ilike' | 'is_null';

/** A column beside a value: a scalar, a list for `in`, `nin` and `between` (two), a boolean for `is_null` (true when left out). */
export interface Comparison {
  readonly field: string;
  readonly op: CompareOp;
  readonly value?: Scalar | readonly Scalar[];
}

/** The grammar that rules and queries share. What `ne` and `not` make of the unknown differs between them: see `Truth` in evaluate.ts. */
export type Condition =
  { readonly and: readonly Condition[] } | { readonly or: readonly Condition[] } | { readonly not: Condition } | Comparison;

/** `crosses_above`: previous ≤ value < current. `crosses_below`: previous ≥ value > current. Both hold at their event alone. */
export interface Crossing {
  readonly field: string;
  readonly op: 'crosses_above' | 'crosses_below';
  readonly value: Scalar;
}

/** The column has another value than at the entity's event before. Holds at its event alone. */
export interface Changed {
  readonly field: string;
  readonly op: 'changed';
}

/** Percent that the column has changed by, against its value as of the duration `change` ago. */
export interface PercentChange {
  readonly field: string;
  readonly change: string;
  readonly op: 'gt' | 'gte' | 'lt' | 'lte' | 'eq' | 'ne' | 'between';
  readonly value: Scalar | readonly Scalar[];
}

/** No event of the entity for this long. */
export interface Absence {
  readonly absent_for: string;
}

/** What a rule can ask, beyond what a query can. */
export type RuleCondition =
  | { readonly and: readonly RuleCondition[] }
  | { readonly or: readonly RuleCondition[] }
  | { readonly not: RuleCondition }
  | Comparison
  | Crossing
  | Changed
  | PercentChange
  | Absence;

/** The largest condition: levels of nesting, nodes, and items of all lists together. */
export const conditionLimits = { depth: 16, nodes: 256, items: 1_000 } as const;
