import type { Seq } from '../../../pipeline/log/event-log.ts';
import type { Definition, Micros } from '../model.ts';
import type { Batch } from './batch.ts';
import { Levels } from './levels.ts';
import { Memory, type Entry, type RowState } from './memory.ts';
import type { Window } from './window.ts';

/** What applying and preparing share. */
export class State {
  readonly definition: Definition;
  readonly levels: Levels;
  readonly memory: Memory;
  /** The largest time of an event so far. */
  logTime: Micros = 0;
  /** By level, the oldest window that was kept when this was last noted, see `EngineMeta.oldest`. */
  #oldest: readonly number[] = [];
  /** Counts the preparations. */
  generation = 0;
  committed: Seq = 0;
  /** Batches that were not in the store when the last preparation began, or came since, oldest first; only the last one may be open. */
  batches: Batch[] = [];
  /** A truncate was not in the store when the last preparation began, or came since: what is not in memory is not there at all. */
  blank = false;
  /** Windows whose extremes are to be looked for. */
  #lost: Window[] = [];

  constructor(definition: Definition, mostRecords: number) {
    this.definition = definition;
    this.levels = new Levels(definition);
    this.memory = new Memory(this.levels.count, mostRecords);
  }

  reset(): void {
    this.memory.clear();
    this.batches = [];
    this.blank = false;
    this.#lost = [];
    this.logTime = 0;
    this.#oldest = [];
    this.committed = 0;
  }

  /** @param oldest as it was stored */
  restore(logTime: Micros, oldest: readonly number[]): void {
    this.logTime = logTime;
    this.#oldest = oldest;
  }

  /** Notes the oldest window of each level that is kept, and says which: it never falls, though windows may be kept for longer than before. */
  noteOldest(): readonly number[] {
    const { logTime, levels } = this;
    return (this.#oldest = levels.oldestAt(logTime).map((index, level) => Math.max(index, this.#oldest[level] ?? -Infinity)));
  }

  isExpired(level: number, index: number): boolean {
    return index < (this.#oldest[level] ?? -Infinity) || this.levels.isExpired(level, index, this.logTime);
  }

  /** Everything up to this sequence is in the store. */
  commit(seq: Seq): void {
    this.committed = Math.max(this.committed, seq);
  }

  /** Begins a preparation. Up to the next one nothing leaves memory. */
  prepare(events: number): void {
    this.settle();
    this.generation++;
    // Not as soon as they are committed: an answer that was read before may still be on its way.
    while (this.batches[0]?.sealed && this.batches[0].last <= this.committed) this.batches.shift();
    this.blank = this.batches.some(({ cleared }) => cleared !== undefined);
    this.memory.evict(this.committed);
    this.memory.grew(events);
  }

  /** Everything is gone, by an event of the last batch. */
  clear(seq: Seq): void {
    this.memory.clear();
    this.#lost = [];
    this.blank = true;
    // Nothing is left that there could be a part of.
    this.#oldest = [];
    this.batches.at(-1)!.clear(seq);
  }

  /** What is known of a row; `known` is false when the store is to be asked. */
  row(row: string): RowState {
    const state = this.memory.row(row);
    state.used = this.generation;
    if (!state.known && this.blank) state.known = true;
    return state;
  }

  /** The windows of a contribution by level, as far as they are kept; `known` is false when the store is to be asked. */
  windowsOf({ group: text, at }: Entry): (Window | undefined)[] {
    const { memory, levels } = this;
    const group = memory.group(text);
    const windows: (Window | undefined)[] = [];
    for (let level = 0; level < levels.count; level++) {
      const index = levels.indexOf(level, at);
      windows.push(this.isExpired(level, index) ? undefined : this.#known(memory.window(group, level, index)));
    }
    return windows;
  }

  /** The windows that a window consists of, as far as they are in memory. */
  partsOf({ level, group, index }: Window): Window[] {
    const ratio = this.levels.ratio(level);
    const parts: Window[] = [];
    const windows = group.levels[level - 1]!;
    for (let part = index * ratio; part < (index + 1) * ratio; part++) {
      const window = windows.get(part);
      if (window) parts.push(window);
    }
    return parts;
  }

  lose(window: Window): void {
    this.#lost.push(window);
  }

  /** Looks for the extremes that have gone, once for all the events that took them: shorter windows first. */
  settle(): void {
    if (this.#lost.length === 0) return;
    for (const window of this.#lost.sort((a, b) => a.level - b.level)) {
      if (!window.lost) continue;
      if (window.level === 0) window.extremesFromPoints(window.points?.values() ?? []);
      else window.extremesFromParts(this.partsOf(window).filter(({ count }) => count > 0));
    }
    this.#lost = [];
  }

  #known(window: Window): Window {
    if (!window.known && this.blank) {
      window.known = true;
      if (window.level === 0) window.points = new Map();
      if (this.definition.percentiles) window.values = new Map();
    }
    return window;
  }
}
