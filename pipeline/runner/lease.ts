import { pause, untilItWorks } from '../runtime/backoff.ts';
import { messageOf } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logging.ts';
import type { StateStore } from './state-store.ts';

type Leases = Pick<StateStore<unknown>, 'lease' | 'release'>;

/** Decides which instance works. It is a courtesy: the comparison at each commit is what keeps two instances from harm. */
export class Lease {
  readonly #store: Leases;
  readonly #owner: string;
  readonly #ttlMs: number;
  readonly #log: Logger;

  constructor(store: Leases, owner: string, ttlMs: number, log: Logger) {
    this.#store = store;
    this.#owner = owner;
    this.#ttlMs = ttlMs;
    this.#log = log;
  }

  /** Waits until this instance is the one to work. Rejects when the signal fires. */
  async take(signal: AbortSignal, onStandby: () => void): Promise<void> {
    for (let said = false; ;) {
      if (await untilItWorks('state store', () => this.#store.lease(this.#owner, this.#ttlMs), { signal, log: this.#log })) return;
      if (!said) onStandby();
      said = true;
      await pause((this.#ttlMs / 10) * (0.5 + Math.random()), signal);
      signal.throwIfAborted();
    }
  }

  /** Renews until the signal fires (true) or another instance has the lease (false). A store that is away decides nothing. */
  async keep(signal: AbortSignal): Promise<boolean> {
    for (;;) {
      await pause(this.#ttlMs / 3, signal);
      if (signal.aborted) return true;
      try {
        if (!(await this.#store.lease(this.#owner, this.#ttlMs))) return false;
      } catch (error) {
        this.#log.debug({ error: messageOf(error) }, 'the lease could not be renewed');
      }
    }
  }

  /** Runs something while the lease is renewed. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    const ending = new AbortController();
    const kept = this.keep(ending.signal);
    try {
      return await work();
    } finally {
      ending.abort();
      await kept;
    }
  }

  /** Lets a standby take over at once. */
  async release(): Promise<void> {
    await this.#store
      .release(this.#owner)
      .catch((error: unknown) => this.#log.debug({ error: messageOf(error) }, 'the lease could not be released; it lapses by itself'));
  }
}
