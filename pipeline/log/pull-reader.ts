import { nanos, newInbox, onConnectionChange, type JetStreamManager, type Msg, type NatsConnection } from '../clients/nats.ts';
import { HeadwaterError } from '../runtime/errors.ts';
import type { LogEvent, Seq } from './event-log.ts';

const batch = 5_000;
const refillBelow = batch / 2;
const heartbeatMs = 5_000;
const silenceMs = 2 * heartbeatMs + 2_000;
const expiresMs = 60_000;

const dot = '.'.charCodeAt(0);
const zero = '0'.charCodeAt(0);

/** Where a consumer begins. */
export type Start = { readonly seq: Seq } | { readonly lastPerSubject: true };

export interface PullOptions {
  readonly stream: string;
  readonly start: Start;
  readonly subjects: readonly string[];
  readonly highWaterBytes: number;
  readonly maxPayload: number;
}

/**
 * One ephemeral consumer without acknowledgements, read by pulling, with its messages collected until they are taken.
 * More is asked for only while less than `highWaterBytes` waits. It lives until something is odd (a gap in the consumer's
 * own count, silence, a reconnect); whoever uses it then makes another one at the position it had reached.
 */
export class PullReader {
  readonly #connection: NatsConnection;
  readonly #options: PullOptions;
  readonly #inbox: string;
  #waiting: LogEvent[] = [];
  #waitingBytes = 0;
  /** Nothing was asked for, for a while before the last `take`. */
  #rested = false;
  #outstanding = 0;
  /** Where the sequences begin in each message's reply subject; known from the first one. */
  #seqsStart: number | undefined;
  #nextConsumerSeq = 1;
  #subject = '';
  #heardAt = performance.now();
  #failure: Error | undefined;
  #wake: (() => void) | undefined;
  readonly #cleanups: (() => void)[] = [];
  /** What the server said is left behind the last message received. */
  #pending: number;

  private constructor(connection: NatsConnection, options: PullOptions, consumer: string, pending: number) {
    this.#connection = connection;
    this.#options = options;
    this.#inbox = newInbox(connection);
    this.#pending = pending;
    this.#subject = `$JS.API.CONSUMER.MSG.NEXT.${options.stream}.${consumer}`;
  }

