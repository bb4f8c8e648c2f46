import type { MatchColumn } from '../model.ts';
import type { Interning } from './rule-row.ts';

/** So many of each are remembered; then it begins anew, and some are there twice. */
const most = 100_000;

/** Remembers names and matches of rules, so that equal ones are there once. */
export class Interned implements Interning {
  readonly #texts = new Map<string, string>();
  readonly #matches = new Map<string, readonly MatchColumn[]>();

  text(value: string): string {
    return once(this.#texts, value, value);
  }

  match(value: readonly MatchColumn[]): readonly MatchColumn[] {
    return once(this.#matches, JSON.stringify(value), value);
  }
}

function once<T>(known: Map<string, T>, key: string, value: T): T {
  const found = known.get(key);
  if (found !== undefined) return found;
  if (known.size >= most) known.clear();
  known.set(key, value);
  return value;
}
