import type { Distribution } from '../engine/distribution.ts';
import { merge, Values, type Piece, type Summary } from './summary.ts';

/** A sliding window that is not empty: it ends with pane `end`. */
export interface Slid {
  readonly end: number;
  readonly summary: Summary;
  readonly distribution: Distribution | undefined;
}

/**
 * The sliding windows that end with the panes `at` to `stop`, without the empty ones.
 * @param pieces in order of time; those that only some of the windows contain are single panes
 * @param panes how many panes a window has
 */
export function* slide(pieces: readonly Piece[], at: number, stop: number, panes: number, withValues: boolean): Generator<Slid> {
  const queue = new Queue();
  const values = withValues ? new Values() : undefined;
  let next = 0;
  for (let end = at; end <= stop; end++) {
    for (let piece = pieces[next]; piece && piece.last <= end; piece = pieces[++next]) {
      queue.push(piece);
      values?.add(piece);
    }
    for (let first = queue.first; first && first.first <= end - panes; first = queue.first) {
      queue.shift();
      values?.remove(first);
    }
    const { summary } = queue;
    if (summary) yield { end, summary, distribution: values?.distribution() };
  }
}

/**
 * A queue that knows the summary of what is in it. Extremes cannot be subtracted, so its older half has the summary of each of its ends
 * ready, made when it became the older one: each piece is merged a few times, however large the windows are.
 */
class Queue {
  /** The oldest is the last; each with the summary from it to the end of this half. */
  #older: { readonly piece: Piece; readonly summary: Summary | undefined }[] = [];
  #newer: Piece[] = [];
  #newerSummary: Summary | undefined;

  get first(): Piece | undefined {
    return this.#older.at(-1)?.piece ?? this.#newer[0];
  }

  get summary(): Summary | undefined {
    return merge(this.#older.at(-1)?.summary, this.#newerSummary);
  }

  push(piece: Piece): void {
    this.#newer.push(piece);
    this.#newerSummary = merge(this.#newerSummary, piece.record);
  }

  shift(): void {
    if (this.#older.length === 0) {
      let summary: Summary | undefined;
      for (const piece of this.#newer.toReversed()) {
        summary = merge(piece.record, summary);
        this.#older.push({ piece, summary });
      }
      this.#newer = [];
      this.#newerSummary = undefined;
    }
    this.#older.pop();
  }
}
