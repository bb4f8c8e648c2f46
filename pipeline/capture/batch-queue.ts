import type { SourceEvent } from '../source/source.ts';

/** How a batch goes out: as one atomic batch, or as a few publishes of their own, which is quicker for few. */
export interface Batch {
  readonly events: readonly SourceEvent[];
  readonly atomic: boolean;
}

/** Most events of a batch: a limit of the server. */
export const maxEvents = 1_000;
/** Bytes at which a batch is cut. */
export const maxBytes = 1_000_000;
/** Up to here publishes of their own are quicker than a batch. */
const maxSingles = 10;

/**
 * Group commit: events gather here while a batch is on its way, and the next batch is whatever has gathered by then. No timer
 * is involved, so an idle log answers at once and a busy one gets full batches. A batch holds whole transactions; only one
 * that is larger than a batch goes out in several.
 */
export class BatchQueue {
  #events: SourceEvent[] = [];
  #head = 0;
  /** Bytes that wait. */
  bytes = 0;

  push(events: readonly SourceEvent[]): void {
    for (const event of events) {
      this.#events.push(event);
      this.bytes += event.data.length;
    }
  }

  get size(): number {
    return this.#events.length - this.#head;
  }

  /** Takes the next batch; undefined while there is nothing, or only the beginning of a transaction. */
  next(): Batch | undefined {
    const count = this.#cut();
    if (count === 0) return undefined;
    const events = this.#events.slice(this.#head, this.#head + count);
    this.#head += count;
    for (const event of events) this.bytes -= event.data.length;
    if (this.#head > 10_000 || this.#head === this.#events.length) {
      this.#events = this.#events.slice(this.#head);
      this.#head = 0;
    }
    return { events, atomic: events.length > maxSingles || !events.every((event) => event.last) };
  }

  /** How many events go out next: up to the last transaction that fits, or a full batch of one that does not fit. */
  #cut(): number {
    let bytes = 0;
    let whole = 0;
    const available = this.size;
    for (let i = 0; i < available; i++) {
      const event = this.#events[this.#head + i]!;
      if (i > 0 && (i === maxEvents || bytes + event.data.length > maxBytes)) return whole || i;
      bytes += event.data.length;
      if (event.last) whole = i + 1;
    }
    return whole || (available >= maxEvents || bytes > maxBytes ? available : 0);
  }
}
