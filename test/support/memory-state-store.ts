import type { CommitOutcome, Holes, Offset, StateStore } from '../../pipeline/runner/state-store.ts';

/** A state store in memory: effects are lists of items that are appended to `state`. It can be made to fail. */
export class MemoryStateStore<Item> implements StateStore<Item[]> {
  readonly ordered = true;
  state: Item[] = [];
  stored: Offset | undefined;
  readonly missing = new Set<number>();
  commits = 0;
  /** Thrown by everything while it is set: the server is away. */
  failure: Error | undefined;
  /** The next commit is made, but its answer gets lost. */
  loseAnswer = false;
  #lease: { owner: string; until: number } | undefined;

  offset(): Promise<Offset | undefined> {
    return this.#answer(() => this.stored);
  }

  commit(effects: Item[], expected: Offset | undefined, next: Offset, holes?: Holes): Promise<CommitOutcome> {
    return this.#answer(() => {
      if (this.stored?.seq !== expected?.seq || this.stored?.epoch !== expected?.epoch) return 'lost';
      this.state.push(...effects);
      this.stored = next;
      for (const seq of holes?.made ?? []) this.missing.add(seq);
      for (const seq of holes?.mended ?? []) this.missing.delete(seq);
      this.commits++;
      if (!this.loseAnswer) return 'committed';
      this.loseAnswer = false;
      throw new Error('the connection broke');
    });
  }

  holes(seqs: readonly number[]): Promise<ReadonlySet<number>> {
    return this.#answer(() => new Set(seqs.filter((seq) => this.missing.has(seq))));
  }

  lease(owner: string, ttlMs: number): Promise<boolean> {
    return this.#answer(() => {
      const now = performance.now();
      if (this.#lease && this.#lease.owner !== owner && this.#lease.until > now) return false;
      this.#lease = { owner, until: now + ttlMs };
      return true;
    });
  }

  release(owner: string): Promise<void> {
    return this.#answer(() => {
      if (this.#lease?.owner === owner) this.#lease = undefined;
    });
  }

  async #answer<T>(value: () => T): Promise<T> {
    await Promise.resolve();
    if (this.failure) throw this.failure;
    return value();
  }
}
