import { nuid, sendRaw, type Msg, type MsgHdrs, type NatsConnection } from '../clients/nats.ts';
import { HeadwaterError, messageOf } from '../runtime/errors.ts';
import { AppendConflict, AppendUnclear } from './errors.ts';
import type { NewEvent, Seq } from './event-log.ts';
import type { Link } from './link.ts';

const wrongLastMessageId = 10070;
const wrongLastSequence = 10071;
const answerMs = 5_000;
const [carriageReturn, lineFeed] = [0x0d, 0x0a];
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
  readonly #link: Link;
  /** Of publishes of their own: their name, the sequence they will end with, and how many calls are on their way. */
  readonly #chain = { id: '', end: 0, open: 0 };

  constructor(connection: NatsConnection, link: Link) {
    this.#connection = connection;
    this.#link = link;
  }

  /** One event, or up to 1,000 as one atomic batch. */
  async append(events: readonly NewEvent[], expectedLastSeq: Seq): Promise<Seq> {
    const [first] = events;
    if (!first) return expectedLastSeq;
    const ack =
      events.length === 1 ? await this.#request(first, plainHeaders(expectedLastSeq)) : await this.#batch(events, expectedLastSeq);
    return sequenceOf(ack, expectedLastSeq, expectedLastSeq + events.length);
  }

  /**
   * Several events as pipelined publishes: cheaper than a batch for a few. When it throws, a first part of them may be stored.
   * Each names the one before it, also over several calls that are on their way at once: after another writer's event the expected
   * sequences of the later ones could fit again.
   */
  async appendEach(events: readonly NewEvent[], expectedLastSeq: Seq): Promise<Seq> {
    const chain = this.#chain;
    const follows = chain.open > 0 && chain.end === expectedLastSeq;
    const id = follows ? chain.id : shortId();
    Object.assign(chain, { id, end: expectedLastSeq + events.length, open: chain.open + 1 });
    const headersOf = (i: number): MsgHdrs => plainHeaders(expectedLastSeq + i, linkHeaders(id, expectedLastSeq + i, follows || i > 0));
    const acks = await Promise.allSettled(events.map((event, i) => this.#request(event, headersOf(i))));
    chain.open--;
    let seq = expectedLastSeq;
    for (const ack of acks) {
      if (ack.status === 'rejected') throw ack.reason;
      seq = sequenceOf(ack.value, seq, seq + 1);
    }
    return seq;
  }

  #batch(events: readonly NewEvent[], expectedLastSeq: Seq): Promise<Msg> {
    const start = `NATS/1.0\r\nNats-Batch-Id: ${shortId()}\r\nNats-Batch-Sequence: `;
    const last = events.length - 1;
    return this.#ask(() => {
      sendRaw(this.#connection, batchFrame(events, last, start, expectedLastSeq));
      return this.#send(events[last]!, encoded(`${start}${last + 1}\r\nNats-Batch-Commit: 1\r\n\r\n`));
    });
  }

  #request(event: NewEvent, headers: MsgHdrs): Promise<Msg> {
    return this.#ask(() => this.#send(event, headers));
  }

  async #ask(request: () => Promise<Msg>): Promise<Msg> {
    try {
      return await this.#link.ask(request);
    } catch (error) {
      throw new AppendUnclear(messageOf(error), error);
    }
  }

  #send(event: NewEvent, headers: MsgHdrs): Promise<Msg> {
    return this.#connection.request(event.subject, event.data, { timeout: answerMs, headers });
  }
}

/** Distinct among what is open at one time, which is all that is asked; short, since every event carries it and the server keeps it. */
function shortId(): string {
  return nuid.next().slice(-6);
}

/** The name of the publish behind `seq`, and which one it must find in front of it. */
function linkHeaders(id: string, seq: Seq, follows: boolean): string {
  return `${follows ? `\r\nNats-Expected-Last-Msg-Id: ${id}.${seq}` : ''}\r\nNats-Msg-Id: ${id}.${seq + 1}`;
}

/** The `HPUB` messages of a batch's first `count` events (NATS client protocol) in one piece: one copy and one write for all. */
function batchFrame(events: readonly NewEvent[], count: number, start: string, expectedLastSeq: Seq): Buffer {
  let size = 0;
  for (let i = 0; i < count; i++) size += events[i]!.data.length + 3 * events[i]!.subject.length + start.length + 128;
  const frame = Buffer.allocUnsafe(size);
  let at = 0;
  for (let i = 0; i < count; i++) {
    const { subject, data } = events[i]!;
    const headers = `${start}${i + 1}${i === 0 ? `\r\nNats-Expected-Last-Sequence: ${expectedLastSeq}` : ''}\r\n\r\n`;
    at += frame.write(`HPUB ${subject} ${headers.length} ${headers.length + data.length}\r\n${headers}`, at);
    frame.set(data, at);
    at += data.length;
    frame[at++] = carriageReturn;
    frame[at++] = lineFeed;
  }
  return frame.subarray(0, at);
}

/** The client only calls `encode()` on the headers it sends; bytes made here spare it a map and a copy for each event. */
function encoded(text: string): MsgHdrs {
  return { encode: () => Buffer.from(text, 'latin1') } as unknown as MsgHdrs;
}

function plainHeaders(expectedLastSeq: Seq, more = ''): MsgHdrs {
  return encoded(`NATS/1.0\r\nNats-Expected-Last-Sequence: ${expectedLastSeq}${more}\r\n\r\n`);
}

function sequenceOf(answer: Msg, expectedLastSeq: Seq, wanted: Seq): Seq {
  const ack = JSON.parse(decoder.decode(answer.data)) as PubAck;
  if (ack.error?.err_code === wrongLastSequence || ack.error?.err_code === wrongLastMessageId)
    throw new AppendConflict(expectedLastSeq, ack.error.description ?? '');
  if (ack.error)
    throw new HeadwaterError(
      'append_refused',
      `the log refused: ${ack.error.description ?? 'no reason given'} (${ack.error.err_code ?? 0})`,
      { reaction: 'retry' },
    );
  if (ack.seq !== wanted) throw new AppendUnclear(`acknowledged sequence ${ack.seq}, expected ${wanted}`);
  return ack.seq;
}
