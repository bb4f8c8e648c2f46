import type { Random } from './random.ts';

/** Market seconds that pass in one real second, so that a viewer sees prices move. */
export const pace = 30;
export const secondsPerYear = 31_557_600;

/**
 * What all prices share: the logarithm of the market's level, 0 on the first day. It wanders, now and then falls within
 * half a minute, and is drawn back over hours.
 */
export class MarketLevel {
  value = 0;
  /** How much it fell lately (logarithm): what liquidations come from. */
  fear = 0;
  readonly #random: Random;
  #at: number;
  #crash = { until: 0, fallPerSecond: 0 };

  constructor(random: Random, now: number) {
    this.#random = random;
    this.#at = now;
  }

  /** Moves on to `now`, in ms. A pause counts as a minute at most. */
  advance(now: number): void {
    const seconds = Math.min(60, Math.max(0, now - this.#at) / 1_000);
    this.#at = now;
    if (now > this.#crash.until && this.#random.next() < seconds / 600) this.startCrash(now);
    const crash = now <= this.#crash.until ? this.#crash.fallPerSecond * seconds : 0;
    const wander = 0.5 * Math.sqrt((seconds * pace) / secondsPerYear) * this.#random.normal();
    const back = this.value * (1 - Math.exp(-seconds / 10_800));
    const move = wander - crash - back;
    this.value += move;
    this.fear = this.fear * Math.exp(-seconds / 20) + Math.max(0, -move);
  }

  /** A fall of 3 to 9 percent within 15 to 40 seconds from now. */
  startCrash(now: number): void {
    const seconds = this.#random.int(15, 40);
    this.#crash = { until: now + seconds * 1_000, fallPerSecond: (0.03 + 0.06 * this.#random.next()) / seconds };
  }
}
