import { EventEncoder } from '../source/event-encoder.ts';
import { backfillIndex, formatIdLsn, nowMicros, type Lsn, type Position } from '../source/position.ts';
import type { SourceEvent } from '../source/source.ts';
import type { Seq } from '../log/event-log.ts';
import { BatchQueue, maxBytes, maxEvents, type Batch } from './batch-queue.ts';
import type { ChangeTracker } from './backfill/change-tracker.ts';
import type { LogWriter, PositionedEvent } from './log-writer.ts';

const highWaterBytes = 4 * 1024 ** 2;
/**
 * Events of a batch between transactions: never as many as a full batch of the stream has, so that a late one of a predecessor's
 * cannot take the place of one.
 */
const maxBetween = maxEvents - 1;

/** Work that waits for its place between two transactions. */
interface Interlude {
  readonly due: (loggedLsn: Lsn) => boolean;
  /** Rejects only when the log cannot be written on. */
  readonly run: () => Promise<void>;
  readonly cancel: (reason: Error) => void;
}

interface Flight {
  readonly batch: Batch;
  readonly landed: Promise<void>;
}

/** What is told of each batch when it is durable. */
export interface Progress {
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
  /** Something has happened since it was last looked whether there is anything to do. */
  #stirred = false;
  #stopped = false;
  #failure: { readonly reason: unknown } | undefined;
  /** Sent, and not known to be durable. */
  #onTheWay: readonly Flight[] = [];
  /** The sequence that the log ends with once all of that has landed. */
  #sent: Seq;
  /** What was sent last ends a transaction. */
  #between: boolean;
  #whole: Lsn;

  /** @param between the log is known to end between two transactions; otherwise nothing may come in before the next one has ended */
  constructor(writer: LogWriter, tracker: ChangeTracker, eventLimit: number, between: boolean, onBatch: (progress: Progress) => void) {
    this.#writer = writer;
    this.#sent = writer.end.seq;
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

  /** Writes until the signal fires, and ends after what is on its way; rejects when the log cannot be written on. */
  async run(signal: AbortSignal): Promise<void> {
    const stop = (): void => this.#stop();
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    try {
      while (!this.#stopped) {
        if (this.#failure) throw this.#failure.reason;
        this.#stirred = false;
        if ((await this.#interlude()) || this.#sendNext() || this.#stirred) continue;
        await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      signal.removeEventListener('abort', stop);
      this.#stop();
      await this.#allLanded();
    }
  }

  #stop(): void {
    this.#stopped = true;
    for (const interlude of this.#interludes.splice(0)) interlude.cancel(stopped());
    this.#wakeUp();
    this.#letIn();
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
      await this.#publish(events, true);
    }
  }

  /** Does the next thing that is due between two transactions. What is on its way lands first, and nothing is sent meanwhile. */
  async #interlude(): Promise<boolean> {
    const due = (): number => (this.#between ? this.#interludes.findIndex((each) => each.due(this.#writer.end.position.lsn)) : -1);
    if (due() < 0) return false;
    await this.#allLanded();
    // What had waited for an empty queue may have to wait again.
    const n = this.#failure || this.#stopped ? -1 : due();
    if (n >= 0) await this.#interludes.splice(n, 1)[0]!.run();
    return true;
  }

  /** Sends the next batch, if there is one that may follow what is on its way. */
  #sendNext(): boolean {
    const events = this.#onTheWay.reduce((sum, flight) => sum + flight.batch.events.length, 0);
    const batch = this.#queue.next({ batches: this.#onTheWay.length, events, last: this.#onTheWay.at(-1)?.batch });
    if (!batch) return false;
    this.#between = batch.events.at(-1)!.last;
    if (this.#queue.bytes < highWaterBytes / 2) this.#letIn();
    const first = this.#sent + 1;
    const landed = this.#publish(batch.events, batch.atomic).then(
      () => this.#landed(batch.events, first),
      (reason: unknown) => (this.#failure ??= { reason }),
    );
    const flight: Flight = { batch, landed: landed.then(() => this.#arrived(flight)) };
    this.#onTheWay = [...this.#onTheWay, flight];
    return true;
  }

  #landed(events: readonly SourceEvent[], first: Seq): void {
    this.#whole = events.findLast((event) => event.last)?.lsn ?? this.#whole;
    this.#tracker.logged(events, first);
  }

  #arrived(flight: Flight): void {
    this.#onTheWay = this.#onTheWay.filter((other) => other !== flight);
    this.#wakeUp();
  }

  async #publish(events: readonly PositionedEvent[], atomic: boolean): Promise<void> {
    const begun = performance.now();
    this.#sent += events.length;
    await this.#writer.write(events, atomic);
    const bytes = events.reduce((sum, event) => sum + event.data.length, 0);
    this.#onBatch({ events: events.length, bytes, seconds: (performance.now() - begun) / 1_000 });
  }

  #letIn(): void {
    this.#drained?.();
    this.#drained = undefined;
  }

  async #allLanded(): Promise<void> {
    await Promise.all(this.#onTheWay.map(({ landed }) => landed));
  }

  #wakeUp(): void {
    this.#stirred = true;
    this.#wake?.();
    this.#wake = undefined;
  }
}

function stopped(): Error {
  return new Error('capture is stopping');
}

/** The position right before the first event that a stream from `consistentPoint` can have. */
export function beforeStream(consistentPoint: Lsn): Position {
  return { lsn: consistentPoint - 1n, index: 0xffffffff };
}
