import type { LiveRule } from './live-rule.ts';
import { Thresholds } from './thresholds.ts';
import type { Trigger } from './triggers.ts';
import type { Move } from './move.ts';

type Visit = (rule: LiveRule) => void;

/** The rules of a bucket that look at one value, by what has to happen to it. */
export class FieldIndex {
  readonly #up = new Thresholds();
  readonly #down = new Thresholds();
  readonly #cross = new Thresholds();
  readonly #equal = new Map<number | string, LiveRule[]>();
  readonly #change: LiveRule[] = [];

  add({ list, key }: Trigger, rule: LiveRule): void {
    switch (list) {
      case 'up':
        return this.#up.add(Number(key), rule);
      case 'down':
        return this.#down.add(Number(key), rule);
      case 'cross':
        return this.#cross.add(Number(key), rule);
      case 'change':
        return void this.#change.push(rule);
      case 'equal': {
        const rules = this.#equal.get(key);
        if (rules) rules.push(rule);
        else this.#equal.set(key, [rule]);
      }
    }
  }

  /** The rule has gone; what it had here is left out by and by. */
  remove({ list, key }: Trigger, rule: LiveRule): void {
    switch (list) {
      case 'up':
        return this.#up.noteGone();
      case 'down':
        return this.#down.noteGone();
      case 'cross':
        return this.#cross.noteGone();
      case 'change':
        return drop(this.#change, rule);
      case 'equal': {
        const rules = this.#equal.get(key);
        if (!rules) return;
        drop(rules, rule);
        if (rules.length === 0) this.#equal.delete(key);
      }
    }
  }

  /** Rules of which a leaf may have changed with the value. */
  visitMoved(move: Move, visit: Visit): void {
    this.#change.forEach(visit);
    if (this.#equal.size > 0) {
      for (const key of move.fromKeys) this.#equal.get(key)?.forEach(visit);
      for (const key of move.toKeys) this.#equal.get(key)?.forEach(visit);
    }
    const { to } = move;
    if (Number.isNaN(to)) return;
    if (Number.isNaN(move.from)) this.#visitReached(move, visit);
    else {
      const [low, high] = [Math.min(move.from, to) - move.margin, Math.max(move.from, to) + move.margin];
      this.#up.visit(low, high, visit);
      this.#down.visit(low, high, visit);
    }
    this.#visitCrossed(move, visit);
  }

  /** Rules of which a leaf may hold with the value as it is now, whatever it was. */
  visitTrue(move: Move, visit: Visit): void {
    this.#change.forEach(visit);
    if (this.#equal.size > 0) for (const key of move.toKeys) this.#equal.get(key)?.forEach(visit);
    if (Number.isNaN(move.to)) return;
    this.#visitReached(move, visit);
    this.#visitCrossed(move, visit);
  }

  /** How many rules `visitTrue` would visit, roughly. */
  countTrue(move: Move): number {
    const { to, margin } = move;
    let count = this.#change.length;
    if (this.#equal.size > 0) for (const key of move.toKeys) count += this.#equal.get(key)?.length ?? 0;
    return Number.isNaN(to) ? count : count + this.#up.count(-Infinity, to + margin) + this.#down.count(to - margin, Infinity);
  }

  #visitReached({ to, margin }: Move, visit: Visit): void {
    this.#up.visit(-Infinity, to + margin, visit);
    this.#down.visit(to - margin, Infinity, visit);
  }

  /** Nothing is crossed from a value that is not known. */
  #visitCrossed({ from, before, to }: Move, visit: Visit): void {
    if (this.#cross.size === 0) return;
    let [low, high] = [Infinity, -Infinity];
    for (const start of [from, before]) {
      if (Number.isNaN(start)) continue;
      low = Math.min(low, start, to);
      high = Math.max(high, start, to);
    }
    if (low <= high) this.#cross.visit(low, high, visit);
  }
}

function drop(rules: LiveRule[], rule: LiveRule): void {
  const at = rules.indexOf(rule);
  if (at < 0) return;
  rules[at] = rules.at(-1)!;
  rules.pop();
}
