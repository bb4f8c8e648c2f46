import type { Comparison, Condition, Scalar } from '../../../schemas/condition/condition.ts';
import { operandOf, type Operand, type SqlValue } from './columns.ts';
import type { Parameters } from './parameters.ts';

/**
 * A condition as SQL. It is true, false and null exactly where `compileFilter` says true, false and unknown: `ne` is IS DISTINCT FROM,
 * `not` is IS NOT TRUE.
 * @param condition one in normal form
 * @param valueOf what the condition's names stand for
 */
export function conditionSql(condition: Condition, valueOf: (field: string) => SqlValue, parameters: Parameters): string {
  if ('and' in condition) return `(${condition.and.map((part) => conditionSql(part, valueOf, parameters)).join(' AND ')})`;
  if ('or' in condition) return `(${condition.or.map((part) => conditionSql(part, valueOf, parameters)).join(' OR ')})`;
  if ('not' in condition) return `(${conditionSql(condition.not, valueOf, parameters)} IS NOT TRUE)`;
  return `(${comparisonSql(condition, operandOf(valueOf(condition.field)), parameters)})`;
}

const orders = { gt: '>', gte: '>=', lt: '<', lte: '<=' } as const;

function comparisonSql({ op, value }: Comparison, operand: Operand, parameters: Parameters): string {
  const list = (Array.isArray(value) ? value : [value]) as readonly Scalar[];
  const given = (one: Scalar): string => parameters.add(operand.spell(one) ?? '', operand.cast);
  const [first, second] = list as readonly [Scalar, Scalar];
  switch (op) {
    case 'is_null':
      return value === false ? `(${operand.isNull}) IS NOT TRUE` : operand.isNull;
    case 'eq':
    case 'in':
      return oneOf(list, operand, parameters);
    case 'ne':
    case 'nin':
      return `(${oneOf(list, operand, parameters)}) IS NOT TRUE`;
    case 'between':
      return `${operand.ordered} BETWEEN ${given(first)} AND ${given(second)}`;
    case 'like':
    case 'ilike':
      return `${operand.pattern} ${op === 'like' ? 'LIKE' : 'ILIKE'} ${parameters.add(String(value), 'text')}`;
    default:
      return `${operand.ordered} ${orders[op]} ${given(first)}`;
  }
}

function oneOf(list: readonly Scalar[], operand: Operand, parameters: Parameters): string {
  const values = list.map((one) => operand.spell(one)).filter((one) => one !== undefined);
  if (values.length === 0) return `CASE WHEN NOT (${operand.isNull}) THEN false END`;
  if (values.length === 1) return `${operand.same} = ${parameters.add(values[0]!, operand.cast)}`;
  return `${operand.same} = ANY (${parameters.add(values, `${operand.cast}[]`)})`;
}
