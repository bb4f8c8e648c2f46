import type { Bounds, EventLog } from '../../pipeline/log/event-log.ts';
import { within } from './service-patience.ts';

/** Where the log ends, and which history it is. */
export type Head = Pick<Bounds, 'last' | 'epoch'>;

const defaults = { patienceMs: 500, restMs: 250 };

/**
 * Asks the log where it ends. An answer is of use only to who came before its question was sent, so at most one question is under way
 * and one waits: all that come meanwhile share the latter. When the log does not answer, nobody waits for a while.
 */
export class HeadProbe {
  readonly #log: Pick<EventLog, 'bounds'>;
  readonly #patienceMs: number;
  readonly #restMs: number;
  #running: Promise<Head | undefined> | undefined;
  #next: Promise<Head | undefined> | undefined;
  #restUntil = -Infinity;

  constructor(log: Pick<EventLog, 'bounds'>, { patienceMs = defaults.patienceMs, restMs = defaults.restMs } = {}) {
    this.#log = log;
    this.#patienceMs = patienceMs;
    this.#restMs = restMs;
  }

  /** The log's end at some moment after the call; undefined when it cannot be asked. */
  ask(): Promise<Head | undefined> {
    if (performance.now() < this.#restUntil) return Promise.resolve(undefined);
    if (!this.#running) return this.#start();
    this.#next ??= this.#running.then(() => {
      this.#next = undefined;
      return performance.now() < this.#restUntil ? undefined : this.#start();
    });
    return this.#next;
  }

  #start(): Promise<Head | undefined> {
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
