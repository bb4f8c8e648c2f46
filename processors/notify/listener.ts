import { closePostgres, connectPostgres } from '../../pipeline/clients/postgres.ts';
import { untilItWorks } from '../../pipeline/runtime/backoff.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';

/** A doorbell: rings are not counted, and none is lost between two waits. */
export class Bell {
  #rung = false;
  #answer: (() => void) | undefined;

  ring(): void {
    this.#rung = true;
    this.#answer?.();
  }

  /** Waits for a ring since the last wait, `ms` at most; returns at once when the signal fires. */
  async wait(ms: number, signal: AbortSignal): Promise<void> {
    if (!this.#rung && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(done, ms);
        function done(): void {
          clearTimeout(timer);
          signal.removeEventListener('abort', done);
          resolve();
        }
        this.#answer = done;
        signal.addEventListener('abort', done, { once: true });
      });
      this.#answer = undefined;
    }
    this.#rung = false;
  }
}

/** Rings whenever the outbox has got something, on a connection of its own, until the signal fires. Behind a pooling proxy nothing may be heard. */
export async function listenToOutbox(url: string, bell: Bell, options: { signal: AbortSignal; log: Logger }): Promise<void> {
  await untilItWorks('notify: listening to the outbox', () => listenOnce(url, bell, options), options).catch((error: unknown) => {
    if (!options.signal.aborted) throw error;
  });
}

/** Resolves when the signal fires; rejects when the connection is lost. */
async function listenOnce(url: string, bell: Bell, { signal, log }: { signal: AbortSignal; log: Logger }): Promise<void> {
  const client = await connectPostgres(url, 'headwater notify listen', log);
  try {
    const ended = new Promise<never>((_, reject) => client.once('end', () => reject(new Error('the connection was lost'))));
    ended.catch(() => undefined);
    client.on('notification', () => bell.ring());
    await client.query('LISTEN headwater_outbox');
    bell.ring();
    let stop: (() => void) | undefined;
    const stopped = new Promise<void>((resolve) => {
      stop = () => resolve();
      signal.addEventListener('abort', stop, { once: true });
      if (signal.aborted) resolve();
    });
    try {
      await Promise.race([ended, stopped]);
    } finally {
      signal.removeEventListener('abort', stop!);
    }
  } finally {
    await closePostgres(client);
  }
}
