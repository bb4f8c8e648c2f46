import { textOf } from '../../../schemas/filter.ts';
import { compileRule, usesOf, type RuleView, type Truth } from '../../../schemas/condition/evaluate.ts';
import type { Micros } from '../model.ts';
import type { Entity } from './entity.ts';
import type { Evaluation, LiveRule } from './live-rule.ts';
import { isKnown, type Previous } from './observe.ts';
import type { Column } from './stream.ts';
import type { TableColumns } from './table-columns.ts';

/** So many rules keep their conditions compiled. */
const mostCompiled = 50_000;

/** What a rule's conditions say of an entity. `out`: the row is none that the rule is for. */
export interface Verdict {
  readonly when: Truth;
  readonly clear: Truth;
  readonly out: boolean;
}

/** Evaluates conditions with what a rule knows: what has come since it was there. */
export class Judge implements RuleView {
  readonly #typesOf: (table: string) => TableColumns;
  #compiled: LiveRule[] = [];
  #rule: LiveRule | undefined;
  #entity: Entity | undefined;
  #previous: Previous | undefined;
  #now: Micros = 0;

  constructor(typesOf: (table: string) => TableColumns) {
    this.#typesOf = typesOf;
  }

  /** @param previous the values of before, when an event of the entity is being applied that can be an edge */
  judge(rule: LiveRule, entity: Entity, now: Micros, previous: Previous | undefined): Verdict {
    this.#rule = rule;
    this.#entity = entity;
    this.#now = now;
    this.#previous = previous;
    const matching = this.#matches(rule);
    if (matching === false) return { when: false, clear: true, out: true };
    const { when, clear } = this.#evaluation(rule);
    const holds = when(this);
    return { when: holds && matching === undefined ? undefined : holds, clear: clear?.(this), out: false };
  }

  /** Text of the first column that the rule's condition names; null when it names none, or its value is not known. */
  firstValue(rule: LiveRule, entity: Entity): string | null {
    const [field] = usesOf(rule.definition.when).fields;
    if (field === undefined) return null;
    this.#rule = rule;
    this.#entity = entity;
    const value = this.value(field);
    return value === undefined || value === null ? null : (textOf(value) ?? JSON.stringify(value));
  }

  /** Columns have other types. */
  forgetCompiled(): void {
    for (const rule of this.#compiled) rule.evaluation = undefined;
    this.#compiled = [];
  }

  readonly value = (field: string): unknown => {
    const column = this.#entity!.stream.knownColumn(field);
    return column && this.#isKnown(this.#entity!.seqs, column) ? this.#entity!.values[column.index] : undefined;
  };

  readonly previous = (field: string): unknown => {
    const previous = this.#previous;
    if (!previous) return undefined;
    if (previous.before && Object.hasOwn(previous.before, field)) return previous.before[field];
    const column = this.#entity!.stream.knownColumn(field);
    return column && this.#isKnown(previous.seqs, column) ? previous.values[column.index] : undefined;
  };

  ago(field: string, micros: Micros): unknown {
    const { stream, series } = this.#entity!;
    const window = stream.windowOf(field, micros);
    const sample = window && series?.[window.index]?.asOf(this.#now);
    return sample && sample.seq > this.#rule!.seq && sample.seq > window.column.since ? sample.value : undefined;
  }

  quiet(): Micros | undefined {
    const { seq, at } = this.#entity!;
    return seq > this.#rule!.seq ? this.#now - at : undefined;
  }

  #isKnown(seqs: Previous['seqs'], column: Column): boolean {
    return isKnown(seqs, column) && seqs[column.index]! > this.#rule!.seq;
  }

  #matches(rule: LiveRule): Truth {
    if (rule.stream.groupBy) return true;
    let truth: Truth = true;
    for (const { column, values } of rule.definition.match) {
      const value = this.value(column);
      if (value === undefined) truth = undefined;
      else {
        const text = textOf(value);
        if (text === undefined || !values.includes(text)) return false;
      }
    }
    return truth;
  }

  #evaluation(rule: LiveRule): Evaluation {
    if (rule.evaluation) return rule.evaluation;
    if (this.#compiled.length >= mostCompiled) this.forgetCompiled();
    const { when, clear, table } = rule.definition;
    const { types } = this.#typesOf(table);
    // Of a table that no schema event has told of, values say by themselves what they are.
    const columns = types.size > 0 ? types : undefined;
    rule.evaluation = { when: compileRule(when, columns), clear: clear && compileRule(clear, columns) };
    this.#compiled.push(rule);
    return rule.evaluation;
  }
}
