import type { Seq } from '../../../pipeline/log/event-log.ts';
import { columnType, type ColumnType } from '../../../schemas/condition/column-type.ts';
import { usesOf, type RuleUses } from '../../../schemas/condition/evaluate.ts';
import { textOf } from '../../../schemas/filter.ts';
import type { MatchColumn, Micros } from '../model.ts';
import { Bucket, type BucketStream } from './bucket.ts';
import type { Entity } from './entity.ts';
import type { LiveRule } from './live-rule.ts';
import type { Source } from './move.ts';
import { streamKey, type SavedEpisode } from './saved.ts';
import type { TableColumns } from './table-columns.ts';
import { Wanted, type Anchor } from './wanted.ts';

/** A column that rules of the stream look at. */
export interface Column extends Source {
  readonly window: undefined;
  readonly index: number;
  /** How many rules look at it. Its place stays when none does any more. */
  rules: number;
  type: ColumnType;
  /** Values of before this are of another type, and unknown. */
  since: Seq;
}

/** A percentage change that rules of the stream look at. */
export interface Window extends Source {
  readonly window: Micros;
  readonly index: number;
  readonly column: Column;
  readonly wanted: Wanted;
}

/** Events of a table, told apart into entities in one way: what the rules that do so have in common. */
export class Stream implements BucketStream {
  readonly table: string;
  readonly grouping: string;
  readonly key: string;
  /** Undefined: the primary key. */
  readonly groupBy: readonly string[] | undefined;
  /** With columns of its own: which rows are of it. Otherwise that is up to each rule. */
  readonly match: readonly MatchColumn[];
  readonly fewRules: number;
  readonly percent: ColumnType = columnType('numeric');
  readonly columns: Column[] = [];
  readonly windows: Window[] = [];
  readonly entities = new Map<string, Entity>();
  /** How many episodes of its rules are in each phase. */
  readonly phases: Record<SavedEpisode['phase'], number> = { pending: 0, firing: 0, idle: 0 };
  /** Durations without an event that rules ask for, shortest first. */
  absences: { readonly duration: Micros; readonly wanted: Wanted }[] = [];
  newestRule: Seq = 0;
  rules = 0;
  readonly #types: TableColumns;
  readonly #sources = new Map<string, Column | Window>();
  readonly #any: Bucket = new Bucket(this);
  readonly #anchored = new Map<string, Map<string, Bucket>>();
  readonly #wanted = new Wanted();
  readonly #unwanted = new Set<Window>();

  constructor(rule: Pick<LiveRule['definition'], 'table' | 'groupBy' | 'match'>, types: TableColumns, fewRules: number) {
    this.fewRules = fewRules;
    this.table = rule.table;
    this.groupBy = rule.groupBy;
    this.match = rule.groupBy ? rule.match : [];
    this.grouping = groupingOf(rule);
    this.key = streamKey(this.table, this.grouping);
    this.#types = types;
  }

