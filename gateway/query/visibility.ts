import type { Visibility } from '../../pipeline/capture/visibility.ts';
import type { Seq } from '../../pipeline/log/event-log.ts';

/** A reading of the database: it begins before the database is asked, and ends when its snapshot is known. */
export interface Reading {
  /** When it began, in the order of all beginnings and ends. */
  readonly began: number;
  /** The first row copied into the log since then. */
  copied: Seq | undefined;
  /** Its snapshot is of use: nothing was forgotten since it began. */
  valid: boolean;
}

interface Logged {
  readonly xid: number;
  /** The sequence of its first event. */
  readonly seq: Seq;
}

/** More than these are not remembered one by one. */
const defaultMax = 200_000;

/**
 * Which transactions of the log no snapshot has been known to show. PostgreSQL sends a transaction to the log before others can see it,
 * with a synchronous standby long before. So a reading of the database holds everything up to a sequence only if its own snapshot sees
 * each transaction with events up to there.
 *
 * A transaction is forgotten when a snapshot has shown it that was known before every reading under way began: they all see it too.
 */
export class UnseenTransactions {
  readonly #max: number;
  #logged: Logged[] = [];
  readonly #readings = new Set<Reading>();
  #clock = 0;
  /** A snapshot that may be used to forget, once all readings that began before it was known have ended. */
  #candidate: { readonly snapshot: Visibility; readonly at: number } | undefined;
  #floor: Seq = 0;
  #position: Seq = 0;
  /** Nothing can be said before it is known what the transactions of before `floor` do. */
  #primed = false;
  /** This transaction and all with lower numbers have to end first: some of them may have events at unknown places. */
  #blocked: number | undefined;

  constructor(max = defaultMax) {
    this.#max = max;
  }

  /** How many transactions it remembers. */
  get size(): number {
    return this.#logged.length;
  }

  get position(): Seq {
    return this.#position;
  }

  /** Begins anew behind a sequence. Readings under way lose their use. */
  reset(floor: Seq): void {
    for (const reading of this.#readings) reading.valid = false;
    this.#logged = [];
    this.#candidate = undefined;
    this.#floor = this.#position = floor;
    this.#primed = false;
    this.#blocked = undefined;
  }

  /** @param below transactions with lower numbers (32 bits) that have not ended may have events that are not known here */
  prime(below: number | undefined): void {
    this.#primed = true;
    if (below !== undefined) this.#block((below + 0xffffffff) % 2 ** 32);
  }

  /**
   * Takes note of the log's next event.
   * @param xid of its transaction, 32 bits
   * @param copied a row as the database had it: whoever reads later reads that or something newer
   */
  note(seq: Seq, xid: number | undefined, copied: boolean): void {
    this.#position = seq;
    if (xid === undefined) {
      if (copied) for (const reading of this.#readings) reading.copied ??= seq;
      return;
    }
    if (this.#logged.at(-1)?.xid === xid) return;
    this.#logged.push({ xid, seq });
    if (this.#logged.length > this.#max) this.#collapse();
  }

  begin(): Reading {
    const reading: Reading = { began: ++this.#clock, copied: undefined, valid: true };
    this.#readings.add(reading);
    return reading;
  }

  /**
   * The reading is over. Returns the largest sequence up to which it holds everything; undefined when that is not known.
   * @param snapshot undefined when it failed
   */
  end(reading: Reading, snapshot: Visibility | undefined): Seq | undefined {
    this.#readings.delete(reading);
    const shown = snapshot && reading.valid ? this.#shown(snapshot) : undefined;
    if (snapshot && reading.valid) this.#candidate ??= { snapshot, at: ++this.#clock };
    this.#forget();
    return shown !== undefined && reading.copied !== undefined ? Math.min(shown, reading.copied - 1) : shown;
  }

  #shown(snapshot: Visibility): Seq | undefined {
    if (!this.#primed || (this.#blocked !== undefined && !snapshot.seesAllUpTo(this.#blocked))) return undefined;
    const unseen = this.#logged.find(({ xid }) => !snapshot.sees(xid));
    if (!unseen) return this.#position;
    // The first one that is known may have events before those that are known.
    return unseen.seq - 1 > this.#floor ? unseen.seq - 1 : undefined;
  }

  #forget(): void {
    if (!this.#candidate) return;
    const { snapshot, at } = this.#candidate;
    for (const { began } of this.#readings) if (began < at) return;
    this.#candidate = undefined;
    this.#logged = this.#logged.filter(({ xid }) => !snapshot.sees(xid));
    if (this.#blocked !== undefined && snapshot.seesAllUpTo(this.#blocked)) this.#blocked = undefined;
  }

  /** There are too many: from here on they count as one that ends with the last of them. */
  #collapse(): void {
    for (const { xid } of this.#logged) this.#block(xid);
    this.#logged = [];
  }

  #block(xid: number): void {
    // 32-bit numbers go round: the later one is less than half the way ahead.
    if (this.#blocked === undefined || ((xid - this.#blocked) | 0) > 0) this.#blocked = xid;
  }
}
