import { headers, JetStreamApiError, jetstreamManager, nanos, type JetStreamManager, type NatsConnection } from '../clients/nats.ts';
import { HeadwaterError } from '../runtime/errors.ts';
import { encodeLetter, type DeadLetter, type DeadLetters } from './dead-letters.ts';

const streamNotFound = 10059;
const noSuchMessage = 10037;
const headerRoom = 1_024;

export interface DeadLetterSettings {
  /** Name of the stream (default `DEADLETTERS`). */
  readonly stream?: string;
  /** First token of its subjects (default `dl`). */
  readonly subject?: string;
  readonly replicas?: number;
}

/** What the server answers to a stored message (ADR-22 publish acknowledgement). */
interface PubAck {
  readonly seq?: number;
  readonly duplicate?: boolean;
  readonly error?: { readonly description?: string };
}

/** Dead letters on a JetStream stream, subject `dl.<processor>`. */
export class JetStreamDeadLetters implements DeadLetters {
  readonly #connection: NatsConnection;
  readonly #jsm: JetStreamManager;
  readonly #settings: Required<DeadLetterSettings>;

  private constructor(connection: NatsConnection, jsm: JetStreamManager, settings: Required<DeadLetterSettings>) {
    this.#connection = connection;
    this.#jsm = jsm;
    this.#settings = settings;
  }

  /** Opens the stream, and makes it if it is missing. */
  static async open(connection: NatsConnection, settings: DeadLetterSettings = {}): Promise<JetStreamDeadLetters> {
    const all = { stream: 'DEADLETTERS', subject: 'dl', replicas: 1, ...settings };
    const jsm = await jetstreamManager(connection, { timeout: 10_000 });
    await jsm.streams.info(all.stream).catch(async (error: unknown) => {
      if (!(error instanceof JetStreamApiError) || error.code !== streamNotFound) throw error;
      await jsm.streams.add({
        name: all.stream,
        subjects: [`${all.subject}.>`],
        retention: 'limits',
        storage: 'file',
        num_replicas: all.replicas,
        allow_direct: true,
        // Longer than a processor may be away between publishing a letter and moving its offset on.
        duplicate_window: nanos(7 * 24 * 3_600_000),
      });
    });
    return new JetStreamDeadLetters(connection, jsm, all);
  }

  async publish(letter: DeadLetter): Promise<void> {
    const data = encodeLetter(letter, (this.#connection.info?.max_payload ?? 1024 ** 2) - headerRoom);
    const identity = `${letter.processor}:${letter.seq}:${letter.id}`;
    for (let copy = 0; ; copy++) {
      const ack = await this.#store(letter.processor, data, copy === 0 ? identity : `${identity}:${copy}`);
      // A duplicate of a letter that an operator has dropped or redriven since is no duplicate: the event failed again.
      if (!ack.duplicate || (await this.#holds(ack.seq!))) return;
    }
  }

  async #store(processor: string, data: Uint8Array, messageId: string): Promise<PubAck> {
    const head = headers();
    head.set('Nats-Msg-Id', messageId);
    head.set('Nats-Expected-Stream', this.#settings.stream);
    const answer = await this.#connection.request(`${this.#settings.subject}.${processor}`, data, { headers: head, timeout: 10_000 });
    const ack = answer.json<PubAck>();
    if (ack.error || ack.seq === undefined)
      throw new HeadwaterError(
        'dead_letter_refused',
        `the dead letter was not stored: ${ack.error?.description ?? 'no sequence in the answer'}`,
        { reaction: 'retry' },
      );
    return ack;
  }

  async #holds(seq: number): Promise<boolean> {
    try {
      return (await this.#jsm.streams.getMessage(this.#settings.stream, { seq })) !== null;
    } catch (error) {
      if (error instanceof JetStreamApiError && error.code === noSuchMessage) return false;
      throw error;
    }
  }
}
