import { EventEncoder } from '../source/event-encoder.ts';
import { backfillIndex, formatIdLsn, nowMicros, type Lsn, type Position } from '../source/position.ts';
import type { SourceEvent } from '../source/source.ts';
import { BatchQueue, maxBytes, maxEvents, type Batch } from './batch-queue.ts';
import type { ChangeTracker } from './change-tracker.ts';
import type { LogWriter, PositionedEvent } from './log-writer.ts';

const highWaterBytes = 4 * 1024 ** 2;
/**
 * Events of a batch between transactions: never as many as a full batch of the stream has, so that a late one of a predecessor's
 * cannot take the place of one.
 */
const maxBetween = maxEvents - 1;
/** Batches that are sent at once. */
const maxAtOnce = 3;
/** Only behind batches of so many events: that another writer should put in just as many is then next to impossible. */
const largeBatch = 200;

/** Work that waits for its place between two transactions. */
interface Interlude {
  readonly due: (loggedLsn: Lsn) => boolean;
  /** Rejects only when the log cannot be written on. */
  readonly run: () => Promise<void>;
  readonly cancel: (reason: Error) => void;
}

/** What is told after each answer of the log. */
export interface Progress {
  readonly batches: number;
  readonly events: number;
  readonly bytes: number;
  readonly seconds: number;
}

/**
 * The one way into the log: events of the stream in group-committed batches, and between transactions whatever an interlude
 * (a backfill's chunk, a mark) has to add.
 */
export class CaptureLog {
  readonly #writer: LogWriter;
  readonly #tracker: ChangeTracker;
  readonly #queue = new BatchQueue();
  readonly #interludes: Interlude[] = [];
  readonly #onBatch: (progress: Progress) => void;
  readonly #encoder: EventEncoder;
  #wake: (() => void) | undefined;
  #drained: (() => void) | undefined;
  #stopped = false;
  #between: boolean;
  #whole: Lsn;

  /** @param between the log is known to end between two transactions; otherwise nothing may come in before the next one has ended */
  constructor(writer: LogWriter, tracker: ChangeTracker, eventLimit: number, between: boolean, onBatch: (progress: Progress) => void) {
    this.#writer = writer;
    this.#between = between;
    this.#tracker = tracker;
    this.#onBatch = onBatch;
    this.#encoder = new EventEncoder(eventLimit);
    // The log may end in the middle of a transaction that takes several batches.
    this.#whole = writer.end.position.lsn - 1n;
  }

  get end(): LogWriter['end'] {
    return this.#writer.end;
  }

  /** LSN up to which every transaction is in the log whole. */
  get wholeLsn(): Lsn {
    return this.#whole;
  }

