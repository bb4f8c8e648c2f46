/** Before something has moved for so long it cannot be told how fast it is, in ms. */
const steadyMs = 3_000;

/** How fast something moves of late. What comes before it moves, such as a connection that is opened, does not count. */
export class Speed {
  readonly #spanMs: number;
  readonly #samples: { at: number; readonly position: number }[] = [];

  /** @param spanMs of the time before counts, in ms */
  constructor(spanMs = 5_000) {
    this.#spanMs = spanMs;
  }

  /**
   * Notes where it is, and returns how far it came in a second; undefined as long as that cannot be told.
   * @param now ms of a monotonic clock
   */
  at(position: number, now = performance.now()): number | undefined {
    const samples = this.#samples;
    // It has begun anew.
    if (position < (samples.at(-1)?.position ?? 0)) samples.length = 0;
    const [only] = samples;
    if (samples.length === 1 && only!.position === position) only!.at = now;
    else samples.push({ at: now, position });
    // The first one as long as it is needed to tell anything, and one from before the span: that may be between two steps.
    while (samples.length > 2 && samples[1]!.at <= now - this.#spanMs) samples.shift();
    const [oldest] = samples;
    const ms = now - oldest!.at;
    return ms < steadyMs ? undefined : ((position - oldest!.position) * 1_000) / ms;
  }
}
