import { onConnectionChange, type NatsConnection } from '../clients/nats.ts';
import { HeadwaterError } from '../runtime/errors.ts';

/** How long a request waits for a connection that is away: enough for a server that restarts. */
const patienceMs = 2_000;

/**
 * Requests that share the fate of their connection. The client drops what is sent while its connection is away, and a request
 * whose answer was lost waits for its time-out: work would rest that long after each interruption.
 */
export class Link {
  readonly #unwatch: () => void;
  readonly #losses = new Set<() => void>();
  readonly #returns = new Set<() => void>();
  #away = false;

  constructor(connection: NatsConnection) {
    this.#unwatch = onConnectionChange(connection, (state) => {
      this.#away = state === 'lost';
      for (const notify of this.#away ? this.#losses : this.#returns) notify();
    });
  }

  close(): void {
    this.#unwatch();
  }

  /** Sends a request once the connection is there. Throws `connection_lost` (reaction `retry`) as soon as its answer cannot come any more. */
  async ask<T>(request: () => Promise<T>): Promise<T> {
    if (this.#away) await this.#back();
    let lose!: () => void;
    const lost = new Promise<never>((_, reject) => {
      lose = () => reject(connectionLost());
    });
    this.#losses.add(lose);
    try {
      return await Promise.race([request(), lost]);
    } finally {
      this.#losses.delete(lose);
    }
  }

  #back(): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (settle: () => void): void => {
        clearTimeout(timer);
        this.#returns.delete(returned);
        settle();
      };
      const returned = (): void => end(resolve);
      const timer = setTimeout(() => end(() => reject(connectionLost())), patienceMs);
      this.#returns.add(returned);
    });
  }
}

function connectionLost(): HeadwaterError {
  return new HeadwaterError('connection_lost', 'the connection to NATS is lost', { reaction: 'retry' });
}
