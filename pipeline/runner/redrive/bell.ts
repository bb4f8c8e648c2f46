/** Whoever is woken may be so before what there is to do can be found: so long he looks for it again and again. */
const patienceMs = 5_000;
const longestMs = 1_000;
const shortestMs = 10;

/** Lets one who works by looking sleep until there may be something to find. */
export class Bell {
  #rungAt = -Infinity;
  #looks = 0;
  #wake: (() => void) | undefined;

  ring(): void {
    this.#rungAt = performance.now();
    this.#looks = 0;
    this.#wake?.();
  }

  /** Until it is rung or the signal fires; for a while after it was rung only for a moment, which gets longer. */
  wait(signal: AbortSignal): Promise<void> {
    const left = this.#rungAt + patienceMs - performance.now();
    return new Promise((resolve) => {
      const timer = left > 0 ? setTimeout(() => this.#wake?.(), Math.min(left, longestMs, shortestMs * 2 ** this.#looks++)) : undefined;
      const wake = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', wake);
        this.#wake = undefined;
        resolve();
      };
      this.#wake = wake;
      signal.addEventListener('abort', wake, { once: true });
      if (signal.aborted) wake();
    });
  }
}