  /** Rules come in the order of their sequences. */
  add(rule: LiveRule): void {
    this.rules++;
    this.newestRule = Math.max(this.newestRule, rule.seq);
    const anchor = this.#anchorOf(rule);
    const uses = usesOfRule(rule);
    for (const field of this.#fieldsOf(rule, uses)) this.column(field).rules++;
    for (const { field, micros } of uses.ago) this.#window(field, micros).wanted.add(anchor);
    for (const duration of uses.absences) this.#absence(duration).add(anchor);
    this.#wanted.add(anchor);
    for (const bucket of this.#bucketsFor(anchor)) bucket.add(rule);
  }

  /** The rule is `gone`. */
  remove(rule: LiveRule): void {
    this.rules--;
    const anchor = this.#anchorOf(rule);
    const uses = usesOfRule(rule);
    for (const bucket of this.#bucketsFor(anchor)) bucket.remove(rule);
    for (const field of this.#fieldsOf(rule, uses)) this.column(field).rules--;
    for (const { field, micros } of uses.ago) {
      const window = this.#window(field, micros);
      window.wanted.remove(anchor);
      if (window.wanted.empty) this.#unwanted.add(window);
    }
    for (const duration of uses.absences) this.#absence(duration).remove(anchor);
    this.absences = this.absences.filter(({ wanted }) => !wanted.empty);
    this.#wanted.remove(anchor);
    if (!anchor) return;
    const buckets = this.#anchored.get(anchor.column)!;
    for (const value of anchor.values) if (buckets.get(value)?.size === 0) buckets.delete(value);
    if (buckets.size === 0) this.#anchored.delete(anchor.column);
  }

  /** Windows that no rule looks at any more, since this was last asked. */
  takeUnwanted(): readonly Window[] {
    const windows = [...this.#unwanted].filter(({ wanted }) => wanted.empty);
    this.#unwanted.clear();
    return windows;
  }

  /** Columns by which rules are found. */
  get anchors(): Iterable<string> {
    return this.#anchored.keys();
  }

  /** The rules that concern every entity. */
  get any(): Bucket {
    return this.#any;
  }

  bucket(anchor: string, text: string | undefined): Bucket | undefined {
    return text === undefined ? undefined : this.#anchored.get(anchor)?.get(text);
  }

  /** Can any rule of the stream concern an entity with this key? */
  concerns(key: Readonly<Record<string, unknown>>): boolean {
    return this.#wanted.of((column) => keyText(key, column));
  }

  column(field: string): Column {
    const found = this.#sources.get(field);
    if (found) return found as Column;
    const { length: index } = this.columns;
    const column: Column = { field, window: undefined, index, rules: 0, ...this.#typeOf(field) };
    this.columns.push(column);
    this.#sources.set(field, column);
    return column;
  }

  /** Without making one. */
  knownColumn(field: string): Column | undefined {
    return this.#sources.get(field) as Column | undefined;
  }

  windowOf(field: string, micros: Micros): Window | undefined {
    return this.#sources.get(windowName(field, micros)) as Window | undefined;
  }

  sourceOf(field: string, window: Micros | undefined): Source {
    return window === undefined ? this.column(field) : this.#window(field, window);
  }

  typeOf(field: string): ColumnType {
    return this.column(field).type;
  }

  watchedBy(rule: LiveRule): readonly string[] {
    if (this.groupBy) return [];
    const anchor = this.#anchorOf(rule);
    return rule.definition.match.filter(({ column }) => column !== anchor?.column).map(({ column }) => column);
  }

  /** The table's columns have other types. */
  retype(): void {
    for (const column of this.columns) Object.assign(column, this.#typeOf(column.field));
    this.#any.forgetIndex();
    for (const buckets of this.#anchored.values()) for (const bucket of buckets.values()) bucket.forgetIndex();
  }

  #typeOf(field: string): Pick<Column, 'type' | 'since'> {
    return { type: columnType(this.#types.types.get(field)), since: this.#types.since.get(field) ?? -1 };
  }

  /** The match column with the fewest values: it tells most entities apart. */
  #anchorOf({ definition: { match } }: LiveRule): Anchor | undefined {
    if (this.groupBy) return undefined;
    return match.reduce<MatchColumn | undefined>((best, one) => (best && best.values.length <= one.values.length ? best : one), undefined);
  }

  #fieldsOf({ definition: { match } }: LiveRule, uses: RuleUses): ReadonlySet<string> {
    return new Set([...uses.fields, ...(this.groupBy ? [] : match.map(({ column }) => column))]);
  }

  #bucketsFor(anchor: Anchor | undefined): readonly Bucket[] {
    if (!anchor) return [this.#any];
    let buckets = this.#anchored.get(anchor.column);
    if (!buckets) this.#anchored.set(anchor.column, (buckets = new Map<string, Bucket>()));
    return anchor.values.map((value) => {
      let bucket = buckets.get(value);
      if (!bucket) buckets.set(value, (bucket = new Bucket(this)));
      return bucket;
    });
  }

  #window(field: string, micros: Micros): Window {
    const name = windowName(field, micros);
    const found = this.#sources.get(name);
    if (found) return found as Window;
    const column = this.column(field);
    const window: Window = { field, window: micros, index: this.windows.length, column, wanted: new Wanted() };
    this.windows.push(window);
    this.#sources.set(name, window);
    return window;
  }

  #absence(duration: Micros): Wanted {
    const found = this.absences.find((one) => one.duration === duration);
    if (found) return found.wanted;
    const wanted = new Wanted();
    this.absences.push({ duration, wanted });
    this.absences.sort((a, b) => a.duration - b.duration);
    return wanted;
  }
}

/** Names a stream within its table: empty for the primary key. */
export function groupingOf({ groupBy, match }: Pick<LiveRule['definition'], 'groupBy' | 'match'>): string {
  return groupBy ? JSON.stringify({ groupBy, match: Object.fromEntries(match.map(({ column, values }) => [column, values])) }) : '';
}

/** The text of a column of an entity's key; undefined when it is none of its columns. */
export function keyText(key: Readonly<Record<string, unknown>>, column: string): string | undefined {
  return Object.hasOwn(key, column) ? textOf(key[column]) : undefined;
}

/** A column's name cannot hold NUL. */
function windowName(field: string, micros: Micros): string {
  return `${field}\0${micros}`;
}

/** What `when` and `clear` look at together. */
function usesOfRule({ definition: { when, clear } }: LiveRule): RuleUses {
  const uses = usesOf(when);
  if (!clear) return uses;
  const more = usesOf(clear);
  return {
    edge: uses.edge,
    fields: [...new Set([...uses.fields, ...more.fields])],
    ago: [...uses.ago, ...more.ago],
    absences: [...new Set([...uses.absences, ...more.absences])],
  };
}
