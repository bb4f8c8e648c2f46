import type { Micros } from '../model.ts';

/** Something to look at when log time has come to `due`; Infinity: nothing. */
export interface Timed {
  due: Micros;
}

/** When what is due, earliest first. What has another `due` by then is passed over. */
export class Timers<T extends Timed> {
  #heap: { readonly due: Micros; readonly target: T }[] = [];
  /** What has been moved or has gone is swept out when the heap has come to this size. */
  #sweepAt = 4_096;

  /** Sets when the target is due. */
  set(target: T, due: Micros): void {
    if (target.due === due) return;
    target.due = due;
    if (due === Infinity) return;
    if (this.#heap.length >= this.#sweepAt) this.#sweep();
    this.#heap.push({ due, target });
    this.#rise(this.#heap.length - 1);
  }

  /** Takes out one that is due; undefined when there is none. It has no time any more then. */
  take(now: Micros): T | undefined {
    for (let first = this.#heap[0]; first && first.due <= now; first = this.#heap[0]) {
      this.#pop();
      if (first.target.due !== first.due) continue;
      first.target.due = Infinity;
      return first.target;
    }
    return undefined;
  }

  #pop(): void {
    const last = this.#heap.pop()!;
    if (this.#heap.length === 0) return;
    this.#heap[0] = last;
    this.#sink(0);
  }

  #rise(from: number): void {
    const heap = this.#heap;
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (heap[parent]!.due <= heap[at]!.due) return;
      [heap[parent], heap[at]] = [heap[at]!, heap[parent]!];
      at = parent;
    }
  }

  #sink(from: number): void {
    const heap = this.#heap;
    for (let at = from; ;) {
      let least = at;
      for (const child of [2 * at + 1, 2 * at + 2]) {
        if (child < heap.length && heap[child]!.due < heap[least]!.due) least = child;
      }
      if (least === at) return;
      [heap[least], heap[at]] = [heap[at]!, heap[least]!];
      at = least;
    }
  }

  #sweep(): void {
    this.#heap = this.#heap.filter(({ due, target }) => target.due === due).sort((a, b) => a.due - b.due);
    this.#sweepAt = Math.max(4_096, this.#heap.length * 2);
  }
}
