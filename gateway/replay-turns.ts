interface Waiting {
  readonly who: object;
  readonly settle: (mine: boolean) => void;
}

/**
 * The turns of the replays that share one socket, first come, first served. One of them gets the turn when the socket can
 * take more, and the next one only if it still can when that one has written. So what is unsent stays at one slice above
 * the high water, however many replays there are.
 */
export class ReplayTurns {
  readonly #takesMore: () => boolean;
  #waiting: Waiting[] = [];
  /** Whose turn it is in this turn of the loop. */
  #holder: object | undefined;
  #scheduled = false;

  /** @param takesMore can the socket take more, after all that was written so far? */
  constructor(takesMore: () => boolean) {
    this.#takesMore = takesMore;
  }

  /**
   * Resolves with true when it is the turn of `who`, which has to write before the loop's next turn, and with false when
   * `patienceMs` are over or the signal fires. Asking again gives the turn back.
   */
  take(who: object, signal: AbortSignal, patienceMs?: number): Promise<boolean> {
    if (this.#holder === who) this.#holder = undefined;
    // The question may end the connection, and with it fire the signal.
    const free = this.#holder === undefined && this.#waiting.length === 0 && this.#takesMore();
    if (signal.aborted) return Promise.resolve(false);
    if (free) {
      this.#give(who);
      return Promise.resolve(true);
    }
    return new Promise((resolve) => {
      const settle = (mine: boolean): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', giveUp);
        this.#waiting = this.#waiting.filter((other) => other !== waiting);
        resolve(mine);
      };
      const giveUp = (): void => settle(false);
      const waiting: Waiting = { who, settle };
      const timer = patienceMs === undefined ? undefined : setTimeout(giveUp, patienceMs);
      signal.addEventListener('abort', giveUp, { once: true });
      this.#waiting.push(waiting);
    });
  }

  /** Gives the turn to the next who waits, if the socket can take more. To be called when it has drained. */
  check(): void {
    if (this.#holder !== undefined || this.#waiting.length === 0 || !this.#takesMore()) return;
    const next = this.#waiting[0];
    if (!next) return;
    this.#give(next.who);
    next.settle(true);
  }

  #give(who: object): void {
    this.#holder = who;
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#holder = undefined;
      this.check();
    });
  }
}
