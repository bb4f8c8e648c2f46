/** Lets `perSecond` through on average and `burst` at once. Times in ms of any one clock. */
export class TokenBucket {
  readonly #perSecond: number;
  readonly #burst: number;
  #tokens: number;
  #at: number;

  constructor(perSecond: number, burst: number, now: number) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#tokens = burst;
    this.#at = now;
  }

  /** Takes one: 0, or after how many ms there will be one. */
  take(now: number): number {
    this.#refill(now);
    if (this.#tokens < 1) return Math.ceil(((1 - this.#tokens) / this.#perSecond) * 1_000);
    this.#tokens -= 1;
    return 0;
  }

  /** Is it as if it had never been used? */
  full(now: number): boolean {
    this.#refill(now);
    return this.#tokens >= this.#burst;
  }

  #refill(now: number): void {
    this.#tokens = Math.min(this.#burst, this.#tokens + (Math.max(0, now - this.#at) / 1_000) * this.#perSecond);
    this.#at = now;
  }
}

/** One bucket for each of many names, bounded: those that are full again are forgotten, and under pressure the oldest. */
export class TokenBuckets {
  readonly #buckets = new Map<string, TokenBucket>();
  readonly #most: number;

  constructor(most = 100_000) {
    this.#most = most;
  }

  take(name: string, perSecond: number, burst: number, now: number): number {
    let bucket = this.#buckets.get(name);
    if (!bucket) {
      if (this.#buckets.size >= this.#most) this.#buckets.delete(this.#buckets.keys().next().value!);
      bucket = new TokenBucket(perSecond, burst, now);
      this.#buckets.set(name, bucket);
    }
    return bucket.take(now);
  }

  sweep(now: number): void {
    for (const [name, bucket] of this.#buckets) if (bucket.full(now)) this.#buckets.delete(name);
  }
}
