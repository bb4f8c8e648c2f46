/** One reading of the database that several wait for. It goes on for as long as anybody does. */
export class Flight<T> {
  /** When it began, in the order of arrivals. */
  readonly began: number;
  readonly #result: Promise<T>;
  readonly #ending = new AbortController();
  #waiting = 0;

  constructor(began: number, run: (signal: AbortSignal) => Promise<T>) {
    this.began = began;
    this.#result = run(this.#ending.signal);
    this.#result.catch(() => undefined);
  }

  /** Everybody has left before it came to an end. */
  get abandoned(): boolean {
    return this.#ending.signal.aborted;
  }

  /** Its result; rejects with the signal's reason when that fires first. */
  async join(signal: AbortSignal): Promise<T> {
    this.#waiting++;
    let leave: (() => void) | undefined;
    try {
      signal.throwIfAborted();
      const left = new Promise<never>((_, reject) => {
        leave = () => reject(signal.reason as Error);
        signal.addEventListener('abort', leave, { once: true });
      });
      return await Promise.race([this.#result, left]);
    } finally {
      if (leave) signal.removeEventListener('abort', leave);
      if (--this.#waiting === 0) this.#ending.abort(signal.reason ?? 'nobody waits');
    }
  }
}

/** The newest flight of each key that is under way. */
export class Flights<T> {
  readonly #flights = new Map<string, Flight<T>>();

  get(key: string): Flight<T> | undefined {
    const flight = this.#flights.get(key);
    return flight?.abandoned === true ? undefined : flight;
  }

  start(key: string, began: number, run: (signal: AbortSignal) => Promise<T>): Flight<T> {
    const flight = new Flight(began, async (signal) => {
      try {
        return await run(signal);
      } finally {
        if (this.#flights.get(key) === flight) this.#flights.delete(key);
      }
    });
    this.#flights.set(key, flight);
    return flight;
  }
}
