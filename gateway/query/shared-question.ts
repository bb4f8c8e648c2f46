import { pause } from '../../pipeline/runtime/backoff.ts';
import { within } from './service-patience.ts';

export interface QuestionTimes {
  /** How long an answer may take (ms; default 500). */
  readonly patienceMs?: number;
  /** For how long nobody asks after there was none (ms; default 250). */
  readonly restMs?: number;
  /** From the beginning of a question to that of the next (ms; default 2). */
  readonly spacingMs?: number;
}

/**
 * A question that many ask. Its answer is of use only to who came before it was sent, so at most one is under way and one waits: all that
 * come meanwhile share the latter. Questions keep a distance from each other, so that many askers cost no more than few. When there is no
 * answer, nobody waits for one for a while.
 */
export class SharedQuestion<T> {
  readonly #send: () => Promise<T>;
  readonly #patienceMs: number;
  readonly #restMs: number;
  readonly #spacingMs: number;
  #running: Promise<T | undefined> | undefined;
  #next: Promise<T | undefined> | undefined;
  #restUntil = -Infinity;
  #startedAt = -Infinity;

  constructor(send: () => Promise<T>, { patienceMs = 500, restMs = 250, spacingMs = 2 }: QuestionTimes = {}) {
    this.#send = send;
    this.#patienceMs = patienceMs;
    this.#restMs = restMs;
    this.#spacingMs = spacingMs;
  }

  /** What is true at some moment after the call; undefined when there is no answer. */
  ask(): Promise<T | undefined> {
    if (performance.now() < this.#restUntil) return Promise.resolve(undefined);
    const waitMs = this.#startedAt + this.#spacingMs - performance.now();
    if (!this.#running && waitMs <= 0) return this.#start();
    this.#next ??= this.#startAfter(waitMs);
    return this.#next;
  }

  async #startAfter(waitMs: number): Promise<T | undefined> {
    await Promise.all([this.#running, waitMs > 0 && pause(waitMs)]);
    this.#next = undefined;
    return performance.now() < this.#restUntil ? undefined : this.#start();
  }

  #start(): Promise<T | undefined> {
    this.#startedAt = performance.now();
    const running = this.#ask().finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }

  async #ask(): Promise<T | undefined> {
    const asked = this.#send().catch(() => undefined);
    const answer = await within(this.#patienceMs, asked);
    if (answer === undefined) this.#restUntil = performance.now() + this.#restMs;
    return answer;
  }
}
