import { compareDecimal } from '../../../schemas/decimal.ts';
import { parseUnits, printUnits, type Units } from '../../../schemas/decimal-sum.ts';
import type { Point } from '../model.ts';
import { bucketOf } from './buckets.ts';

/** A decimal as an event spells it, taken apart once for all the windows that it goes into. */
export class Value implements Units {
  readonly text: string;
  readonly units: number | bigint;
  readonly scale: number;
  /** The value itself, if doubles keep such values apart and in order; otherwise NaN. */
  readonly short: number;
  #canonical: string | undefined;
  #bucket: string | undefined;

  private constructor(text: string, { units, scale }: Units) {
    this.text = text;
    this.units = units;
    this.scale = scale;
    this.short = typeof units === 'number' && scale <= 22 ? units / 10 ** scale : NaN;
  }

  /** Undefined when the text is no finite decimal. */
  static of(text: string): Value | undefined {
    const units = parseUnits(text);
    return units && new Value(text, units);
  }

  get canonical(): string {
    return (this.#canonical ??= printUnits(this));
  }

  get bucket(): string {
    return (this.#bucket ??= bucketOf(this.canonical));
  }
}

/** By value; spellings of the same value by length, then as text, so that an extreme does not depend on the order of events. */
export function compareValues(a: Value, b: Value): number {
  const short = a.short - b.short;
  const order = Number.isNaN(short) ? (compareDecimal(a.text, b.text) ?? 0) : short;
  return order || a.text.length - b.text.length || (a.text < b.text ? -1 : a.text > b.text ? 1 : 0);
}

/** A point in memory. */
export interface Place extends Point {
  readonly decimal: Value;
}

/** By time, then by id. */
export function comparePlaces(a: Place, b: Place): number {
  return a.at - b.at || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
}

/** @throws Error for a value that this engine cannot have stored */
export function toPlace({ at, id, value }: Point): Place {
  return { at, id, value, decimal: storedValue(value) };
}

/** @throws Error for a value that this engine cannot have stored */
export function storedValue(text: string): Value {
  const value = Value.of(text);
  if (!value) throw new Error(`the store holds ${JSON.stringify(text)} where a decimal is expected`);
  return value;
}
