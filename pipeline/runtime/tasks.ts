/** Resolves when the signal fires. */
export function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}

/** What comes of the work, or, as soon as the signal fires, its reason: what the work comes to is then told nobody. */
export function orAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    void work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/**
 * Runs something while the controller aborts when the given signal does. Linked by hand: a signal made by `AbortSignal.any`
 * can be collected as garbage together with a time-out before it fires (nodejs/node issue 57736).
 */
export async function linked<T>(signal: AbortSignal, controller: AbortController, run: () => Promise<T>): Promise<T> {
  const abort = (): void => controller.abort(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  try {
    return await run();
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

/** Work that goes on until it is stopped: what `Role` asks for. */
export interface Work {
  /** Settles when it has ended: rejected with the reason when that was a fault. Until somebody awaits it, a fault does not count as unhandled. */
  readonly done: Promise<void>;
  /** Stops it and waits for its end, whatever that is. Safe to call twice. */
  stop(): Promise<void>;
}

/** Begins work that ends when `stopping` aborts: with the given signal, or by `stop`. */
export function startWork(signal: AbortSignal, stopping: AbortController, run: () => Promise<void>): Work {
  const done = linked(signal, stopping, run);
  const settled = done.catch(() => undefined);
  return {
    done,
    stop: () => {
      stopping.abort();
      return settled;
    },
  };
}

/** Runs something with a signal that fires with the given one, or after `ms`. */
export function withDeadline<T>(ms: number, signal: AbortSignal, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  return linked(signal, controller, async () => {
    const timer = setTimeout(() => controller.abort(new Error(`not done within ${ms / 1_000} s`)), ms);
    try {
      return await run(controller.signal);
    } finally {
      clearTimeout(timer);
    }
  });
}

/**
 * Runs tasks side by side until the first of them ends, then tells the others by their signal and waits for them, so that
 * nothing goes on behind the caller's back. Rejects with what the first was rejected with. Tasks end when their signal fires.
 */
export function untilFirst(signal: AbortSignal, ...tasks: readonly ((signal: AbortSignal) => Promise<unknown>)[]): Promise<void> {
  const controller = new AbortController();
  return linked(signal, controller, async () => {
    const running = tasks.map((task) => task(controller.signal));
    try {
      await Promise.race(running);
    } finally {
      controller.abort();
      await Promise.allSettled(running);
    }
  });
}
