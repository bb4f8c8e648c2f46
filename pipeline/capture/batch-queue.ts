import type { SourceEvent } from '../source/source.ts';

/** How a batch goes out: as one atomic batch, or as a few publishes of their own, which is quicker for few. */
export interface Batch {
  readonly events: readonly SourceEvent[];
  readonly atomic: boolean;
}

/** What is on its way to the log while the next batch is taken. */
export interface OnTheWay {
  readonly batches: number;
  readonly events: number;
  /** Of the last batch. */
  readonly last: Batch | undefined;
}

/** Most events of a batch: a limit of the server. */
export const maxEvents = 1_000;
/** Bytes at which a batch is cut. */
export const maxBytes = 1_000_000;
/** Up to here publishes of their own are quicker than a batch, which costs the server three fsyncs and three directories whatever its size. */
const maxSingles = 10;
/** Atomic batches that may be on their way at once. */
const maxAtOnce = 3;
/** Only behind batches of so many events: that another writer should put in just as many is then next to impossible. */
const largeBatch = 200;

const nothing: OnTheWay = { batches: 0, events: 0, last: undefined };

/** A few transactions of one event each. */
function areSingles(events: readonly SourceEvent[]): boolean {
  return events.length <= maxSingles && events.every((event) => event.last);
}

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

  /**
   * Takes the next batch; undefined while there is nothing, only the beginning of a transaction, or nothing that may follow what is
   * on its way: behind large batches another full one, behind publishes of their own a few more. Anything else would fit again
   * after another writer's events, or go out smaller than it could a moment later.
   */
  next(onTheWay: OnTheWay = nothing): Batch | undefined {
    const count = this.#cut();
    if (count === 0 || !this.#mayFollow(onTheWay, count)) return undefined;
    const events = this.#events.slice(this.#head, this.#head + count);
    this.#head += count;
    for (const event of events) this.bytes -= event.data.length;
    if (this.#head > 10_000 || this.#head === this.#events.length) {
      this.#events = this.#events.slice(this.#head);
      this.#head = 0;
    }
    return { events, atomic: !areSingles(events) };
  }

  #mayFollow({ batches, events, last }: OnTheWay, count: number): boolean {
    if (!last) return true;
    if (last.atomic) return batches < maxAtOnce && last.events.length >= largeBatch && count >= largeBatch && count < this.size;
    return count === this.size && events + count <= maxSingles && areSingles(this.#events.slice(this.#head));
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