  /** Queues events, and waits while too many wait already. */
  async push(events: readonly SourceEvent[]): Promise<void> {
    this.#queue.push(events);
    this.#wakeUp();
    while (this.#queue.bytes > highWaterBytes && !this.#stopped) await new Promise<void>((resolve) => (this.#drained = resolve));
    if (this.#stopped) throw stopped();
  }

  /** Returns when all that was pushed is durable. */
  flushed(): Promise<void> {
    return this.between(
      () => Promise.resolve(),
      () => this.#queue.size === 0,
    );
  }

  /** Does some work between two transactions, as soon as it is due. Rejects when the log is stopped before, or with the work's own error. */
  between<T>(work: () => Promise<T>, due: (loggedLsn: Lsn) => boolean = () => true): Promise<T> {
    if (this.#stopped) return Promise.reject(stopped());
    return new Promise<T>((resolve, reject) => {
      const run = async (): Promise<void> => {
        try {
          resolve(await work());
        } catch (error) {
          reject(error);
          throw error;
        }
      };
      this.#interludes.push({ due, run, cancel: reject });
      this.#wakeUp();
    });
  }

  /** Writes until the signal fires, and ends after the batch that is on its way; rejects when the log cannot be written on. */
  async run(signal: AbortSignal): Promise<void> {
    const stop = (): void => this.#stop();
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    try {
      while (!this.#stopped) {
        if (this.#between && (await this.#interlude())) continue;
        const batches = this.#take();
        if (batches.length > 0) await this.#write(batches);
        else await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      signal.removeEventListener('abort', stop);
      this.#stop();
    }
  }

  #stop(): void {
    this.#stopped = true;
    for (const interlude of this.#interludes.splice(0)) interlude.cancel(stopped());
    this.#wakeUp();
    this.#drained?.();
  }

  /**
   * Writes events that stand between transactions, under ids behind the event before them: `encode` writes one event
   * with the index it is given.
   */
  async writeBetween(subjects: readonly string[], encode: (encoder: EventEncoder, index: number, n: number) => void): Promise<void> {
    const { lsn, index } = this.#writer.end.position;
    let next = Math.max(backfillIndex, index + 1);
    for (let n = 0; n < subjects.length;) {
      const events: PositionedEvent[] = [];
      this.#encoder.begin(formatIdLsn(lsn), undefined, nowMicros());
      for (let bytes = 0; n < subjects.length && events.length < maxBetween && bytes < maxBytes; n++) {
        encode(this.#encoder, next, n);
        const data = this.#encoder.end(false);
        bytes += data.length;
        events.push({ subject: subjects[n]!, data, lsn, index: next++ });
      }
      await this.#publish([events], true);
    }
  }

  async #interlude(): Promise<boolean> {
    const n = this.#interludes.findIndex((interlude) => interlude.due(this.#writer.end.position.lsn));
    if (n < 0) return false;
    const [interlude] = this.#interludes.splice(n, 1);
    await interlude!.run();
    return true;
  }

  /** The next batch, with those behind it while they are large: one is then written while the next is on its way. */
  #take(): readonly Batch[] {
    const batches: Batch[] = [];
    while (batches.length < maxAtOnce && (batches.length === 0 || batches.at(-1)!.events.length >= largeBatch)) {
      const batch = this.#queue.next();
      if (!batch) break;
      batches.push(batch);
    }
    return batches;
  }

  async #write(batches: readonly Batch[]): Promise<void> {
    let seq = this.#writer.end.seq + 1;
    await this.#publish(
      batches.map((batch) => batch.events),
      batches.length > 1 || batches[0]!.atomic,
    );
    for (const { events } of batches) {
      const last = events.at(-1)!;
      this.#between = last.last;
      this.#whole = last.last ? last.lsn : wholeBefore(events, this.#whole);
      this.#tracker.logged(events, seq);
      seq += events.length;
    }
    if (this.#queue.bytes < highWaterBytes / 2) {
      this.#drained?.();
      this.#drained = undefined;
    }
  }

  async #publish(batches: readonly (readonly PositionedEvent[])[], atomic: boolean): Promise<void> {
    const begun = performance.now();
    await (atomic ? this.#writer.writeAll(batches) : this.#writer.write(batches[0]!, false));
    const events = batches.reduce((sum, batch) => sum + batch.length, 0);
    const bytes = batches.reduce((sum, batch) => batch.reduce((inner, event) => inner + event.data.length, sum), 0);
    this.#onBatch({ batches: batches.length, events, bytes, seconds: (performance.now() - begun) / 1_000 });
  }

  #wakeUp(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}

function stopped(): Error {
  return new Error('capture is stopping');
}

/** The LSN of the last whole transaction in a batch that ends within one. */
function wholeBefore(events: readonly SourceEvent[], before: Lsn): Lsn {
  return events.findLast((event) => event.last)?.lsn ?? before;
}

/** The position right before the first event that a stream from `consistentPoint` can have. */
export function beforeStream(consistentPoint: Lsn): Position {
  return { lsn: consistentPoint - 1n, index: 0xffffffff };
}
