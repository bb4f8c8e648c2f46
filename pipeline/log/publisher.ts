import { nuid, onConnectionChange, type Msg, type MsgHdrs, type NatsConnection } from '../clients/nats.ts';
import { HeadwaterError, messageOf } from '../runtime/errors.ts';
import { AppendConflict, AppendUnclear } from './errors.ts';
import type { NewEvent, Seq } from './event-log.ts';

const wrongLastSequence = 10071;
const answerMs = 5_000;
const decoder = new TextDecoder();

/** Bytes that the headers below add to an event, at most: to be kept free below the server's max_payload. */
export const headerBytes = 256;

interface PubAck {
  readonly seq?: number;
  readonly error?: { readonly err_code?: number; readonly description?: string };
}

/**
 * Writes to the stream with the headers of JetStream's atomic batch publish (NATS ADR-50). Our own, since the client's
 * batch hides the server's errors and drops the expected sequence.
 */
export class Publisher {
  readonly #connection: NatsConnection;
  readonly #unwatch: () => void;
  readonly #lost = new Set<() => void>();

  constructor(connection: NatsConnection) {
    this.#connection = connection;
    this.#unwatch = onConnectionChange(connection, (state) => {
      if (state === 'lost') for (const reject of this.#lost) reject();
    });
  }

  close(): void {
    this.#unwatch();
  }

  /** One event, or up to 1,000 as one atomic batch. */
  async append(events: readonly NewEvent[], expectedLastSeq: Seq): Promise<Seq> {
    const [first] = events;
    if (!first) return expectedLastSeq;
    const ack =
      events.length === 1 ? await this.#request(first, plainHeaders(expectedLastSeq)) : await this.#batch(events, expectedLastSeq);
    return sequenceOf(ack, expectedLastSeq, expectedLastSeq + events.length);
  }

  /** Several events as pipelined publishes: cheaper than a batch for a few. When it throws, some of them may be stored. */
  async appendEach(events: readonly NewEvent[], expectedLastSeq: Seq): Promise<Seq> {
    const acks = await Promise.allSettled(events.map((event, i) => this.#request(event, plainHeaders(expectedLastSeq + i))));
    let seq = expectedLastSeq;
    for (const ack of acks) {
      if (ack.status === 'rejected') throw ack.reason;
      seq = sequenceOf(ack.value, seq, seq + 1);
    }
    return seq;
  }

  #batch(events: readonly NewEvent[], expectedLastSeq: Seq): Promise<Msg> {
    const start = `NATS/1.0\r\nNats-Batch-Id: ${nuid.next()}\r\nNats-Batch-Sequence: `;
    const last = events.length - 1;
    for (let i = 0; i < last; i++) {
      const expected = i === 0 ? `\r\nNats-Expected-Last-Sequence: ${expectedLastSeq}` : '';
      const { subject, data } = events[i]!;
      this.#connection.publish(subject, data, { headers: encoded(`${start}${i + 1}${expected}\r\n\r\n`) });
    }
    return this.#request(events[last]!, encoded(`${start}${last + 1}\r\nNats-Batch-Commit: 1\r\n\r\n`));
  }

  /** Sends, and waits for the answer; a lost connection ends the waiting at once. */
  async #request(event: NewEvent, headers: MsgHdrs): Promise<Msg> {
    let lost!: () => void;
    const connectionLost = new Promise<never>((_, reject) => {
      lost = () => reject(new Error('connection lost'));
    });
    this.#lost.add(lost);
    try {
      return await Promise.race([this.#connection.request(event.subject, event.data, { timeout: answerMs, headers }), connectionLost]);
    } catch (error) {
      throw new AppendUnclear(messageOf(error), error);
    } finally {
      this.#lost.delete(lost);
    }
  }
}

/** The client only calls `encode()` on the headers it sends; bytes made here spare it a map and a copy for each event. */
function encoded(text: string): MsgHdrs {
  return { encode: () => Buffer.from(text, 'latin1') } as unknown as MsgHdrs;
}

function plainHeaders(expectedLastSeq: Seq): MsgHdrs {
  return encoded(`NATS/1.0\r\nNats-Expected-Last-Sequence: ${expectedLastSeq}\r\n\r\n`);
}

function sequenceOf(answer: Msg, expectedLastSeq: Seq, wanted: Seq): Seq {
  const ack = JSON.parse(decoder.decode(answer.data)) as PubAck;
  if (ack.error?.err_code === wrongLastSequence) throw new AppendConflict(expectedLastSeq, ack.error.description ?? '');
  if (ack.error)
    throw new HeadwaterError(
      'append_refused',
      `the log refused: ${ack.error.description ?? 'no reason given'} (${ack.error.err_code ?? 0})`,
      { reaction: 'retry' },
    );
  if (ack.seq !== wanted) throw new AppendUnclear(`acknowledged sequence ${ack.seq}, expected ${wanted}`);
  return ack.seq;
}
