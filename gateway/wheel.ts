/** Something that wants to be looked after about once a second. */
export interface Visited {
  visit(now: number): void;
}

const slots = 10;
const turnMs = 1_000;

/** One timer for all connections: each is visited once a second, a tenth of them at a time. */
export class Wheel {
  readonly #slots: readonly Set<Visited>[] = Array.from({ length: slots }, () => new Set());
  #timer: NodeJS.Timeout | undefined;
  #added = 0;
  #current = 0;

  start(): void {
    this.#timer ??= setInterval(() => this.#turn(), turnMs / slots);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** Returns how to take it off again. */
  add(visited: Visited): () => void {
    const slot = this.#slots[this.#added++ % slots]!;
    slot.add(visited);
    return () => void slot.delete(visited);
  }

  #turn(): void {
    const now = Date.now();
    for (const visited of this.#slots[this.#current]!) visited.visit(now);
    this.#current = (this.#current + 1) % slots;
  }
}
