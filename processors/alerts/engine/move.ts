import type { Seq } from '../../../pipeline/log/event-log.ts';
import type { ColumnType } from '../../../schemas/condition/column-type.ts';
import { equalKeys } from './comparable-key.ts';

/** A column, or the percentage change of one over a window, of the rules of a stream. */
export interface Source {
  readonly field: string;
  readonly window: number | undefined;
}

interface MoveParts {
  readonly source: Source;
  readonly knownTo: Seq;
  readonly changed: boolean;
  readonly from: number;
  readonly before: number;
  readonly to: number;
  readonly margin: number;
  /** For the keys by which equal values are found; a percentage has none. */
  readonly values?: { readonly type: ColumnType; readonly from: unknown; readonly to: unknown };
}

/** What has happened to a value of an entity. Numbers are `orderKey`s, NaN where there is none. */
export class Move {
  readonly source: Source;
  /** Rules that are newer than this did not know the value before. */
  readonly knownTo: Seq;
  readonly changed: boolean;
  readonly from: number;
  /** As the event itself tells the value of before. */
  readonly before: number;
  readonly to: number;
  /** By how much `from` and `to` may be off. */
  readonly margin: number;
  readonly #values: MoveParts['values'];

  constructor(parts: MoveParts) {
    this.source = parts.source;
    this.knownTo = parts.knownTo;
    this.changed = parts.changed;
    this.from = parts.from;
    this.before = parts.before;
    this.to = parts.to;
    this.margin = parts.margin;
    this.#values = parts.values;
  }

  get fromKeys(): readonly (number | string)[] {
    return this.#values ? equalKeys(this.#values.type, this.#values.from) : [];
  }

  get toKeys(): readonly (number | string)[] {
    return this.#values ? equalKeys(this.#values.type, this.#values.to) : [];
  }
}
