import { setImmediate as nextTurn } from 'node:timers/promises';
import { OffsetExpired } from '../pipeline/log/errors.ts';
import type { Bounds, EventLog, LogEvent, Seq } from '../pipeline/log/event-log.ts';
import { backoffMs, pause, untilItWorks } from '../pipeline/runtime/backoff.ts';
import { messageOf } from '../pipeline/runtime/errors.ts';
import type { Health } from '../pipeline/runtime/health.ts';
import type { Logger } from '../pipeline/runtime/logging.ts';
import type { ChannelEvent, Channels } from './channels.ts';
import { RecentWindow } from './recent-window.ts';

export interface TailOptions {
  readonly eventLog: EventLog;
  readonly channels: Channels;
  /** First token of the log's subjects. */
  readonly subject: string;
  readonly windowBytes: number;
  readonly log: Logger;
  readonly health: Health;
  /** Called with the events of one slice, in order, when the window has them; synchronous. */
  readonly onEvents: (events: readonly ChannelEvent[], raw: readonly LogEvent[]) => void;
  /** The end of the log has been reached, at first or after the position was lost. */
  readonly onReady: () => void;
  /** This node's position is of no use any more: another history has begun, or events were trimmed unread. */
  readonly onLost: (detail: string) => void;
}

const boundsEveryMs = 2_000;
const prefillEvents = 100_000;
const sliceBytes = 256 * 1024;
const sliceEvents = 1_000;

/** This node's one reader at the end of the log. It fills the recent window and feeds the fan-out. */
export class Tail {
  readonly window: RecentWindow;
  readonly #options: TailOptions;
  #position: Seq = 0;
  #epoch = '';
  #epochStart: Seq = 1;
  #oldest: Seq = 1;
  #ready = false;
  #restart = new AbortController();
  #waiters: { readonly seq: Seq; readonly resolve: () => void }[] = [];

  constructor(options: TailOptions) {
    this.#options = options;
    this.window = new RecentWindow(options.windowBytes);
  }

  /** The last event that is in the window and has been fanned out. */
  get position(): Seq {
    return this.#position;
  }

  /** The first sequence of the epoch. */
  get epochStart(): Seq {
    return this.#epochStart;
  }

  get epoch(): string {
    return this.#epoch;
  }

  /** The oldest sequence the log held when it was last asked, at most some seconds ago. */
  get oldest(): Seq {
    return this.#oldest;
  }

  /** False until the end of the log has been reached for the first time. */
  get ready(): boolean {
    return this.#ready;
  }

