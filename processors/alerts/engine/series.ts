import type { Seq } from '../../../pipeline/log/event-log.ts';
import type { Micros } from '../model.ts';
import type { Timed } from './timers.ts';

/** A value that a column had from a moment on. */
export interface Sample {
  readonly seq: Seq;
  readonly at: Micros;
  readonly value: unknown;
}

interface Told {
  readonly percent: number;
  readonly margin: number;
  readonly seq: Seq;
  readonly seqNow: Seq;
}

/** So many of the newest samples are all kept. */
const exact = 4_096;
/** Of older ones, the last of each of so many parts of the window. */
const parts = 2_048;

/**
 * What a column of an entity was over a window of time: the value as of the window's length ago, and all that come after it.
 * Whether a sample is kept depends on it and on later ones alone, so a rule gets the same answer from a series that is older than it.
 */
export class Series<Owner> implements Timed {
  readonly owner: Owner;
  readonly window: Micros;
  due: Micros = Infinity;
  /** What rules were last told: the percentage and by how much it may be off, of which old and which present value. */
  told: Told = { percent: NaN, margin: 0, seq: -1, seqNow: -1 };
  readonly #old = new Deque();
  readonly #recent = new Deque();

  constructor(owner: Owner, window: Micros) {
    this.owner = owner;
    this.window = window;
  }

  /**
   * Adds a sample, newer than all others.
   * @param dropped is told of each sample that is no longer needed
   */
  push(sample: Sample, dropped: (sample: Sample) => void): void {
    this.#recent.push(sample);
    if (this.#recent.size <= exact) return;
    const oldest = this.#recent.shift()!;
    const last = this.#old.last;
    // Not the value as of a window ago: it is still asked for.
    const spare = last !== undefined && last.at > sample.at - this.window && this.#part(last) === this.#part(oldest);
    if (spare) dropped(this.#old.pop()!);
    this.#old.push(oldest);
  }

  /** Takes a sample as it was stored: after all that are older. */
  restore(sample: Sample): void {
    this.#recent.push(sample);
    if (this.#recent.size > exact) this.#old.push(this.#recent.shift()!);
  }

  /** Lets go of what is older than the value as of a window ago. */
  advance(now: Micros, dropped: (sample: Sample) => void): void {
    for (let second = this.#second; second && second.at <= now - this.window; second = this.#second) {
      dropped((this.#old.shift() ?? this.#recent.shift())!);
    }
  }

  /** The value as of a window ago, after `advance`. */
  asOf(now: Micros): Sample | undefined {
    const first = this.#old.first ?? this.#recent.first;
    return first && first.at <= now - this.window ? first : undefined;
  }

  /** When the next sample becomes the value as of a window ago. */
  next(now: Micros): Micros {
    const sample = this.asOf(now) ? this.#second : (this.#old.first ?? this.#recent.first);
    return sample ? sample.at + this.window : Infinity;
  }

  *samples(): Iterable<Sample> {
    yield* this.#old.items();
    yield* this.#recent.items();
  }

  get #second(): Sample | undefined {
    return this.#old.size > 1 ? this.#old.second : this.#old.size === 1 ? this.#recent.first : this.#recent.second;
  }

  #part({ at }: Sample): number {
    return Math.floor(at / (this.window / parts));
  }
}

/** Samples with both ends open. */
class Deque {
  #items: (Sample | undefined)[] = [];
  #start = 0;

  get size(): number {
    return this.#items.length - this.#start;
  }

  get first(): Sample | undefined {
    return this.#items[this.#start];
  }

  get second(): Sample | undefined {
    return this.#items[this.#start + 1];
  }

  get last(): Sample | undefined {
    return this.size > 0 ? this.#items.at(-1) : undefined;
  }

  push(sample: Sample): void {
    this.#items.push(sample);
  }

  pop(): Sample | undefined {
    return this.size > 0 ? this.#items.pop() : undefined;
  }

  shift(): Sample | undefined {
    if (this.size === 0) return undefined;
    const sample = this.#items[this.#start];
    this.#items[this.#start++] = undefined;
    if (this.#start * 2 > this.#items.length + 16) {
      this.#items = this.#items.slice(this.#start);
      this.#start = 0;
    }
    return sample;
  }

  *items(): Iterable<Sample> {
    for (let i = this.#start; i < this.#items.length; i++) yield this.#items[i]!;
  }
}
