import { sameOffset, type CommitOutcome, type Holes, type Offset, type StateStore } from './state-store.ts';

/** The stored offset is not the one that was expected: what is in memory is not to be relied on. */
export class ComparisonLost extends Error {}

/**
 * Gives commits to a store one behind the other. One that is given before the answer to the one in front of it may come too early, or be lost with that one on a connection that breaks:
 * then it is given again, as soon as it is known what has become of that one.
 */
export class CommitLine<Effects> {
  readonly #store: StateStore<Effects>;
  /** Asks the store for as long as it takes. */
  readonly #ask: <T>(question: () => Promise<T>) => Promise<T>;
  /** Whoever reads the store as it goes may have read what another instance has put there meanwhile: then an offset that looks like one's own says nothing of one's memory. */
  readonly #reads: boolean;
  /** What those under way make of the offset, oldest first. */
  readonly #given: Offset[] = [];
  #last: Promise<void> | undefined;

  constructor(store: StateStore<Effects>, ask: <T>(question: () => Promise<T>) => Promise<T>, reads: boolean) {
    this.#store = store;
    this.#ask = ask;
    this.#reads = reads;
  }

  /**
   * Resolves when it is stored, and never before those in front of it.
   * @throws ComparisonLost when the store holds something else, or may do; and whatever one in front of it throws
   */
  async commit(effects: Effects, expected: Offset, next: Offset, holes: Holes | undefined): Promise<void> {
    const attempt = (): Promise<CommitOutcome> => this.#store.commit(effects, expected, next, holes);
    this.#given.push(next);
    const done = this.#last ? this.#behind(this.#last, attempt, expected) : this.#alone(attempt, expected);
    this.#last = done;
    try {
      await done;
    } finally {
      this.#given.shift();
      if (this.#last === done) this.#last = undefined;
    }
  }

  async #behind(before: Promise<void>, attempt: () => Promise<CommitOutcome>, expected: Offset): Promise<void> {
    const early = await attempt().catch(() => undefined);
    await before;
    if (early !== 'committed') await this.#alone(attempt, expected);
  }

  async #alone(attempt: () => Promise<CommitOutcome>, expected: Offset): Promise<void> {
    if ((await this.#ask(attempt)) === 'committed') return;
    const stored = await this.#ask(() => this.#store.offset());
    // Answers that got lost, or another instance that has folded the same: it was made, and made once, and perhaps those behind it, too.
    if (this.#reads || !this.#given.some((next) => sameOffset(stored, next)))
      throw new ComparisonLost(`expected ${expected.seq}, found ${stored?.seq ?? 'none'}`);
  }
}
