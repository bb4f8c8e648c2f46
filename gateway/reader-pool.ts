/** A place in the pool; give it back once. */
export interface Lease {
  release(): void;
}

/** How many may read the log at once. Who is in the middle of a replay waits for a place; a new replay is told to come back. */
export class ReaderPool {
  readonly #size: number;
  #used = 0;
  #waiting: (() => void)[] = [];

  constructor(size: number) {
    this.#size = size;
  }

  get used(): number {
    return this.#used;
  }

  /** A place at once, or undefined when there is none. */
  tryTake(): Lease | undefined {
    if (this.#used >= this.#size) return undefined;
    this.#used++;
    let released = false;
    const release = (): void => {
      if (released) return;
      released = true;
      this.#used--;
      this.#waiting.shift()?.();
    };
    return { release };
  }

  /** Waits for a place. Rejects with the signal's reason when it fires first. */
  async take(signal: AbortSignal): Promise<Lease> {
    for (;;) {
      signal.throwIfAborted();
      const lease = this.tryTake();
      if (lease) return lease;
      await new Promise<void>((resolve) => {
        const done = (): void => {
          signal.removeEventListener('abort', done);
          this.#waiting = this.#waiting.filter((other) => other !== done);
          resolve();
        };
        signal.addEventListener('abort', done, { once: true });
        this.#waiting.push(done);
      });
      // Woken by a release and aborted at once: the place goes to the next one.
      if (signal.aborted) this.#waiting.shift()?.();
    }
  }
}
