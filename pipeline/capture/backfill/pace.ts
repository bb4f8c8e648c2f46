import { pause } from '../../runtime/backoff.ts';
import { Speed } from '../../runtime/speed.ts';

/** Time over which the speed is measured, in ms. */
const measuredMs = 10_000;

/** How fast rows are copied, and may be. */
export class Pace {
  readonly #rate: number | undefined;
  readonly #speed = new Speed(measuredMs);
  #rows = 0;
  #nextAt: number;

  /** @param rate most rows a second; undefined or 0 for as many as there can be */
  constructor(rate: number | undefined) {
    this.#rate = rate || undefined;
    this.#nextAt = performance.now();
    this.#speed.at(0, this.#nextAt);
  }

  /** Takes note of rows, and returns how many a second there were of late; undefined as long as that cannot be told. */
  passed(rows: number): number | undefined {
    const now = performance.now();
    this.#rows += rows;
    if (this.#rate !== undefined) this.#nextAt = Math.max(this.#nextAt, now - 1_000) + (rows * 1_000) / this.#rate;
    const speed = this.#speed.at(this.#rows, now);
    return speed === undefined ? undefined : Math.round(speed);
  }

  /** Waits until more may come. */
  async wait(signal: AbortSignal): Promise<void> {
    const ms = this.#nextAt - performance.now();
    if (this.#rate !== undefined && ms > 0) await pause(ms, signal);
  }
}
