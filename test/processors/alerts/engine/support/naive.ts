import { columnType } from '../../../../../schemas/condition/column-type.ts';
import type { RuleCondition } from '../../../../../schemas/condition/condition.ts';
import { compileComparison } from '../../../../../schemas/condition/evaluate.ts';
import { compareDecimal } from '../../../../../schemas/decimal.ts';
import { alertId } from '../../../../../processors/alerts/engine/alert-id.ts';
import { idAt, microsAt, type Row, type TestEvent } from './log.ts';

/** One line for each transition, in the order in which they happen. */
export type Told = string;

interface NaiveRule {
  readonly seq: number;
  readonly row: Row;
}

interface State {
  phase: 'pending' | 'firing';
  since: number;
  opener: string;
  falseSince?: number;
  alert?: string;
}

interface Past {
  readonly seq: number;
  readonly now: number;
  readonly event: TestEvent;
}

type Truth = boolean | undefined;

/**
 * The specification, word for word: at every event, every rule is evaluated for every entity, from the whole history.
 * Slow, without an index, a timer or a memory of values.
 */
export class NaiveAlerts {
  readonly told: Told[] = [];
  readonly #history: Past[] = [];
  readonly #rules = new Map<string, NaiveRule>();
  /** Rule → entity → state. */
  readonly #states = new Map<string, Map<string, State>>();
  /** Of each way to tell entities apart: entity → sequence of its last end. */
  readonly #ends = new Map<string, Map<string, number>>();
  #now = 0;
  #seq = 0;

