import type { Seq } from '../../../pipeline/log/event-log.ts';
import type { Place } from './value.ts';
import { Window } from './window.ts';

/** The windows in memory of one group, by level and index. */
export interface Group {
  readonly text: string;
  readonly levels: readonly Map<number, Window>[];
  /**
   * By level, the largest index of a window that there may be, in the store or here: a later one need not be asked for. Undefined until the store
   * has been asked.
   */
  newest: number[] | undefined;
}

/** What a row or, of `changes`, an event contributes. It is given to the store as it is. */
export interface Entry extends Place {
  readonly group: string;
  /** Empty of `changes`. */
  readonly row: string;
  /** Its windows by level, as far as they are kept, while the batch that needs them is applied. */
  windows: readonly (Window | undefined)[] | undefined;
}

/** What is known of a row; without `entry` that it contributes nothing. */
export interface RowState {
  entry: Entry | undefined;
  known: boolean;
  changed: Seq;
  used: number;
}

/** What the engine has in memory of what the store holds. What is committed can leave it again. */
export class Memory {
  readonly #levels: number;
  readonly #most: number;
  readonly #groups = new Map<string, Group>();
  readonly #rows = new Map<string, RowState>();
  /** At least how much there may be more than when it was last counted. */
  #grown = 0;

  constructor(levels: number, most: number) {
    this.#levels = levels;
    this.#most = most;
  }

  row(row: string): RowState {
    let state = this.#rows.get(row);
    if (!state) {
      this.#rows.set(row, (state = { entry: undefined, known: false, changed: 0, used: 0 }));
      this.#grown++;
    }
    return state;
  }

  group(text: string): Group {
    let group = this.#groups.get(text);
    if (!group) {
      group = { text, levels: Array.from({ length: this.#levels }, () => new Map<number, Window>()), newest: undefined };
      this.#groups.set(text, group);
    }
    return group;
  }

  /** A window, made if it is not there. */
  window(group: Group, level: number, index: number): Window {
    const windows = group.levels[level]!;
    let window = windows.get(index);
    if (!window) {
      windows.set(index, (window = new Window(level, group, index)));
      if (group.newest && index > group.newest[level]!) {
        group.newest[level] = index;
        window.known = true;
      }
      this.#grown++;
    }
    return window;
  }

  /** So many points or values have come or may come besides. */
  grew(by: number): void {
    this.#grown += by;
  }

  clear(): void {
    this.#groups.clear();
    this.#rows.clear();
    this.#grown = 0;
  }

  /** Forgets what has not been needed for longest, as far as it is committed, when there may be more than there should. */
  evict(committed: Seq): void {
    if (this.#grown <= this.#most / 8) return;
    this.#grown = 0;
    const weights = new Map<number, number>();
    let size = 0;
    const count = (used: number, weight: number): void => {
      size += weight;
      weights.set(used, (weights.get(used) ?? 0) + weight);
    };
    for (const { used } of this.#rows.values()) count(used, 1);
    for (const group of this.#groups.values())
      for (const windows of group.levels) for (const window of windows.values()) count(window.used, window.weight);
    if (size > this.#most) this.#forget(cutoff(weights, size - this.#most * 0.75), committed);
  }

  /** Forgets what was last needed by this preparation or one before. */
  #forget(upTo: number, committed: Seq): void {
    for (const [row, { used, changed }] of this.#rows) if (used <= upTo && changed <= committed) this.#rows.delete(row);
    for (const [text, { levels }] of this.#groups) {
      for (const windows of levels)
        for (const [index, { used, changed, change }] of windows)
          if (used <= upTo && changed <= committed && !change) windows.delete(index);
      if (levels.every(({ size }) => size === 0)) this.#groups.delete(text);
    }
  }
}

/** Up to which preparation everything must go, so that this much goes. */
function cutoff(weights: ReadonlyMap<number, number>, toGo: number): number {
  let left = toGo;
  for (const used of [...weights.keys()].sort((a, b) => a - b)) {
    left -= weights.get(used)!;
    if (left <= 0) return used;
  }
  return Infinity;
}
