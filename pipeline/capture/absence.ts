/** How often it is looked, in ms. */
const lookMs = 1_000;

/** Whether somebody who is waited for is away for so long that nobody takes their place. */
export class Absence {
  readonly #isThere: () => Promise<boolean>;
  readonly #longMs: number;
  readonly #now: () => number;
  #since: number;
  #lookedAt = -Infinity;

  /**
   * @param longMs how long they may be away, in ms
   * @param now ms of a monotonic clock
   */
  constructor(isThere: () => Promise<boolean>, longMs: number, now: () => number = () => performance.now()) {
    this.#isThere = isThere;
    this.#longMs = longMs;
    this.#now = now;
    this.#since = now();
  }

  /** They have done something. */
  seen(): void {
    this.#since = this.#now();
  }

  /** To be asked again and again: another one may be there by then. */
  async isLong(): Promise<boolean> {
    if (this.#now() - this.#lookedAt < lookMs) return false;
    this.#lookedAt = this.#now();
    const there = await this.#isThere();
    // Who answers was away as well: those who are waited for may be on their way back, too.
    if (there || this.#now() - this.#lookedAt > lookMs) this.seen();
    return this.#now() - this.#since > this.#longMs;
  }
}
