import type { Random } from './random.ts';

/** Market seconds that pass in one real second, so that a viewer sees prices move. */
export const pace = 30;
export const secondsPerYear = 31_557_600;

/** Real seconds. */
const secondsBetweenCrashes = 900;
const meanCrash = 0.06;

/**
 * What all prices share: the logarithm of the market's level, 0 on the first day. It wanders, now and then falls within
 * half a minute, and is drawn back over hours.
 */
export class MarketLevel {
  value = 0;
  /** Where it was lately: it follows `value` within half a minute. */
  #lately = 0;
  readonly #random: Random;
  #at: number;
  #crash = { until: 0, fallPerSecond: 0 };

  constructor(random: Random, now: number) {
    this.#random = random;
    this.#at = now;
  }

  /** How far below its recent course it is (logarithm): what liquidations come from. */
  get fear(): number {
    return Math.max(0, this.#lately - this.value);
  }

  /** Moves on to `now`, in ms. A pause counts as a minute at most. */
  advance(now: number): void {
    const seconds = Math.min(60, Math.max(0, now - this.#at) / 1_000);
    this.#at = now;
    if (now > this.#crash.until && this.#random.next() < seconds / secondsBetweenCrashes) this.startCrash(now);
    const crash = now <= this.#crash.until ? this.#crash.fallPerSecond * seconds : 0;
    const wander = 0.5 * Math.sqrt((seconds * pace) / secondsPerYear) * this.#random.normal();
    const back = this.value * (1 - Math.exp(-seconds / 7_200));
    // What crashes take on average, calm times give back.
    const climb = (meanCrash / secondsBetweenCrashes) * seconds;
    const move = wander + climb - crash - back;
    this.value += move;
    this.#lately += (this.value - this.#lately) * (1 - Math.exp(-seconds / 30));
  }

  /** A fall of 3 to 9 percent within 15 to 40 seconds from now. */
  startCrash(now: number): void {
    const seconds = this.#random.int(15, 40);
    this.#crash = { until: now + seconds * 1_000, fallPerSecond: (meanCrash * (0.5 + this.#random.next())) / seconds };
  }
}