  static async open(connection: NatsConnection, jsm: JetStreamManager, options: PullOptions): Promise<PullReader> {
    const info = await jsm.consumers.add(options.stream, {
      ack_policy: 'none',
      mem_storage: true,
      num_replicas: 1,
      inactive_threshold: nanos(30_000),
      filter_subjects: [...options.subjects],
      ...('seq' in options.start
        ? { deliver_policy: 'by_start_sequence', opt_start_seq: options.start.seq }
        : { deliver_policy: 'last_per_subject' }),
    });
    const reader = new PullReader(connection, options, info.name, info.num_pending);
    reader.#start(async () => {
      await jsm.consumers.delete(options.stream, info.name);
    });
    return reader;
  }

  #start(remove: () => Promise<void>): void {
    const subscription = this.#connection.subscribe(this.#inbox, {
      callback: (error, message) => (error ? this.#fail(error) : this.#receive(message)),
    });
    const watchdog = setInterval(() => this.#checkSilence(), heartbeatMs);
    const unwatch = onConnectionChange(this.#connection, (state) =>
      this.#fail(new HeadwaterError('reader_interrupted', `connection ${state}`, { reaction: 'retry' })),
    );
    this.#cleanups.push(
      () => subscription.unsubscribe(),
      () => clearInterval(watchdog),
      unwatch,
      () => void remove().catch(() => undefined),
    );
    this.#pull();
  }

  /** Has everything that the server holds been taken? */
  get drained(): boolean {
    return this.#pending === 0 && this.#waiting.length === 0;
  }

  /** May the server hold events that it has not been asked for, or has not sent? Asked right after `take`, or before the first. */
  get behind(): boolean {
    return this.#rested || !this.drained;
  }

  /** All that waits, as soon as there is something; undefined after `close`. Throws when the consumer is of no more use. */
  async take(signal?: AbortSignal): Promise<readonly LogEvent[] | undefined> {
    while (this.#waiting.length === 0) {
      if (this.#failure) throw this.#failure;
      if (signal?.aborted) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        signal?.addEventListener('abort', this.#wakeUp, { once: true });
      });
      signal?.removeEventListener('abort', this.#wakeUp);
    }
    const taken = this.#waiting;
    this.#waiting = [];
    this.#rested = this.#waitingBytes > this.#options.highWaterBytes;
    this.#waitingBytes = 0;
    this.#pull();
    return taken;
  }

  close(): void {
    for (const cleanup of this.#cleanups.splice(0)) cleanup();
    this.#failure ??= new Error('closed');
    this.#wakeUp();
  }

  readonly #wakeUp = (): void => {
    this.#wake?.();
    this.#wake = undefined;
  };

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#wakeUp();
  }

  #pull(): void {
    if (this.#failure || this.#outstanding > refillBelow || this.#waitingBytes > this.#options.highWaterBytes) return;
    const request = {
      batch,
      max_bytes: Math.max(this.#options.highWaterBytes, 2 * this.#options.maxPayload),
      expires: nanos(expiresMs),
      idle_heartbeat: nanos(heartbeatMs),
    };
    this.#outstanding += batch;
    this.#connection.publish(this.#subject, JSON.stringify(request), { reply: this.#inbox });
  }

  #receive(message: Msg): void {
    this.#heardAt = performance.now();
    if (this.#failure) return;
    if (message.data.length === 0 && message.headers && message.headers.code > 0) return this.#status(message);
    const reply = message.reply ?? '';
    this.#seqsStart ??= seqsStart(reply);
    const { streamSeq, consumerSeq, pending } = parseReply(reply, this.#seqsStart);
    if (consumerSeq !== this.#nextConsumerSeq)
      return this.#fail(
        new HeadwaterError('reader_gap', `consumer sequence ${consumerSeq} instead of ${this.#nextConsumerSeq}`, { reaction: 'retry' }),
      );
    this.#nextConsumerSeq++;
    this.#outstanding--;
    this.#pending = pending;
    this.#waiting.push({ seq: streamSeq, subject: message.subject, data: message.data });
    this.#waitingBytes += message.data.length;
    if (this.#waiting.length === 1) this.#wakeUp();
    if (this.#outstanding === refillBelow) this.#pull();
  }

  /** 100 is a heartbeat; 408 and 409 end a pull and say how much of it was not delivered; anything else ends the consumer. */
  #status(message: Msg): void {
    const code = message.headers?.code ?? 0;
    if (code === 100) return;
    const left = message.headers?.get('Nats-Pending-Messages');
    if ((code === 408 || code === 409) && left) {
      this.#outstanding = Math.max(0, this.#outstanding - Number(left));
      return this.#pull();
    }
    this.#fail(
      new HeadwaterError('reader_interrupted', `the server ended the pull: ${code} ${message.headers?.description ?? ''}`, {
        reaction: 'retry',
      }),
    );
  }

  #checkSilence(): void {
    if (performance.now() - this.#heardAt > silenceMs && this.#outstanding > 0)
      this.#fail(new HeadwaterError('reader_silent', 'no heartbeat from the server', { reaction: 'retry' }));
  }
}

/**
 * Where in a message's reply subject the stream's sequence begins. Nine tokens, `$JS.ACK.<stream>.<consumer>.<delivered>.
 * <stream seq>.<consumer seq>.<time>.<pending>`, or more with domain and account in front of the stream and a random token
 * behind. The same for all messages of a consumer without acknowledgements: `delivered` is 1 in each.
 */
export function seqsStart(reply: string): number {
  let at = 0;
  for (let skipped = reply.split('.').length > 9 ? 7 : 5; skipped > 0; skipped--) at = reply.indexOf('.', at) + 1;
  return at;
}

/** The sequences in a reply subject. Read in place: splitting it took longer than all else that is done with a message. */
export function parseReply(reply: string, start: number): { streamSeq: Seq; consumerSeq: number; pending: number } {
  const consumerAt = reply.indexOf('.', start) + 1;
  const timeAt = reply.indexOf('.', consumerAt) + 1;
  return {
    streamSeq: integerAt(reply, start),
    consumerSeq: integerAt(reply, consumerAt),
    pending: integerAt(reply, reply.indexOf('.', timeAt) + 1),
  };
}

/** The whole number that begins there and ends with its token; NaN where something else is. */
function integerAt(text: string, start: number): number {
  let value = 0;
  let i = start;
  for (; i < text.length && text.charCodeAt(i) !== dot; i++) {
    const digit = text.charCodeAt(i) - zero;
    if (digit < 0 || digit > 9) return NaN;
    value = value * 10 + digit;
  }
  return i === start ? NaN : value;
}
