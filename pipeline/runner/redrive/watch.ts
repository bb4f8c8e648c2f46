import { setTimeout as sleep } from 'node:timers/promises';
import { onConnectionChange } from '../../clients/nats.ts';
import { messageOf } from '../../runtime/errors.ts';
import { silentLogger, type Logger } from '../../runtime/logging.ts';
import type { LetterWatcher } from '../dead-letters.ts';
import { beside, type LetterStream } from './letter-stream.ts';

/** Between two looks at the stream, about. */
const lookMs = 10_000;
/** Before a look that something has given rise to: there may be more of it in a moment. */
const soonMs = 100;
/** Records of redrives are kept for much longer than this. */
const tidyMs = 60_000;

export interface LetterWatchParts {
  readonly letters: LetterStream;
  /** Removes old records of a processor that has some. */
  readonly tidy: (processor: string) => Promise<void>;
  readonly log?: Logger | undefined;
}

/**
 * Tells all processors on a connection of their dead letters, so that none has to ask by itself. A request is published on a subject, and stored by the
 * stream from there: so one plain subscription hears of each at once, though perhaps before it is stored. What is not heard, since the connection was
 * lost or nobody worked, is found by a look: one question for all processors when one begins, when the connection is back, and each ten seconds, which
 * also says how many letters each has. The requests themselves are in the stream alone: whatever is missed here comes later, and not less.
 */
export class LetterWatch {
  readonly #parts: LetterWatchParts;
  readonly #log: Logger;
  readonly #watchers = new Map<string, Set<LetterWatcher>>();
  #stop: (() => void) | undefined;
  #subscription: { unsubscribe(): void } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #looking = false;
  #again = false;
  #tidiedAt = -Infinity;

  constructor(parts: LetterWatchParts) {
    this.#parts = parts;
    this.#log = parts.log ?? silentLogger();
  }

  /** Tells a watcher of a processor's letters until the returned function is called. */
  watch(processor: string, watcher: LetterWatcher): () => void {
    const watchers = this.#watchers.get(processor) ?? new Set();
    this.#watchers.set(processor, watchers.add(watcher));
    this.#stop ??= this.#start();
    this.look();
    return () => {
      watchers.delete(watcher);
      if (watchers.size === 0 && this.#watchers.get(processor) === watchers) this.#watchers.delete(processor);
      if (this.#watchers.size > 0) return;
      this.#stop?.();
      this.#stop = undefined;
    };
  }

  /** Looks at the stream soon, once for all who ask for it meanwhile. */
  look(): void {
    this.#again = true;
    if (this.#looking) return;
    this.#looking = true;
    void this.#lookOn();
  }

  #start(): () => void {
    this.#listen();
    const forget = onConnectionChange(this.#parts.letters.connection, (state) => {
      if (state === 'lost') return;
      this.#listen();
      this.look();
    });
    return () => {
      forget();
      clearTimeout(this.#timer);
      this.#subscription?.unsubscribe();
      this.#subscription = undefined;
    };
  }

  /** Listens, unless it does so already; the client itself goes on with it over a lost connection. */
  #listen(): void {
    if (this.#subscription) return;
    const { connection, subject } = this.#parts.letters;
    const start = `${subject}.${beside.redrive}.`;
    try {
      this.#subscription = connection.subscribe(`${start}>`, {
        callback: (error, message) => {
          if (error) this.#deaf(error);
          else this.#ask(message.subject.slice(start.length));
        },
      });
    } catch (error) {
      this.#deaf(error);
    }
  }

  #deaf(error: unknown): void {
    this.#subscription = undefined;
    const { subject } = this.#parts.letters;
    this.#log.warn(
      { error: messageOf(error) },
      `nobody tells this process at once what is to be redriven, so it looks each ${lookMs / 1_000} s: let its user of NATS subscribe to ${subject}.${beside.redrive}.> (nats.conf)`,
    );
  }

  #ask(processor: string): void {
    for (const watcher of this.#watchers.get(processor) ?? []) watcher.asked();
  }

  async #lookOn(): Promise<void> {
    clearTimeout(this.#timer);
    try {
      while (this.#again && this.#watchers.size > 0) {
        await sleep(soonMs, undefined, { ref: false });
        this.#again = false;
        await this.#lookOnce();
      }
    } catch (error) {
      this.#log.debug({ error: messageOf(error) }, 'the dead letters could not be looked at');
    } finally {
      this.#looking = false;
      if (this.#watchers.size > 0) this.#timer = setTimeout(() => this.look(), lookMs * (0.9 + Math.random() * 0.2)).unref();
    }
  }

  async #lookOnce(): Promise<void> {
    const { jsm, stream, subject } = this.#parts.letters;
    const { state } = await jsm.streams.info(stream, { subjects_filter: `${subject}.>` });
    const count = (name: string): number => state.subjects?.[`${subject}.${name}`] ?? 0;
    const tidy = performance.now() - this.#tidiedAt > tidyMs;
    if (tidy) this.#tidiedAt = performance.now();
    for (const [processor, watchers] of this.#watchers) {
      for (const watcher of watchers) watcher.letters(count(processor));
      if (count(`${beside.redrive}.${processor}`) > 0) this.#ask(processor);
      if (tidy && count(`${beside.redriven}.${processor}`) > 0) await this.#parts.tidy(processor);
    }
  }
}
