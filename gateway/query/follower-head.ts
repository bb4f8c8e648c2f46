import type { Bounds, EventLog } from '../../pipeline/log/event-log.ts';
import { pause } from '../../pipeline/runtime/backoff.ts';
import { within } from './service-patience.ts';

/** Where the log ends, and which history it is. */
export type Head = Pick<Bounds, 'last' | 'epoch'>;

const defaults = { patienceMs: 500, restMs: 250, spacingMs: 2 };

/**
 * Asks the log where it ends. An answer is of use only to who came before its question was sent, so at most one question is under way
 * and one waits: all that come meanwhile share the latter. Questions keep a distance from each other, so that many askers cost no more
 * than few. When the log does not answer, nobody waits for a while.
 */
export class HeadProbe {
  readonly #log: Pick<EventLog, 'bounds'>;
  readonly #patienceMs: number;
  readonly #restMs: number;
  readonly #spacingMs: number;
  #running: Promise<Head | undefined> | undefined;
  #next: Promise<Head | undefined> | undefined;
  #restUntil = -Infinity;
  #startedAt = -Infinity;

  constructor(log: Pick<EventLog, 'bounds'>, { patienceMs, restMs, spacingMs }: Partial<typeof defaults> = {}) {
    this.#log = log;
    this.#patienceMs = patienceMs ?? defaults.patienceMs;
    this.#restMs = restMs ?? defaults.restMs;
    this.#spacingMs = spacingMs ?? defaults.spacingMs;
  }

  /** The log's end at some moment after the call; undefined when it cannot be asked. */
  ask(): Promise<Head | undefined> {
    if (performance.now() < this.#restUntil) return Promise.resolve(undefined);
    const waitMs = this.#startedAt + this.#spacingMs - performance.now();
    if (!this.#running && waitMs <= 0) return this.#start();
    this.#next ??= this.#startAfter(waitMs);
    return this.#next;
  }

  async #startAfter(waitMs: number): Promise<Head | undefined> {
    await Promise.all([this.#running, waitMs > 0 && pause(waitMs)]);
    this.#next = undefined;
    return performance.now() < this.#restUntil ? undefined : this.#start();
  }

  #start(): Promise<Head | undefined> {
    this.#startedAt = performance.now();
    const running = this.#ask().finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }

  async #ask(): Promise<Head | undefined> {
    const asked = this.#log.bounds().catch(() => undefined);
    const head = await within(this.#patienceMs, asked);
    if (!head) this.#restUntil = performance.now() + this.#restMs;
    return head;
  }
}
