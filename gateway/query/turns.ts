import { QueryRefused } from './refused.ts';

interface Waiter {
  /** In the order of arrivals. */
  readonly number: number;
  readonly begin: () => void;
}

interface Share {
  running: number;
  readonly waiting: Waiter[];
}

/**
 * Shares a number of places among keys. Whoever is alone may have all of them. A place that becomes free goes to the key that has fewest,
 * so while another one waits none comes to more than its part, however much it asks for.
 */
export class Turns {
  readonly #places: number;
  readonly #patienceMs: number;
  readonly #shares = new Map<string, Share>();
  #running = 0;
  #arrivals = 0;

  constructor(places: number, patienceMs: number) {
    this.#places = places;
    this.#patienceMs = patienceMs;
  }

  /**
   * Resolves when it is the key's turn, with what ends it: to be called exactly once.
   * @throws QueryRefused `unavailable` when that takes too long; the signal's reason when that fires first
   */
  async take(keyId: string, signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    const share = this.#shares.get(keyId) ?? { running: 0, waiting: [] };
    this.#shares.set(keyId, share);
    if (this.#running < this.#places) this.#begin(share);
    else await this.#wait(keyId, share, signal);
    return () => {
      share.running--;
      this.#running--;
      this.#drop(keyId, share);
      this.#next();
    };
  }

  #begin(share: Share): void {
    share.running++;
    this.#running++;
  }

  #wait(keyId: string, share: Share, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
      };
      const begin = (): void => {
        settle();
        this.#begin(share);
        resolve();
      };
      const waiter: Waiter = { number: ++this.#arrivals, begin };
      const leave = (reason: Error): void => {
        settle();
        share.waiting.splice(share.waiting.indexOf(waiter), 1);
        this.#drop(keyId, share);
        reject(reason);
      };
      const onAbort = (): void => leave(signal.reason as Error);
      const timer = setTimeout(() => leave(busy(this.#places)), this.#patienceMs);
      signal.addEventListener('abort', onAbort, { once: true });
      share.waiting.push(waiter);
    });
  }

  /** The place that has become free goes to who has fewest; of those to who came first. */
  #next(): void {
    let best: Share | undefined;
    for (const share of this.#shares.values()) {
      const [first] = share.waiting;
      if (!first) continue;
      const fewer = best ? share.running - best.running || first.number - best.waiting[0]!.number : -1;
      if (fewer < 0) best = share;
    }
    best?.waiting.shift()!.begin();
  }

  #drop(keyId: string, { running, waiting }: Share): void {
    if (running === 0 && waiting.length === 0) this.#shares.delete(keyId);
  }
}

function busy(places: number): QueryRefused {
  return new QueryRefused('unavailable', `all ${places} connections for queries are in use, try again`, { retryAfterS: 1 });
}
