/** Which transactions a snapshot sees (`pg_current_snapshot()`; PostgreSQL manual, table 9.83). */
export class Visibility {
  readonly #xmin: bigint;
  readonly #xmax: bigint;
  readonly #inProgress: ReadonlySet<bigint>;

  constructor(text: string) {
    const [xmin, xmax, xip] = text.split(':');
    if (xmin === undefined || xmax === undefined || xip === undefined) throw new Error(`not a snapshot: ${text.slice(0, 60)}`);
    this.#xmin = BigInt(xmin);
    this.#xmax = BigInt(xmax);
    this.#inProgress = new Set(xip.split(',').filter(Boolean).map(BigInt));
  }

  /** Does the snapshot see what this transaction did? The wire gives only the lower 32 bits of its number. */
  sees(xid: number): boolean {
    const full = this.#widen(xid);
    if (full < this.#xmin) return true;
    return full < this.#xmax && !this.#inProgress.has(full);
  }

  /** Has every transaction with a lower number than this one ended? (One that is under way need not be named in the snapshot.) */
  seesAllBelow(fullXid: bigint): boolean {
    return this.#xmin >= fullXid;
  }

  /** The transaction number nearest to the snapshot's that has these lower bits. */
  #widen(xid: number): bigint {
    const candidate = (this.#xmax & ~0xffffffffn) | BigInt(xid);
    if (candidate > this.#xmax + 0x80000000n) return candidate - 0x100000000n;
    if (candidate < this.#xmax - 0x80000000n) return candidate + 0x100000000n;
    return candidate;
  }
}
