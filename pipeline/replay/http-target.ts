import type { LogEvent, Seq } from '../log/event-log.ts';
import { microsOf } from '../runner/event-head.ts';
import { backoffMs, pause } from '../runtime/backoff.ts';
import { HeadwaterError } from '../runtime/errors.ts';
import type { ReplayTarget, Settled } from './target.ts';

/** What became of one attempt to send a batch. `failed`: the receiver will not have it, however often it is sent. */
export interface Sent {
  readonly outcome: 'delivered' | 'retry' | 'failed';
  /** What the receiver said, or why it said nothing; one line. */
  readonly answer: string;
  /** Did it say anything? */
  readonly answered: boolean;
  readonly retryAfterMs?: number;
}

/** A batch on its way to the receiver. */
export interface Batch {
  /** Stays the same however often the batch is sent. */
  readonly id: string;
  readonly body: Buffer;
}

/** Sends one batch, once, and waits no longer than `patienceMs` for the answer. */
export type SendBatch = (batch: Batch, patienceMs: number, signal: AbortSignal) => Promise<Sent>;

export interface HttpTargetOptions {
  readonly send: SendBatch;
  /** Name of the run: with the sequences of a batch it is the batch's id. */
  readonly run: string;
  /** Events in a batch, at most. */
  readonly batch: number;
  /** How long one batch is tried, ms; 0: once, however long that takes. */
  readonly patienceMs: number;
  /** Told when a batch has to be sent again. */
  readonly onRetry: (answer: string, inMs: number) => void;
}

/** Bytes of events in a batch, at most, unless one event alone has more. */
const batchBytes = 1024 ** 2;
const longestWaitMs = 60_000;

/**
 * An HTTP endpoint that gets batches in order, one at a time, each sent until it has answered with 2xx. A batch is cut by number and size
 * of its events alone, so that a replay that goes on sends the same one under the same id.
 */
export class HttpTarget implements ReplayTarget {
  readonly #options: HttpTargetOptions;
  #waiting: LogEvent[] = [];
  #waitingBytes = 0;
  #settled: Settled;

  constructor(options: HttpTargetOptions, before: Settled) {
    // An earlier run's batches are gone on with, whatever is asked for now.
    const batch = Number(before.state?.['batch'] ?? options.batch);
    this.#options = { ...options, batch };
    this.#settled = { ...before, state: { batch } };
  }

  async write(events: readonly LogEvent[], signal: AbortSignal): Promise<void> {
    for (const event of events) {
      if (this.#waiting.length > 0 && this.#waitingBytes + event.data.length > batchBytes) await this.#send(signal);
      this.#waiting.push(event);
      this.#waitingBytes += event.data.length;
      if (this.#waiting.length >= this.#options.batch) await this.#send(signal);
    }
  }

  async settle(end: boolean, signal: AbortSignal): Promise<Settled> {
    if (end && this.#waiting.length > 0) await this.#send(signal);
    return this.#settled;
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  async #send(signal: AbortSignal): Promise<void> {
    const events = this.#waiting;
    const [first, last] = [events[0]!.seq, events.at(-1)!.seq];
    const id = `${this.#options.run}.${first}-${last}`;
    const body = batchBody(this.#options.run, events);
    await this.#deliver({ id, body, first, last }, signal);
    const { events: before, bytes } = this.#settled;
    this.#settled = { ...this.#settled, through: last, events: before + events.length, bytes: bytes + body.length };
    this.#waiting = [];
    this.#waitingBytes = 0;
  }

  async #deliver(batch: Batch & { first: Seq; last: Seq }, signal: AbortSignal): Promise<void> {
    const { send, patienceMs, onRetry } = this.#options;
    const until = performance.now() + patienceMs;
    for (let attempt = 0; ; attempt++) {
      signal.throwIfAborted();
      const sent = await send(batch, patienceMs === 0 ? Infinity : inTenths(until - performance.now()), signal);
      if (sent.outcome === 'delivered') return;
      signal.throwIfAborted();
      const wait = Math.max(sent.retryAfterMs ?? 0, backoffMs(attempt, { baseMs: 250, capMs: longestWaitMs }));
      if (sent.outcome === 'failed' || performance.now() + wait > until) throw undelivered(batch, sent);
      onRetry(sent.answer, wait);
      await pause(wait, signal);
    }
  }
}

/** Tenths of a second, at least one, in ms: a person reads how long it was. */
function inTenths(ms: number): number {
  return Math.max(1, Math.round(ms / 100)) * 100;
}

function undelivered({ first, last }: { first: Seq; last: Seq }, { outcome, answer, answered }: Sent): HeadwaterError {
  const sequences = `sequences ${first} to ${last}`;
  const said = answered ? `the receiver did not take ${sequences}: ${answer}` : `no answer of the receiver to ${sequences}: ${answer}`;
  const remedy = answered ? 'correct what it says' : 'see that --to-url is right, and that the receiver runs and answers';
  const longer = outcome === 'retry' ? ', or raise --give-up' : '';
  return new HeadwaterError('replay_undelivered', said, {
    hint: `${remedy}${longer}; then the same command with --resume goes on with that batch`,
  });
}

/** The events' own bytes in an envelope like those of webhooks; made of the events alone. */
function batchBody(run: string, events: readonly LogEvent[]): Buffer {
  const [first, last] = [events[0]!, events.at(-1)!];
  const micros = microsOf(last);
  const timestamp = micros === undefined ? null : new Date(micros / 1_000).toISOString();
  const head = { run, first: first.seq, last: last.seq, count: events.length };
  const start = `{"type":"replay.events","timestamp":${JSON.stringify(timestamp)},"data":${JSON.stringify(head).slice(0, -1)},"events":[`;
  const parts = [Buffer.from(start)];
  for (const [n, { seq, data }] of events.entries())
    parts.push(Buffer.from(`${n === 0 ? '' : ','}{"seq":${seq},"event":`), Buffer.from(data), brace);
  parts.push(Buffer.from(']}}'));
  return Buffer.concat(parts);
}

const brace = Buffer.from('}');
