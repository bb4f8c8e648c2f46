import type { Bounds, LogEvent, NewEvent, ReadOptions, Seq } from '../../pipeline/log/event-log.ts';
import { MemoryLog } from './memory-log.ts';

/** A log in memory whose server can go away. */
export class FaultyLog extends MemoryLog {
  #failure: Error | undefined;
  #readers = new AbortController();

  /** While it is set, everything fails with it, readings under way included. */
  set failure(failure: Error | undefined) {
    this.#failure = failure;
    if (!failure) return;
    this.#readers.abort();
    this.#readers = new AbortController();
  }

  /** Appends without a condition. */
  add(...events: readonly NewEvent[]): void {
    void this.append(events, this.head);
  }

  override async *read(from: Seq, options: ReadOptions = {}): AsyncGenerator<readonly LogEvent[], void, undefined> {
    if (this.#failure) throw this.#failure;
    const broken = this.#readers.signal;
    const signal = AbortSignal.any([broken, ...(options.signal ? [options.signal] : [])]);
    yield* super.read(from, { ...options, signal });
    if (broken.aborted) throw new Error('the connection broke');
  }

  override bounds(): Promise<Bounds> {
    return this.#failure ? Promise.reject(this.#failure) : super.bounds();
  }
}
