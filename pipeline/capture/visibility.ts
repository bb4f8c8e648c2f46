const wrap = 2 ** 32;

/** Which transactions a snapshot sees (`pg_current_snapshot()`; PostgreSQL manual, table 9.83). */
export class Visibility {
  // 64 bits in Postgres; no database ever comes to 2^53 transactions.
  readonly #xmin: number;
  readonly #xmax: number;
  readonly #inProgress: ReadonlySet<number>;

  constructor(text: string) {
    const [xmin, xmax, xip] = text.split(':');
    if (!xmin || !xmax || xip === undefined) throw new Error(`not a snapshot: ${text.slice(0, 60)}`);
    this.#xmin = Number(xmin);
    this.#xmax = Number(xmax);
    this.#inProgress = new Set(xip.split(',').filter(Boolean).map(Number));
    if (!Number.isSafeInteger(this.#xmin) || !Number.isSafeInteger(this.#xmax)) throw new Error(`not a snapshot: ${text.slice(0, 60)}`);
  }

  /** Does the snapshot see what this transaction did? The wire gives only the lower 32 bits of its number. */
  sees(xid: number): boolean {
    const full = this.#widen(xid);
    if (full < this.#xmin) return true;
    return full < this.#xmax && !this.#inProgress.has(full);
  }

  /** Has every transaction with a lower number than this one ended? (One that is under way need not be named in the snapshot.) */
  seesAllBelow(fullXid: bigint): boolean {
    return BigInt(this.#xmin) >= fullXid;
  }

  /** Have this transaction and every one with a lower number ended? By its lower 32 bits. */
  seesAllUpTo(xid: number): boolean {
    return this.#xmin > this.#widen(xid);
  }

  /** The transaction number nearest to the snapshot's that has these lower bits. */
  #widen(xid: number): number {
    const candidate = this.#xmax - (this.#xmax % wrap) + xid;
    if (candidate > this.#xmax + wrap / 2) return candidate - wrap;
    if (candidate < this.#xmax - wrap / 2) return candidate + wrap;
    return candidate;
  }
}