  apply(event: TestEvent): void {
    this.#seq++;
    this.#now = Math.max(this.#now, microsAt(event.at));
    this.#history.push({ seq: this.#seq, now: this.#now, event });
    if (event.table === 'headwater.alert_rules') this.#rule(event);
    else if (event.kind === 'row') this.#ended(event);
    for (const id of [...this.#rules.keys()].sort()) {
      for (const entity of this.#entitiesOf(this.#rules.get(id)!)) this.#evaluate(id, this.#rules.get(id)!, entity);
    }
  }

  #rule({ op, after, key }: TestEvent): void {
    const id = String(key!['id']);
    const known = this.#rules.get(id);
    if (op === 'delete') {
      this.#drop(id, 'rule_deleted');
      return;
    }
    if (known?.row['revision'] === after!['revision']) return;
    this.#drop(id, after!['enabled'] === true ? 'rule_edited' : 'rule_disabled');
    if (after!['enabled'] === true) this.#rules.set(id, { seq: this.#seq, row: after! });
  }

  #drop(id: string, reason: string): void {
    for (const [entity, state] of [...(this.#states.get(id) ?? [])].sort(byEntity)) this.#end(id, entity, state, reason);
    this.#states.delete(id);
    this.#rules.delete(id);
  }

  #end(id: string, entity: string, state: State, reason: string): void {
    if (state.phase === 'firing') this.#tell(state.alert!, id, entity, `resolved ${reason}`);
    this.#states.get(id)?.delete(entity);
  }

  #tell(alert: string, id: string, entity: string, what: string): void {
    this.told.push(`${this.#seq} ${this.#now} ${id} ${entity} ${what} ${alert}`);
  }

  /** Deletes, key changes and truncates. */
  #ended({ op, key, before }: TestEvent): void {
    const gone: string | undefined =
      op === 'delete' ? keyText(key!) : op === 'update' && before && keyText(before) !== keyText(key!) ? keyText(before) : undefined;
    const ending: [string, string, State][] = [];
    for (const [id, { row }] of this.#rules) {
      for (const [entity, state] of this.#states.get(id) ?? []) {
        if (op === 'truncate' || (row['group_by'] === null && entity === gone)) ending.push([id, entity, state]);
      }
    }
    for (const [id, entity, state] of ending.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : a[1] < b[1] ? -1 : 1)))
      this.#end(id, entity, state, 'entity_deleted');
    if (op === 'truncate') this.#note('*', '*');
    else if (gone !== undefined) this.#note('key', gone);
  }

  #note(way: string, entity: string): void {
    const ends = this.#ends.get(way) ?? new Map<string, number>();
    this.#ends.set(way, ends.set(entity, this.#seq));
  }

  /** The entity that an event is of, for the rule. */
  #entityOf({ row }: NaiveRule, { kind, table, op, key, after }: TestEvent): string | undefined {
    if (kind !== 'row' || table === 'headwater.alert_rules' || !after || op === 'delete' || op === 'truncate') return undefined;
    const groupBy = row['group_by'] as readonly string[] | null;
    if (!groupBy) return keyText(key!);
    if (!groupBy.every((column) => after[column] !== undefined && after[column] !== null)) return undefined;
    for (const [column, values] of Object.entries(row['match'] as Record<string, readonly unknown[]>)) {
      if (!values.map(String).includes(String(after[column] ?? '\0'))) return undefined;
    }
    return groupBy.map((column) => encodeURIComponent(String(after[column]))).join(':');
  }

  #entitiesOf(rule: NaiveRule): string[] {
    const found = new Set<string>();
    for (const { seq, event } of this.#history) {
      const entity = seq > rule.seq ? this.#entityOf(rule, event) : undefined;
      if (entity !== undefined) found.add(entity);
    }
    return [...found].sort().filter((entity) => this.#eventsOf(rule, entity).length > 0);
  }

  /** What the rule has seen of the entity, since it last ended. */
  #eventsOf(rule: NaiveRule, entity: string): Past[] {
    const ended = Math.max(
      this.#ends.get('*')?.get('*') ?? 0,
      rule.row['group_by'] === null ? (this.#ends.get('key')?.get(entity) ?? 0) : 0,
    );
    return this.#history.filter(({ seq, event }) => {
      if (seq <= rule.seq || this.#entityOf(rule, event) !== entity) return false;
      // An event that ends one entity can bring the next.
      return seq > ended;
    });
  }

  #evaluate(id: string, rule: NaiveRule, entity: string): void {
    const events = this.#eventsOf(rule, entity);
    const last = events.at(-1)!;
    const own = last.seq === this.#seq;
    const { row } = rule;
    const view = new NaiveView(events, own, this.#now, (field) => this.#typeOf(field), row['group_by'] === null);
    const matched = row['group_by'] === null ? matchTruth(row['match'] as Record<string, readonly unknown[]>, view) : true;
    const condition = row['condition'] as RuleCondition;
    const holds = matched === false ? false : view.truth(condition);
    const when = holds && matched === undefined ? undefined : holds;
    if (isEdge(condition)) {
      if (own && last.event.op !== 'read' && when)
        this.#tell(alertId(id, Number(row['revision']), entity, idAt(this.#seq)), id, entity, 'firing');
      return;
    }
    const clear = row['clear_condition'] as RuleCondition | null;
    const over: Truth = matched === false ? true : clear ? view.truth(clear) : when === undefined ? undefined : !when;
    this.#step(id, rule, entity, when, over);
  }

  #step(id: string, { row }: NaiveRule, entity: string, when: Truth, over: Truth): void {
    const states = this.#states.get(id) ?? new Map<string, State>();
    this.#states.set(id, states);
    let state = states.get(entity);
    if (state?.phase === 'firing') {
      if (over === false) delete state.falseSince;
      if (!over) return;
      state.falseSince ??= this.#now;
      if (this.#now - state.falseSince >= Number(row['keep_firing_for_seconds']) * 1e6) this.#end(id, entity, state, 'condition');
      return;
    }
    if (when === false) states.delete(entity);
    if (!when) return;
    if (!state) states.set(entity, (state = { phase: 'pending', since: this.#now, opener: idAt(this.#seq) }));
    if (this.#now - state.since < Number(row['for_seconds']) * 1e6) return;
    state.phase = 'firing';
    state.alert = alertId(id, Number(row['revision']), entity, state.opener);
    this.#tell(state.alert, id, entity, 'firing');
  }

  /** The column's type, and since when. */
  #typeOf(field: string): { readonly type: string | undefined; readonly since: number } {
    let [type, since]: [string | undefined, number] = [undefined, 0];
    for (const { seq, event } of this.#history) {
      if (event.kind !== 'schema' || event.columns![field] === type) continue;
      type = event.columns![field];
      since = seq;
    }
    return { type, since };
  }
}

class NaiveView {
  readonly #events: readonly Past[];
  readonly #own: boolean;
  readonly #now: number;
  readonly #typeOf: (field: string) => { readonly type: string | undefined; readonly since: number };
  readonly #byKey: boolean;

  constructor(events: readonly Past[], own: boolean, now: number, typeOf: NaiveView['typeOf'], byKey: boolean) {
    this.#events = events;
    this.#own = own;
    this.#now = now;
    this.#typeOf = typeOf;
    this.#byKey = byKey;
  }

  get typeOf(): (field: string) => { readonly type: string | undefined; readonly since: number } {
    return this.#typeOf;
  }

  value(field: string, events = this.#events): unknown {
    const { since } = this.#typeOf(field);
    return events.findLast(({ seq, event }) => seq > since && event.after![field] !== undefined)?.event.after![field];
  }

  truth(node: RuleCondition): Truth {
    if ('and' in node) {
      const parts = node.and.map((part) => this.truth(part));
      return parts.includes(false) ? false : parts.includes(undefined) ? undefined : true;
    }
    if ('or' in node) {
      const parts = node.or.map((part) => this.truth(part));
      return parts.includes(true) ? true : parts.includes(undefined) ? undefined : false;
    }
    if ('not' in node) {
      const inner = this.truth(node.not);
      return inner === undefined ? undefined : !inner;
    }
    if ('absent_for' in node) return this.#now - this.#events.at(-1)!.now >= seconds(node.absent_for);
    if ('change' in node) return this.#change(node.field, seconds(node.change), node.op, node.value as number);
    const value = this.value(node.field);
    switch (node.op) {
      case 'changed': {
        const before = this.#before(node.field);
        if (before === undefined || value === undefined) return undefined;
        return before !== value && !(this.#typeOf(node.field).type && compareDecimal(String(before), String(value)) === 0);
      }
      case 'crosses_above':
      case 'crosses_below': {
        const before = this.#before(node.field);
        const [a, b] = [order(before, node.value), order(value, node.value)];
        if (a === undefined || b === undefined) return undefined;
        return node.op === 'crosses_above' ? a <= 0 && b > 0 : a >= 0 && b < 0;
      }
      default:
        return compileComparison(node, columnType(this.#typeOf(node.field).type))(value);
    }
  }

  #before(field: string): unknown {
    if (!this.#own || this.#events.at(-1)!.event.op === 'read') return undefined;
    const told = this.#events.at(-1)!.event.before;
    const key = this.#events.at(-1)!.event.key!;
    if (this.#byKey && told && told[field] !== undefined && keyText(told) === keyText(key)) return told[field];
    return this.value(field, this.#events.slice(0, -1));
  }

  /** In thousandths, with integers: the tests' values have no more digits. */
  #change(field: string, micros: number, op: string, limit: number): Truth {
    const { since } = this.#typeOf(field);
    const then = this.#events.findLast(
      ({ seq, now, event }) => seq > since && event.after![field] !== undefined && now <= this.#now - micros,
    )?.event.after![field];
    const now = this.value(field);
    if (typeof then !== 'string' || typeof now !== 'string') return undefined;
    const [a, b] = [Math.round(Number(now) * 1_000), Math.round(Number(then) * 1_000)];
    if (b === 0) return undefined;
    const [left, right] = [(a - b) * 100, limit * Math.abs(b)];
    return op === 'gt'
      ? left > right
      : op === 'gte'
        ? left >= right
        : op === 'lt'
          ? left < right
          : op === 'lte'
            ? left <= right
            : op === 'eq'
              ? left === right
              : left !== right;
  }
}

function order(value: unknown, limit: unknown): number | undefined {
  return value === undefined || value === null ? undefined : compareDecimal(String(value), String(limit));
}

function matchTruth(match: Record<string, readonly unknown[]>, view: NaiveView): Truth {
  const parts = Object.entries(match).map(([column, values]): Truth => {
    const value = view.value(column);
    return value === undefined ? undefined : value !== null && values.map(String).includes(String(value));
  });
  return parts.includes(false) ? false : parts.includes(undefined) ? undefined : true;
}

function isEdge(node: RuleCondition): boolean {
  return /"op":"(?:crosses_above|crosses_below|changed)"/.test(JSON.stringify(node));
}

function seconds(duration: string): number {
  return Number(duration.slice(0, -1)) * 1e6;
}

function keyText(key: Row): string {
  return String(key['id']);
}

function byEntity(a: readonly [string, unknown], b: readonly [string, unknown]): number {
  return a[0] < b[0] ? -1 : 1;
}
