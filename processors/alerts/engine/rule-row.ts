import { HeadwaterError } from '../../../pipeline/runtime/errors.ts';
import { ownSchema } from '../../../schemas/catalog.ts';
import { checkRuleCondition } from '../../../schemas/condition/check.ts';
import type { RuleCondition } from '../../../schemas/condition/condition.ts';
import { compileRule, usesOf } from '../../../schemas/condition/evaluate.ts';
import { textOf } from '../../../schemas/filter.ts';
import type { MatchColumn, Micros, Severity } from '../model.ts';
import type { RuleDefinition } from './live-rule.ts';
import type { RuleRow } from './saved.ts';

type Members = Readonly<Record<string, unknown>>;

const severities: readonly string[] = ['info', 'warning', 'critical'] satisfies Severity[];
const mostSeconds = 2_147_483_647;

/**
 * The row of a rule from the members of an event.
 * @param known the row of the revision before, for columns that Postgres did not send again
 * @throws HeadwaterError `bad_rule`
 */
export function readRow(after: Members, known: RuleRow | undefined): RuleRow {
  const id = after['id'];
  if (typeof id !== 'string' || id === '') throw badRule('without an id', 'id is missing');
  const read = (column: keyof RuleRow): unknown => {
    if (Object.hasOwn(after, column)) return after[column];
    // The row of before counts only if nothing has been missed between the two.
    if (known && known.revision + 1 === after['revision']) return known[column];
    throw badRule(id, `${column} is missing`);
  };
  const text = (column: keyof RuleRow): string => {
    const value = read(column);
    if (typeof value !== 'string' || value === '') throw badRule(id, `${column} must be text`);
    return value;
  };
  const whole = (column: keyof RuleRow): number => {
    const value = read(column);
    if (!Number.isInteger(value) || (value as number) < 0 || (value as number) > mostSeconds)
      throw badRule(id, `${column} must be a whole number from 0`);
    return value as number;
  };
  const enabled = read('enabled');
  if (typeof enabled !== 'boolean') throw badRule(id, 'enabled must be true or false');
  return {
    id,
    user_id: text('user_id'),
    revision: whole('revision'),
    name: text('name'),
    table_name: text('table_name'),
    match: read('match'),
    group_by: columnList(id, read('group_by')),
    condition: read('condition'),
    clear_condition: read('clear_condition'),
    for_seconds: whole('for_seconds'),
    keep_firing_for_seconds: whole('keep_firing_for_seconds'),
    cooldown_seconds: whole('cooldown_seconds'),
    severity: text('severity'),
    enabled,
  };
}

/** Gives the same object for equal ones, so that a million rules share what they have in common. */
export interface Interning {
  text(value: string): string;
  match(value: readonly MatchColumn[]): readonly MatchColumn[];
}

const separate: Interning = { text: (value) => value, match: (value) => value };

/**
 * A rule from its row.
 * @throws HeadwaterError `bad_rule` with all that is wrong
 */
export function defineRule(row: RuleRow, interning: Interning = separate): RuleDefinition {
  const { id } = row;
  const intern = (text: string): string => interning.text(text);
  const [schema] = row.table_name.split('.', 1);
  if (!row.table_name.includes('.') || schema === ownSchema)
    throw badRule(id, `table_name is ${JSON.stringify(row.table_name)}, and must be <schema>.<table>, not one of Headwater's own`);
  if (!severities.includes(row.severity)) throw badRule(id, `severity must be one of ${severities.join(', ')}`);
  const when = condition(id, 'when', row.condition, true);
  const clear = row.clear_condition === null ? undefined : condition(id, 'clear', row.clear_condition, false);
  const { edge } = usesOf(when);
  if (edge && clear) throw badRule(id, 'clear has no meaning: when holds for a moment only, and such a rule does not resolve');
  if (edge && row.for_seconds + row.keep_firing_for_seconds > 0)
    throw badRule(id, 'for and keepFiringFor must be 0: when holds for a moment only, and such a rule does not resolve');
  return {
    id,
    revision: row.revision,
    userId: intern(row.user_id),
    name: row.name,
    table: intern(row.table_name),
    match: interning.match(matchOf(id, row.match)),
    groupBy: row.group_by?.map(intern),
    when: interned(when, intern),
    clear: clear && interned(clear, intern),
    forMicros: micros(row.for_seconds),
    keepFiringForMicros: micros(row.keep_firing_for_seconds),
    cooldownMicros: micros(row.cooldown_seconds),
    severity: intern(row.severity) as Severity,
    edge,
  };
}

function condition(id: string, name: 'when' | 'clear', input: unknown, edges: boolean): RuleCondition {
  // Types are not looked at: a rule stays one when its table changes, and a value that is not of the type is unknown.
  const { value, faults } = checkRuleCondition(input, { columns: undefined, name, edges });
  if (faults) throw badRule(id, faults.map(({ field, message }) => `${field} ${message}`).join('; '));
  // Whatever cannot be compiled shall be known now, not when the first event comes.
  compileRule(value, undefined);
  return value;
}

function matchOf(id: string, input: unknown): readonly MatchColumn[] {
  if (typeof input !== 'object' || input === null || Array.isArray(input)) throw badRule(id, 'match must be an object');
  return Object.entries(input).map(([column, list]) => {
    const values = Array.isArray(list) ? (list as readonly unknown[]).map(textOf) : [];
    const known = values.filter((value) => value !== undefined);
    if (values.length === 0 || known.length < values.length) throw badRule(id, `match.${column} must be a list of values`);
    return { column, values: known.length === 1 ? known : [...new Set(known)] };
  });
}

function columnList(id: string, input: unknown): readonly string[] | null {
  if (input === null) return null;
  const columns = Array.isArray(input) ? (input as readonly unknown[]) : [];
  if (columns.length === 0 || !columns.every((one) => typeof one === 'string' && one !== '') || new Set(columns).size < columns.length)
    throw badRule(id, 'group_by must be a list of different columns, or null');
  return columns as readonly string[];
}

/** The condition with one string for each name in it: a million rules name the same few columns. */
function interned(node: RuleCondition, intern: (text: string) => string): RuleCondition {
  if ('and' in node) return { and: node.and.map((part) => interned(part, intern)) };
  if ('or' in node) return { or: node.or.map((part) => interned(part, intern)) };
  if ('not' in node) return { not: interned(node.not, intern) };
  if ('absent_for' in node) return { absent_for: intern(node.absent_for) };
  const [field, op] = [intern(node.field), intern(node.op)];
  // Written out, so that it takes no more room than its three members.
  return ('change' in node || !('value' in node) ? { ...node, field, op } : { field, op, value: node.value }) as RuleCondition;
}

function micros(seconds: number): Micros {
  return seconds * 1_000_000;
}

function badRule(id: string, what: string): HeadwaterError {
  return new HeadwaterError('bad_rule', `the rule ${id} cannot be used: ${what}`, {
    hint: 'its last revision that could be used stays in force; correct the rule, or disable it',
  });
}
