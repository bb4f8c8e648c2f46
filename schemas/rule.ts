import { ownSchema } from './catalog.ts';
import { allows, columnType, type ColumnTypes } from './condition/column-type.ts';
import { checkRuleCondition } from './condition/check.ts';
import { fieldName, isObject, show, type Fault } from './condition/faults.ts';
import type { RuleCondition, Scalar } from './condition/condition.ts';
import { usesOf } from './condition/evaluate.ts';
import { textInEvents } from './condition/event-text.ts';
import { parseRuleCondition } from './condition/parse.ts';
import { durationForm, parseDuration } from './duration.ts';
import type { RuleRequest } from './generated/rule.ts';
import { suggestion } from './nearest.ts';
import { checkChannels, type RuleChannel } from './rule-channels.ts';

/** A rule, checked, with its defaults filled in. Durations are texts of whole seconds. */
export interface RuleDocument {
  readonly name: string;
  /** `<schema>.<table>` */
  readonly table: string;
  /** Column → values, one of which the row must have. */
  readonly match: Readonly<Record<string, readonly Scalar[]>>;
  /** The columns whose values make an entity; undefined: the primary key. */
  readonly groupBy: readonly string[] | undefined;
  readonly when: RuleCondition;
  readonly for: string;
  /** When it is over; undefined: when `when` is false. */
  readonly clear: RuleCondition | undefined;
  readonly keepFiringFor: string;
  readonly cooldown: string;
  readonly severity: (typeof severities)[number];
  readonly channels: readonly RuleChannel[];
  readonly enabled: boolean;
}

export type CheckedRule =
  { readonly rule: RuleDocument; readonly faults?: never } | { readonly faults: readonly Fault[]; readonly rule?: never };

/**
 * What is known of a table: its columns, as events have them; or why no rule can be on it, as the end of a sentence that begins with
 * `table`; undefined when nothing is known, and only what can be judged without columns is judged.
 */
export type KnownTable = ColumnTypes | string | undefined;

const severities = ['info', 'warning', 'critical'] as const;

/** The members of a rule, and no others. */
const ruleMembers = [
  'name',
  'table',
  'match',
  'groupBy',
  'when',
  'for',
  'clear',
  'keepFiringFor',
  'cooldown',
  'severity',
  'channels',
  'enabled',
] as const satisfies readonly (keyof RuleRequest)[];
type Member = (typeof ruleMembers)[number];

/** The longest name, in characters; most columns of `match` and of `groupBy`; most values of a column in `match`. */
const limits = { name: 200, match: 16, values: 1_000, groupBy: 8 } as const;

/**
 * Checks a rule that comes from outside, as parsed JSON: the whole of it, also after a patch. Conditions are trees, or text. `null` for `groupBy` and `clear` is as if
 * they were left out. Whether an address may be called is not judged here, only its syntax.
 * @param body without the members that only the server sets
 * @param columnsOf called once, if the rule names a table
 * @returns the rule, or all that is wrong with it; each message is a sentence that begins with its field's name
 */
export function checkRule(body: unknown, columnsOf: (table: string) => KnownTable): CheckedRule {
  if (!isObject(body)) return { faults: [{ field: 'rule', message: 'must be an object' }] };
  return new RuleChecker(body, columnsOf).check();
}

class RuleChecker {
  readonly #faults: Fault[] = [];
  readonly #body: Readonly<Record<string, unknown>>;
  readonly #columnsOf: (table: string) => KnownTable;
  #columns: ColumnTypes | undefined;

  constructor(body: Readonly<Record<string, unknown>>, columnsOf: (table: string) => KnownTable) {
    this.#body = body;
    this.#columnsOf = columnsOf;
  }

