import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from './logging.ts';
import { HeadwaterError, messageOf } from './errors.ts';

/** Exponential backoff with full jitter: the wait before attempt `n` (from 0), in ms. */
export function backoffMs(attempt: number, { baseMs = 50, capMs = 5_000, random = Math.random } = {}): number {
  return Math.round(random() * Math.min(capMs, baseMs * 2 ** Math.min(attempt, 30)));
}

/** Waits, and returns early without an error when the signal fires. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  await sleep(ms, undefined, signal ? { signal } : {}).catch(() => undefined);
}

/**
 * Tries until it works, for as long as it takes: a dependency that is away is said at once and then each minute.
 * Errors of ours that ask for another reaction than `retry` (usage, refused) end it at once.
 * @param options `quietMs`: for so long nothing is said, since the dependency is only just being started
 */
export async function untilItWorks<T>(
  what: string,
  attempt: () => Promise<T>,
  options: { signal: AbortSignal; log: Logger; quietMs?: number },
): Promise<T> {
  const speakFrom = performance.now() + (options.quietMs ?? 0);
  let saidAt = -Infinity;
  for (let n = 0; ; n++) {
    options.signal.throwIfAborted();
    try {
      const value = await attempt();
      if (saidAt > 0) options.log.info(`${what}: back after ${n} failed attempts`);
      return value;
    } catch (error) {
      if (options.signal.aborted) throw error;
      if (error instanceof HeadwaterError && (error.reaction === 'usage' || error.reaction === 'refused')) throw error;
      if (performance.now() >= speakFrom && performance.now() - saidAt > 60_000) {
        saidAt = performance.now();
        options.log.warn({ error: messageOf(error) }, `${what}: not available, trying again until it is`);
      }
    }
    await pause(backoffMs(n), options.signal);
  }
}
