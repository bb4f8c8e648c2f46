import { pause } from '../runtime/backoff.ts';

/** Time over which the speed is measured, in ms. */
const measuredMs = 10_000;

/** How fast rows are copied, and may be. */
export class Pace {
  readonly #rate: number | undefined;
  readonly #samples: { at: number; rows: number }[] = [];
  #rows = 0;
  #nextAt: number;

  /** @param rate most rows a second; undefined or 0 for as many as there can be */
  constructor(rate: number | undefined) {
    this.#rate = rate || undefined;
    this.#nextAt = performance.now();
    this.#samples.push({ at: this.#nextAt, rows: 0 });
  }

  /** Takes note of rows, and returns how many a second there were of late. */
  passed(rows: number): number {
    const now = performance.now();
    this.#rows += rows;
    this.#samples.push({ at: now, rows: this.#rows });
    while (this.#samples.length > 2 && this.#samples[1]!.at < now - measuredMs) this.#samples.shift();
    const first = this.#samples[0]!;
    if (this.#rate !== undefined) this.#nextAt = Math.max(this.#nextAt, now - 1_000) + (rows * 1_000) / this.#rate;
    return Math.round(((this.#rows - first.rows) * 1_000) / Math.max(1, now - first.at));
  }

  /** Waits until more may come. */
  async wait(signal: AbortSignal): Promise<void> {
    const ms = this.#nextAt - performance.now();
    if (this.#rate !== undefined && ms > 0) await pause(ms, signal);
  }
}
