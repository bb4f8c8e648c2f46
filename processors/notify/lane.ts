import type { EndpointLimits } from './options.ts';

/** How much one endpoint is asked of by this process: a bound on attempts under way, and a bucket of tokens for their rate. */
export class Lane {
  readonly endpoint: string;
  readonly #limits: EndpointLimits;
  #tokens: number;
  #filledAt: number;
  inFlight = 0;
  /** Something may be due that nobody has begun. */
  more = false;
  /** A claim of the next job is under way. */
  claiming = false;
  /** Set while the lane waits for its next token. */
  timer: NodeJS.Timeout | undefined;

  constructor(endpoint: string, limits: EndpointLimits, now: number) {
    this.endpoint = endpoint;
    this.#limits = limits;
    this.#tokens = limits.perSecond;
    this.#filledAt = now;
  }

  /** May an attempt begin now, as far as this endpoint goes? */
  hasRoom(now: number): boolean {
    return this.inFlight < this.#limits.inFlight && this.waitMs(now) === 0;
  }

  /** Time until there is a token. */
  waitMs(now: number): number {
    const { perSecond } = this.#limits;
    this.#tokens = Math.min(perSecond, this.#tokens + ((now - this.#filledAt) / 1_000) * perSecond);
    this.#filledAt = now;
    return this.#tokens >= 1 ? 0 : Math.ceil(((1 - this.#tokens) / perSecond) * 1_000);
  }

  begin(): void {
    this.inFlight++;
    this.#tokens--;
  }

  /** `untried`: nothing was sent after all. */
  end(untried: boolean): void {
    this.inFlight--;
    if (untried) this.#tokens++;
  }

  /** Nothing is lost when the lane is forgotten. */
  idle(now: number): boolean {
    return (
      this.inFlight === 0 &&
      !this.more &&
      !this.claiming &&
      this.timer === undefined &&
      this.waitMs(now) === 0 &&
      this.#tokens >= this.#limits.perSecond
    );
  }
}