  check(): CheckedRule {
    const [name, table] = [this.#name(), this.#table()];
    const [match, groupBy] = [this.#match(), this.#groupBy()];
    const [when, clear] = [this.#condition('when', true), this.#condition('clear', false)];
    const [pending, keep, cooldown] = [this.#duration('for'), this.#duration('keepFiringFor'), this.#duration('cooldown')];
    if (when && usesOf(when).edge) this.#edge(pending, keep);
    const severity = this.#severity();
    const channels = checkChannels(this.#get('channels'), this.#faults);
    const enabled = this.#get('enabled') ?? true;
    if (typeof enabled !== 'boolean') this.#fault('enabled', `is ${show(enabled)}, and must be true or false`);
    for (const member of Object.keys(this.#body)) {
      if (!ruleMembers.includes(member as Member)) this.#fault(member, `is no member of a rule${suggestion(member, ruleMembers)}`);
    }
    if (this.#faults.length > 0 || !when) return { faults: this.#faults };
    const times = { for: pending, keepFiringFor: keep, cooldown };
    return { rule: { name, table, match, groupBy, when, clear, ...times, severity, channels, enabled: enabled === true } };
  }

  #get(member: Member): unknown {
    return Object.hasOwn(this.#body, member) ? this.#body[member] : undefined;
  }

  #fault(field: string, message: string): void {
    this.#faults.push({ field, message });
  }

  #name(): string {
    const name = this.#get('name');
    if (name === undefined) this.#fault('name', 'is missing: what people will call the rule');
    else if (typeof name !== 'string' || name.trim() === '') this.#fault('name', `is ${show(name)}, and must be text`);
    else if (name.length > limits.name) this.#fault('name', `has more than the ${limits.name} characters that are allowed`);
    else if (/[\p{Cc}\p{Surrogate}\u2028\u2029]/u.test(name)) this.#fault('name', 'must be one line of text, without control characters');
    else return name;
    return '';
  }

  #table(): string {
    const table = this.#get('table');
    if (table === undefined) this.#fault('table', 'is missing: <schema>.<table>');
    else if (typeof table !== 'string' || table === '') this.#fault('table', `is ${show(table)}, and must be <schema>.<table>`);
    else if (!/^[^.].*\../su.test(table))
      this.#fault('table', `is ${show(table)}, and must be <schema>.<table>${table.includes('.') ? '' : `, like public.${table}`}`);
    else if (table.length > 512 || /[\0\p{Surrogate}]/u.test(table)) this.#fault('table', 'is no name of a table');
    else if (table.startsWith(`${ownSchema}.`))
      this.#fault('table', `is ${table}, but alerts about Headwater's own tables would never rest`);
    else {
      const known = this.#columnsOf(table);
      if (typeof known === 'string') this.#fault('table', known);
      else this.#columns = known;
      return table;
    }
    return '';
  }

  #match(): RuleDocument['match'] {
    const match = this.#get('match') ?? {};
    if (!isObject(match)) {
      this.#fault('match', `is ${show(match)}, and must be an object: {"column":[values]}`);
      return {};
    }
    const entries = Object.entries(match);
    if (entries.length > limits.match) this.#fault('match', `has more than the ${limits.match} columns that are allowed`);
    else for (const [column, values] of entries) this.#matchColumn(column, values);
    // As own members, whatever the columns are called.
    return Object.fromEntries(entries) as RuleDocument['match'];
  }

  #matchColumn(column: string, values: unknown): void {
    const place = fieldName('match', [column]);
    if (!Array.isArray(values) || values.length === 0)
      return this.#fault(place, `is ${show(values)}, and must be a list of at least one value`);
    const { faults = [] } = checkRuleCondition(
      { field: column, op: 'in', value: values },
      { columns: this.#columns, name: '', edges: false },
    );
    for (const { path, message } of faults) {
      if (path[0] === 'value') this.#fault(fieldName(place, path.slice(1)), message);
      else this.#fault(place, path[0] === 'op' ? `cannot be matched: values of type ${this.#columns?.get(column)} equal nothing` : message);
    }
    const type = this.#columns?.get(column);
    if (faults.length === 0 && type !== undefined) this.#matchTexts(type, values as readonly Scalar[], place);
  }

  /** Rows are matched by the text of their values: another spelling of the same value would never match. */
  #matchTexts(type: string, values: readonly Scalar[], place: string): void {
    for (const [i, value] of values.entries()) {
      const written = textInEvents(type, value);
      if (written !== undefined && written !== String(value))
        this.#fault(`${place}[${i}]`, `is ${show(value)}, which events have as ${show(written)}: write it like that (it is ${type})`);
    }
  }

  #groupBy(): readonly string[] | undefined {
    const columns = this.#get('groupBy') ?? undefined;
    if (columns === undefined) return undefined;
    if (!Array.isArray(columns) || columns.length === 0) {
      this.#fault('groupBy', `is ${show(columns)}, and must be a list of columns; left out, it is the primary key`);
      return undefined;
    }
    if (columns.length > limits.groupBy) this.#fault('groupBy', `has more than the ${limits.groupBy} columns that are allowed`);
    else for (const [i, column] of columns.entries()) this.#groupColumn(column, columns.indexOf(column) < i, `groupBy[${i}]`);
    return columns as readonly string[];
  }

  #groupColumn(column: unknown, again: boolean, place: string): void {
    if (typeof column !== 'string' || column === '') return this.#fault(place, `is ${show(column)}, and must be the name of a column`);
    if (again) return this.#fault(place, `is ${column}, which stands in the list already`);
    if (!this.#columns) return;
    const type = this.#columns.get(column);
    if (type === undefined) {
      this.#fault(place, `is ${show(column)}, which is no column of the table${suggestion(column, [...this.#columns.keys()])}`);
    } else if (!allows(columnType(type), 'eq')) this.#fault(place, `is ${column}, whose values equal nothing: it is ${type}`);
  }

  #condition(member: 'when' | 'clear', edges: boolean): RuleCondition | undefined {
    const input = this.#get(member) ?? undefined;
    if (input === undefined) {
      if (member === 'when') this.#fault('when', 'is missing: the condition at which the alert fires');
      return undefined;
    }
    const options = { columns: this.#columns, name: member, edges };
    if (typeof input === 'string') {
      const { value, problems = [] } = parseRuleCondition(input, options);
      for (const { line, column, message } of problems) this.#fault(member, `at line ${line}, column ${column}: ${message}`);
      return value;
    }
    const { value, faults = [] } = checkRuleCondition(input, options);
    for (const { field, message } of faults) this.#fault(field, message);
    return value;
  }

  #duration(member: 'for' | 'keepFiringFor' | 'cooldown'): string {
    const input = this.#get(member) ?? '0s';
    const text = input === 0 ? '0s' : typeof input === 'string' ? input : '';
    const micros = parseDuration(text);
    if (micros === undefined) this.#fault(member, `is ${show(input)}, and must be ${durationForm}, up to 366d`);
    else if (micros % 1_000_000 !== 0) this.#fault(member, `is ${show(input)}, and must be in whole seconds`);
    return micros === 0 ? '0s' : text;
  }

  /** Operators that hold only for a moment. */
  #edge(pending: string, keep: string): void {
    const why = 'crosses_above, crosses_below and changed hold only for a moment';
    if (pending !== '0s') this.#fault('for', `is ${pending}, and must be 0s: ${why}`);
    if (keep !== '0s') this.#fault('keepFiringFor', `is ${keep}, and must be 0s: ${why}, and such an alert does not resolve`);
    if ((this.#get('clear') ?? undefined) !== undefined)
      this.#fault('clear', `must be left out: ${why}, and such an alert does not resolve`);
  }

  #severity(): RuleDocument['severity'] {
    const input = this.#get('severity') ?? 'info';
    const severity = severities.find((one) => one === input);
    if (severity !== undefined) return severity;
    const near = typeof input === 'string' ? suggestion(input, severities) : '';
    this.#fault('severity', `is ${show(input)}, and must be one of ${severities.join(', ')}${near}`);
    return 'info';
  }
}
