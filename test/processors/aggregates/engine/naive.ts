import type { NewEvent } from '../../../../pipeline/log/event-log.ts';
import type { Definition } from '../../../../processors/aggregates/model.ts';
import { rowEvent, type Row } from '../../../support/row-events.ts';

export interface Key {
  readonly id: number;
  readonly name: string;
}

/** A value as an event has it, and as it counts; undefined: it does not. */
export interface Price {
  readonly raw: unknown;
  readonly text: string | undefined;
}

/** One step of a history of `public.trades (id, name, chain, price, traded_at)`. */
export type Step =
  | { readonly op: 'delete'; readonly key: Key }
  | { readonly op: 'truncate' }
  | {
      readonly op: 'insert' | 'update' | 'read';
      readonly key: Key;
      /** The key before, if an update changes it. */
      readonly from: Key | undefined;
      readonly chain: string | null;
      readonly price: Price;
      /** Seconds after the start; null: no time. */
      readonly second: number | null;
      readonly unchanged: readonly ('chain' | 'price')[];
    };

interface Observation {
  readonly group: string;
  /** Microseconds. */
  readonly at: number;
  readonly order: Key;
  readonly text: string;
}

export interface NaiveWindow {
  readonly name: string;
  readonly count: number;
  readonly sum: bigint;
  readonly min: string;
  readonly max: string;
  readonly open: string;
  readonly close: string;
  readonly revision: number;
  readonly values: readonly bigint[];
  /** All that is in it, to see whether it has changed. */
  readonly print: string;
}

/** Milliseconds since 1970 of a second after the start. */
const millis = (second: number): number => Math.round(Date.UTC(2026, 10, 22) + second * 1_000);
const timeText = (second: number): string => new Date(millis(second)).toISOString();

/** The step as an event of the log; `n`: its sequence; `logSecond`: when it was committed, after the start. */
export function toEvent(step: Step, n: number, logSecond: number): NewEvent {
  const common = { table: 'trades', at: timeText(logSecond) };
  if (step.op === 'truncate') return rowEvent(n, 'truncate', common);
  const key: Row = { ...step.key };
  if (step.op === 'delete') return rowEvent(n, 'delete', { ...common, key, before: key });
  const { chain, price, second, unchanged, from } = step;
  const after: Record<string, unknown> = { ...key };
  if (!unchanged.includes('chain')) after['chain'] = chain;
  if (!unchanged.includes('price')) after['price'] = price.raw;
  after['traded_at'] = second === null ? null : timeText(second);
  const moved = step.op === 'update' && from;
  return rowEvent(n, step.op, {
    ...common,
    key,
    after,
    ...(moved && { before: { ...from } }),
    ...(unchanged.length > 0 && { unchanged }),
  });
}

/** Keeps all observations, and makes every window anew from them after each step: slow, and easy to believe. */
export class Naive {
  readonly #definition: Definition;
  #rows = new Map<string, Observation>();
  readonly #observed: Observation[] = [];
  #windows = new Map<string, NaiveWindow>();
  /** Microseconds. */
  #logTime = 0;

  constructor(definition: Definition) {
    this.#definition = definition;
  }

  get windows(): ReadonlyMap<string, NaiveWindow> {
    return this.#windows;
  }

  get rows(): number {
    return this.#rows.size;
  }

  /** @param logSecond never falls */
  apply(step: Step, seq: number, logSecond: number): void {
    this.#logTime = millis(logSecond) * 1_000;
    if (this.#definition.of === 'rows') this.#applyToRows(step);
    else if (step.op === 'insert' || step.op === 'update') {
      const observation = this.#observe(step, undefined, { id: seq, name: '' });
      if (observation) this.#observed.push(observation);
    }
    const before = this.#windows;
    this.#windows = new Map();
    for (const { micros, text } of this.#definition.levels) this.#makeWindows(text, micros, seq, before);
  }

  /** Is the window kept now? */
  isKept(name: string): boolean {
    const [size, index] = name.split(':', 2);
    const { micros, keep } = this.#definition.levels.find(({ text }) => text === size)!;
    return Number(index) * micros + keep > this.#logTime;
  }

  #applyToRows(step: Step): void {
    if (step.op === 'truncate') {
      this.#rows = new Map();
      return;
    }
    const name = nameOf(step.key);
    if (step.op === 'delete') {
      this.#rows.delete(name);
      return;
    }
    const from = step.op === 'update' && step.from ? nameOf(step.from) : name;
    const next = this.#observe(step, this.#rows.get(from), step.key);
    this.#rows.delete(from);
    this.#rows.delete(name);
    if (next) this.#rows.set(name, next);
  }

  #observe(step: Exclude<Step, { op: 'delete' | 'truncate' }>, before: Observation | undefined, order: Key): Observation | undefined {
    const { unchanged, second } = step;
    if (second === null || (unchanged.length > 0 && !before)) return undefined;
    const text = unchanged.includes('price') ? before!.text : step.price.text;
    const group = unchanged.includes('chain') ? before!.group : JSON.stringify([step.chain]);
    const at = millis(second) * 1_000;
    const kept = this.#definition.levels.some(({ text: size, micros }) => this.isKept(`${size}:${Math.floor(at / micros)}`));
    return text === undefined || !kept ? undefined : { group, at, order, text };
  }

  #makeWindows(level: string, micros: number, seq: number, before: ReadonlyMap<string, NaiveWindow>): void {
    const parts = new Map<string, Observation[]>();
    for (const one of [...this.#rows.values(), ...this.#observed]) {
      const name = `${level}:${Math.floor(one.at / micros)}:${one.group}`;
      parts.set(name, [...(parts.get(name) ?? []), one]);
    }
    for (const [name, list] of parts) {
      const made = { name, ...summaryOf(list), revision: seq };
      const old = before.get(name);
      // Only what somebody contributes can change a window; the same of another row does, too.
      this.#windows.set(name, old && old.print === made.print ? { ...made, revision: old.revision } : made);
    }
  }
}

function summaryOf(list: readonly Observation[]) {
  const byTime = list.toSorted((a, b) => a.at - b.at || compareKeys(a.order, b.order));
  const byValue = list.map(({ text }) => text).toSorted(compareTexts);
  return {
    count: list.length,
    sum: list.reduce((sum, { text }) => sum + scaled(text), 0n),
    min: byValue[0]!,
    max: byValue.at(-1)!,
    open: byTime[0]!.text,
    close: byTime.at(-1)!.text,
    values: byValue.map(scaled),
    print: JSON.stringify(byTime),
  };
}

/** A decimal as a whole number of 1e-60. */
export function scaled(text: string): bigint {
  const [mantissa = '', exponent = '0'] = text.split('e');
  const [whole = '', fraction = ''] = mantissa.split('.');
  return BigInt(whole + fraction) * 10n ** BigInt(60 - fraction.length + Number(exponent));
}

function compareTexts(a: string, b: string): number {
  const [x, y] = [scaled(a), scaled(b)];
  return x < y ? -1 : x > y ? 1 : a.length - b.length || (a < b ? -1 : a > b ? 1 : 0);
}

function compareKeys(a: Key, b: Key): number {
  // Text in UTF-8 sorts by code point.
  return a.id - b.id || Buffer.compare(Buffer.from(a.name), Buffer.from(b.name));
}

function nameOf({ id, name }: Key): string {
  return JSON.stringify([id, name]);
}
