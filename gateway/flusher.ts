/** Something with frames that wait to be written. */
export interface Flushed {
  flush(): void;
}

/** Collects who has something to write, so that each socket is written to once a turn of the loop, however many frames there are. */
export class Flusher {
  #waiting: Flushed[] = [];
  #scheduled: NodeJS.Immediate | undefined;

  add(flushed: Flushed): void {
    this.#waiting.push(flushed);
    this.#scheduled ??= setImmediate(() => this.flush());
  }

  /** Writes now, at the end of a slice of events, say. */
  flush(): void {
    clearImmediate(this.#scheduled);
    this.#scheduled = undefined;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const flushed of waiting) flushed.flush();
  }
}