  /** Resolves when everything up to `seq` has been fanned out, or the signal fires. */
  reached(seq: Seq, signal: AbortSignal): Promise<void> {
    if (seq <= this.#position || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const waiter = { seq, resolve: () => (signal.removeEventListener('abort', done), resolve()) };
      const done = (): void => {
        this.#waiters = this.#waiters.filter((other) => other !== waiter);
        waiter.resolve();
      };
      signal.addEventListener('abort', done, { once: true });
      this.#waiters.push(waiter);
    });
  }

  /** Reads until the signal fires. */
  async run(signal: AbortSignal): Promise<void> {
    const watching = this.#watchBounds(signal);
    for (let attempt = 0; !signal.aborted; attempt++) {
      this.#restart = new AbortController();
      try {
        await this.#follow(AbortSignal.any([signal, this.#restart.signal]), () => (attempt = 0));
      } catch (error) {
        if (signal.aborted) break;
        if (error instanceof OffsetExpired) this.#lose(`events after ${this.#position} were trimmed before this node could read them`);
        else {
          this.#options.health.report('nats', false, messageOf(error));
          this.#options.log.warn({ error: messageOf(error) }, 'reading the log failed, trying again');
        }
        await pause(backoffMs(attempt), signal);
      }
    }
    await watching;
  }

  async #follow(signal: AbortSignal, onProgress: () => void): Promise<void> {
    const { eventLog, log } = this.#options;
    const head = await untilItWorks('the log', () => this.#place(), { signal, log });
    if (this.#position >= head) this.#arrived();
    for await (const events of eventLog.read(this.#position + 1, { signal })) {
      onProgress();
      await this.#take(events, signal);
      if (!this.#ready && this.#position >= head && !signal.aborted) this.#arrived();
    }
  }

  /** Decides where to read from: where it was, or near the end at first and when the position was lost. Returns the log's head. */
  async #place(): Promise<Seq> {
    const { eventLog, channels, subject, windowBytes } = this.#options;
    const bounds = await eventLog.bounds();
    this.#judge(bounds, this.#position);
    this.#oldest = bounds.first;
    if (this.#epoch !== '') return bounds.last;
    for (const event of await eventLog.lastPerSubject(`${subject}._schema.>`)) channels.learn(event.subject);
    const average = bounds.messages > 0 ? bounds.bytes / bounds.messages : 0;
    const fitting = Math.min(prefillEvents, Math.floor(windowBytes / (average + 256)));
    this.#position = Math.max(bounds.first - 1, bounds.last - fitting, 0);
    this.#epoch = bounds.epoch;
    this.#epochStart = bounds.epochStart;
    return bounds.last;
  }

  /** Is the position of use in this log? `position` is the one of before the log was asked. */
  #judge({ epoch, last }: Bounds, position: Seq): void {
    if (this.#epoch === '') return;
    if (epoch !== this.#epoch) this.#lose('another history of the log has begun');
    else if (last < position) this.#lose(`the log ends at ${last}, before ${position}`);
  }

  #arrived(): void {
    this.#ready = true;
    this.#options.onReady();
    this.#options.health.report('nats', true);
  }

  async #take(events: readonly LogEvent[], signal: AbortSignal): Promise<void> {
    const { channels, subject, onEvents } = this.#options;
    const mark = `${subject}._mark.`;
    let begin = 0;
    while (begin < events.length && !signal.aborted) {
      let end = begin;
      for (let size = 0; end < events.length && end - begin < sliceEvents && size < sliceBytes; end++) size += events[end]!.data.length;
      const raw = begin === 0 && end === events.length ? events : events.slice(begin, end);
      // A marker can be the first event of another history.
      if (raw.some((event) => event.subject.startsWith(mark))) await this.#checkBounds();
      if (signal.aborted) return;
      const slice = raw.map((event) => channels.read(event));
      for (const event of slice) this.window.push(event);
      this.#position = raw.at(-1)!.seq;
      onEvents(slice, raw);
      this.#wake();
      begin = end;
      // Sockets get a chance to drain between slices, or a burst would look like slow readers.
      if (begin < events.length) await nextTurn();
    }
  }

  #wake(): void {
    if (this.#waiters.length === 0) return;
    const due = this.#waiters.filter(({ seq }) => seq <= this.#position);
    this.#waiters = this.#waiters.filter(({ seq }) => seq > this.#position);
    for (const { resolve } of due) resolve();
  }

  async #watchBounds(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await pause(boundsEveryMs, signal);
      if (!signal.aborted && this.#ready) await this.#checkBounds();
    }
  }

  async #checkBounds(): Promise<void> {
    const { eventLog, health } = this.#options;
    const position = this.#position;
    try {
      const bounds = await eventLog.bounds();
      this.#oldest = bounds.first;
      health.report('nats', true);
      this.#judge(bounds, position);
    } catch (error) {
      health.report('nats', false, messageOf(error));
    }
  }

  /** Forgets what it has, and begins near the end of the log again. */
  #lose(detail: string): void {
    this.#options.log.warn(`position lost: ${detail}`);
    this.window.clear();
    this.#epoch = '';
    this.#ready = false;
    this.#restart.abort();
    this.#options.onLost(detail);
  }
}
