import type { LiveRule } from './live-rule.ts';

/**
 * Rules by a number, in its order. Additions gather in a short unsorted tail that is merged in when it has grown; a million
 * additions before the first question are sorted once. Rules that are gone are skipped, and left out by and by.
 *
 * The numbers are doubles near the exact thresholds. Rounding keeps the order, so a range with both of its ends is never too small.
 */
export class Thresholds {
  #keys = new Float64Array(0);
  #rules: LiveRule[] = [];
  /** So many from the start are in order. */
  #sorted = 0;
  #gone = 0;

  get size(): number {
    return this.#rules.length;
  }

  add(key: number, rule: LiveRule): void {
    const at = this.#rules.length;
    if (at === this.#keys.length) this.#resize(Math.max(4, at + (at >> 1)));
    this.#keys[at] = key;
    this.#rules.push(rule);
  }

  /** One of the rules here has gone. */
  noteGone(): void {
    if (++this.#gone * 2 > this.#rules.length + 16) this.#sort(true);
  }

  /** How many there are from `low` to `high`, roughly: the tail counts as if all of it were. */
  count(low: number, high: number): number {
    this.#settle();
    return Math.max(0, this.#after(high) - this.#before(low)) + this.#rules.length - this.#sorted;
  }

  /** Calls back for each rule from `low` to `high`, both included. */
  visit(low: number, high: number, visit: (rule: LiveRule) => void): void {
    this.#settle();
    const end = this.#after(high);
    for (let i = this.#before(low); i < end; i++) visit(this.#rules[i]!);
    for (let i = this.#sorted; i < this.#rules.length; i++) {
      const key = this.#keys[i]!;
      if (key >= low && key <= high) visit(this.#rules[i]!);
    }
  }

  #settle(): void {
    const tail = this.#rules.length - this.#sorted;
    if (tail > Math.max(32, Math.min(2_048, this.#sorted >> 6))) this.#sort(false);
  }

  /** The first of the ordered ones that is not below `key`. */
  #before(key: number): number {
    let [low, high] = [0, this.#sorted];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#keys[middle]! < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The first of the ordered ones that is above `key`. */
  #after(key: number): number {
    let [low, high] = [0, this.#sorted];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#keys[middle]! <= key) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Sorts the tail and merges it in. `clean`: without the rules that have gone. */
  #sort(clean: boolean): void {
    const [keys, rules, sorted] = [this.#keys, this.#rules, this.#sorted];
    const tail: number[] = [];
    for (let i = sorted; i < rules.length; i++) tail.push(i);
    tail.sort((a, b) => keys[a]! - keys[b]!);
    const mergedKeys = new Float64Array(rules.length);
    const merged: LiveRule[] = [];
    const take = (i: number): void => {
      const rule = rules[i]!;
      if (clean && rule.gone) return;
      mergedKeys[merged.length] = keys[i]!;
      merged.push(rule);
    };
    let next = 0;
    for (const i of tail) {
      while (next < sorted && keys[next]! <= keys[i]!) take(next++);
      take(i);
    }
    while (next < sorted) take(next++);
    this.#keys = mergedKeys;
    this.#rules = merged;
    this.#sorted = merged.length;
    if (clean) this.#gone = 0;
  }

  #resize(capacity: number): void {
    const keys = new Float64Array(capacity);
    keys.set(this.#keys);
    this.#keys = keys;
  }
}
