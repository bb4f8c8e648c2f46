import type { Seq } from '../../../pipeline/log/event-log.ts';
import { FieldIndex } from './field-index.ts';
import type { LiveRule } from './live-rule.ts';
import type { Move, Source } from './move.ts';
import { triggersOf, type TriggerTypes, type Triggers } from './triggers.ts';

type Visit = (rule: LiveRule) => void;

/** What a bucket asks of its stream. */
export interface BucketStream extends TriggerTypes {
  sourceOf(field: string, window: number | undefined): Source;
  /** Columns that decide whether the rule concerns an entity, but for the one by which the bucket is found. */
  watchedBy(rule: LiveRule): readonly string[];
  /** Up to so many rules of a bucket are all looked at: an index would cost more. */
  readonly fewRules: number;
}

interface Index {
  readonly fields: Map<Source, FieldIndex>;
  readonly always: Set<LiveRule>;
  readonly timed: Set<LiveRule>;
}

/** Rules that concern the same entities, in the order in which they came. */
export class Bucket {
  readonly #stream: BucketStream;
  #rules: LiveRule[] = [];
  #gone = 0;
  /** Undefined while there are few rules, or since a column has changed its type. */
  #index: Index | undefined;

  constructor(stream: BucketStream) {
    this.#stream = stream;
  }

  get size(): number {
    return this.#rules.length - this.#gone;
  }

  /** Rules come in the order of their sequences. */
  add(rule: LiveRule): void {
    this.#rules.push(rule);
    if (this.#index) this.#enter(this.#index, rule);
  }

  /** The rule is `gone`. */
  remove(rule: LiveRule): void {
    if (this.#index) {
      const triggers = this.#triggersOf(rule);
      this.#index.always.delete(rule);
      this.#index.timed.delete(rule);
      for (const trigger of triggers.fields) {
        this.#index.fields.get(this.#stream.sourceOf(trigger.field, trigger.window))?.remove(trigger, rule);
      }
    }
    if (++this.#gone * 2 <= this.#rules.length) return;
    this.#rules = this.#rules.filter(({ gone }) => !gone);
    this.#gone = 0;
    if (this.#rules.length <= this.#stream.fewRules) this.#index = undefined;
  }

  /** A column has another type: values and constants have another order. */
  forgetIndex(): void {
    this.#index = undefined;
  }

  /** Rules that an event of an entity can change, whatever its values are. */
  visitAlways(visit: Visit): void {
    if (this.#rules.length > this.#stream.fewRules) this.#made.always.forEach(visit);
  }

  /** Rules that may change when nothing comes for some time. */
  visitTimed(visit: Visit): void {
    if (this.#rules.length > this.#stream.fewRules) this.#made.timed.forEach(visit);
    else this.#visitFrom(0, visit);
  }

  /**
   * Rules that changes of values can change.
   * @param newerThan rules newer than this have not known before whether they concern the entity at all
   */
  visitMoved(moves: readonly Move[], newerThan: Seq, visit: Visit): void {
    if (this.#rules.length <= this.#stream.fewRules) {
      this.#visitFrom(0, visit);
      return;
    }
    const { fields } = this.#made;
    let from = this.#rules.length;
    const newest = this.#rules.at(-1)!.seq;
    for (const move of moves) {
      const field = fields.get(move.source);
      if (!field) continue;
      const known = Math.min(move.knownTo, newerThan);
      if (newest > known) {
        const first = this.#firstAfter(known);
        if (this.#rules.length - first <= field.countTrue(move)) from = Math.min(from, first);
        else field.visitTrue(move, visit);
      }
      // What was not known to any rule has no way to come from.
      if (move.changed && known >= 0) field.visitMoved(move, visit);
    }
    this.#visitFrom(from, visit);
  }

  #visitFrom(from: number, visit: Visit): void {
    for (let i = from; i < this.#rules.length; i++) visit(this.#rules[i]!);
  }

  #firstAfter(seq: Seq): number {
    let [low, high] = [0, this.#rules.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#rules[middle]!.seq <= seq) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  get #made(): Index {
    if (this.#index) return this.#index;
    this.#index = { fields: new Map(), always: new Set(), timed: new Set() };
    for (const rule of this.#rules) {
      if (!rule.gone) this.#enter(this.#index, rule);
    }
    return this.#index;
  }

  #enter({ fields, always, timed }: Index, rule: LiveRule): void {
    const triggers = this.#triggersOf(rule);
    if (triggers.always) always.add(rule);
    if (rule.timed) timed.add(rule);
    for (const trigger of triggers.fields) {
      const source = this.#stream.sourceOf(trigger.field, trigger.window);
      let field = fields.get(source);
      if (!field) fields.set(source, (field = new FieldIndex()));
      field.add(trigger, rule);
    }
  }

  #triggersOf(rule: LiveRule): Triggers {
    return triggersOf(rule.definition, this.#stream, this.#stream.watchedBy(rule));
  }
}
