/**
 * Runs tasks side by side until the first of them ends, then tells the others by their signal and waits for them, so that
 * nothing goes on behind the caller's back. Rejects with what the first was rejected with. Tasks end when their signal fires.
 */
export async function untilFirst(signal: AbortSignal, ...tasks: readonly ((signal: AbortSignal) => Promise<unknown>)[]): Promise<void> {
  const ending = new AbortController();
  const either = AbortSignal.any([signal, ending.signal]);
  const running = tasks.map((task) => task(either));
  try {
    await Promise.race(running);
  } finally {
    ending.abort();
    await Promise.allSettled(running);
  }
}
