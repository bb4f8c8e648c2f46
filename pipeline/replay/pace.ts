import { pause } from '../runtime/backoff.ts';

/** Keeps a rate: so many events a second, without catching up on what was missed for longer than a second. */
export class Pace {
  /** The most events that are let through at once. */
  readonly chunk: number;
  readonly #rate: number;
  /** When the next events may go, ms of the monotonic clock. */
  #due = -Infinity;

  /** @param rate events a second; undefined: as fast as can be */
  constructor(rate: number | undefined) {
    this.#rate = rate ?? Infinity;
    this.chunk = Math.max(1, Math.min(1_000, Math.ceil(this.#rate / 20)));
  }

  /** Waits until so many more events may go, or the signal fires. */
  async take(count: number, signal: AbortSignal): Promise<void> {
    if (this.#rate === Infinity || count === 0) return;
    const now = performance.now();
    const at = this.#due === -Infinity ? now : Math.max(this.#due, now - 1_000);
    this.#due = at + (count / this.#rate) * 1_000;
    if (at > now) await pause(at - now, signal);
  }
}
