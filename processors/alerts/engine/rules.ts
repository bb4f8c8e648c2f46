import type { Seq } from '../../../pipeline/log/event-log.ts';
import { HeadwaterError } from '../../../pipeline/runtime/errors.ts';
import type { ResolveReason } from '../model.ts';
import { Interned } from './interned.ts';
import { LiveRule, rowOf, type RuleDefinition } from './live-rule.ts';
import type { RowOp, RowRecord } from './log-record.ts';
import { defineRule, readRow } from './rule-row.ts';
import type { RuleRow, SavedRule } from './saved.ts';
import { groupingOf, Stream } from './stream.ts';
import type { TableColumns } from './table-columns.ts';

/** What an event does to a rule. */
export interface RuleChange {
  readonly id: string;
  /** The revision that is no longer in force. */
  readonly old: LiveRule | undefined;
  /** Why what it has going on ends. */
  readonly reason: Extract<ResolveReason, 'rule_edited' | 'rule_disabled' | 'rule_deleted'>;
  /** Undefined: the rule is no more. */
  readonly saved: SavedRule | undefined;
  /** Carries it out, once the old revision has nothing going on. Returns the stream that no rule needs any more. */
  readonly apply: () => Stream | undefined;
}

/** The rules that there are, and the streams of those in force. */
export class Rules {
  readonly #columnsOf: (table: string) => TableColumns;
  readonly #fewRules: number;
  readonly #interned = new Interned();
  readonly #live = new Map<string, LiveRule>();
  /** Disabled ones: an event may leave out what has not changed since. */
  readonly #disabled = new Map<string, SavedRule>();
  /** Table → grouping → stream. */
  readonly #streams = new Map<string, Map<string, Stream>>();
  readonly #lists = new Map<string, readonly Stream[]>();
  #loaded: LiveRule[] = [];

  constructor(columnsOf: (table: string) => TableColumns, fewRules: number) {
    this.#fewRules = fewRules;
    this.#columnsOf = columnsOf;
  }

  /** In force. */
  get size(): number {
    return this.#live.size;
  }

  get(id: string): LiveRule | undefined {
    return this.#live.get(id);
  }

  /** The streams of a table. */
  of(table: string): readonly Stream[] {
    let list = this.#lists.get(table);
    if (!list) {
      const streams = this.#streams.get(table);
      if (!streams) return [];
      this.#lists.set(table, (list = [...streams.values()]));
    }
    return list;
  }

  *streams(): Iterable<Stream> {
    for (const streams of this.#streams.values()) yield* streams.values();
  }

  stream(table: string, grouping: string): Stream | undefined {
    return this.#streams.get(table)?.get(grouping);
  }

  /** Takes a rule as it was stored. Call `settle` after the last. @throws HeadwaterError `bad_rule` */
  load(saved: SavedRule): void {
    if (!saved.row.enabled) {
      this.#disabled.set(saved.id, saved);
      return;
    }
    const definition = defineRule(saved.row, this.#interned);
    const rule = new LiveRule(definition, saved.seq, this.#streamFor(definition));
    this.#live.set(saved.id, rule);
    this.#loaded.push(rule);
  }

  settle(): void {
    if (this.#loaded.length === 0) return;
    for (const rule of this.#loaded.sort((a, b) => a.seq - b.seq)) rule.stream.add(rule);
    this.#loaded = [];
  }

  /** What an event of the table of rules changes; nothing has changed yet. @throws HeadwaterError `bad_rule`, `bad_event` */
  read(seq: Seq, op: RowOp, { key, after, before }: RowRecord): readonly RuleChange[] {
    if (op === 'truncate') return [...this.#live.keys(), ...this.#disabled.keys()].sort().map((id) => this.#removal(id));
    const oldId = before?.['id'] ?? (op === 'delete' ? key?.['id'] : undefined);
    if (op === 'delete' || !after) {
      if (typeof oldId !== 'string') throw new HeadwaterError('bad_event', 'the event of a rule names none');
      return this.#has(oldId) ? [this.#removal(oldId)] : [];
    }
    const changes = this.#revision(seq, after);
    const moved = typeof oldId === 'string' && oldId !== after['id'] && this.#has(oldId);
    return moved ? [this.#removal(oldId), ...changes] : changes;
  }

  #revision(seq: Seq, after: Readonly<Record<string, unknown>>): readonly RuleChange[] {
    const id = String(after['id']);
    const old = this.#live.get(id);
    const known = old ? rowOf(old.definition) : this.#disabled.get(id)?.row;
    if (known && known.revision === after['revision']) return [];
    if (after['enabled'] === false) return [this.#disabling(seq, id, old, after, known)];
    const row = readRow(after, known);
    const definition = defineRule(row, this.#interned);
    return [{ id, old, reason: 'rule_edited', saved: { id, seq, row }, apply: () => this.#replace(id, old, definition, seq) }];
  }

  /** A rule can always be disabled, whatever else there is in it. */
  #disabling(
    seq: Seq,
    id: string,
    old: LiveRule | undefined,
    after: Readonly<Record<string, unknown>>,
    known: RuleRow | undefined,
  ): RuleChange {
    let saved: SavedRule | undefined;
    try {
      saved = { id, seq, row: readRow(after, known) };
    } catch {
      // Enabled again, it will have to come with all its columns.
    }
    const apply = (): Stream | undefined => {
      const forgotten = this.#replace(id, old, undefined, seq);
      if (saved) this.#disabled.set(id, saved);
      return forgotten;
    };
    return { id, old, reason: 'rule_disabled', saved, apply };
  }

  #removal(id: string): RuleChange {
    const old = this.#live.get(id);
    return { id, old, reason: 'rule_deleted', saved: undefined, apply: () => this.#replace(id, old, undefined, 0) };
  }

  #has(id: string): boolean {
    return this.#live.has(id) || this.#disabled.has(id);
  }

  #replace(id: string, old: LiveRule | undefined, definition: RuleDefinition | undefined, seq: Seq): Stream | undefined {
    this.#disabled.delete(id);
    this.#live.delete(id);
    if (old) {
      old.gone = true;
      old.stream.remove(old);
    }
    if (definition) {
      const rule = new LiveRule(definition, seq, this.#streamFor(definition));
      this.#live.set(id, rule);
      rule.stream.add(rule);
    }
    if (!old || old.stream.rules > 0) return undefined;
    const { table, grouping } = old.stream;
    const streams = this.#streams.get(table)!;
    streams.delete(grouping);
    if (streams.size === 0) this.#streams.delete(table);
    this.#lists.delete(table);
    return old.stream;
  }

  #streamFor(definition: RuleDefinition): Stream {
    const grouping = groupingOf(definition);
    let streams = this.#streams.get(definition.table);
    if (!streams) this.#streams.set(definition.table, (streams = new Map<string, Stream>()));
    let stream = streams.get(grouping);
    if (!stream) {
      stream = new Stream(definition, this.#columnsOf(definition.table), this.#fewRules);
      streams.set(grouping, stream);
      this.#lists.delete(definition.table);
    }
    return stream;
  }
}
