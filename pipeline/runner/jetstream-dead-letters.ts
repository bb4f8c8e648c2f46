import { JetStreamApiError, jetstreamManager, nanos, type NatsConnection } from '../clients/nats.ts';
import type { Logger } from '../runtime/logging.ts';
import { encodeLetter, type DeadLetter, type DeadLetters } from './dead-letters.ts';
import type { LetterStream } from './redrive/letter-stream.ts';
import { JetStreamRedrives, messageAt, store } from './redrive/requests.ts';

const streamNotFound = 10059;
const headerRoom = 1_024;

export interface DeadLetterSettings {
  /** Name of the stream (default `DEADLETTERS`). */
  readonly stream?: string;
  /** First token of its subjects (default `dl`). */
  readonly subject?: string;
  readonly replicas?: number;
  /** Told what keeps the processors from being told of requests. */
  readonly log?: Logger;
}

/** Dead letters on a JetStream stream, subject `dl.<processor>`. */
export class JetStreamDeadLetters implements DeadLetters {
  readonly redrives: JetStreamRedrives;
  readonly #letters: LetterStream;

  private constructor(letters: LetterStream, log: Logger | undefined) {
    this.#letters = letters;
    this.redrives = new JetStreamRedrives(letters, { log });
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
    return new JetStreamDeadLetters({ connection, jsm, stream: all.stream, subject: all.subject }, settings.log);
  }

  async publish(letter: DeadLetter): Promise<void> {
    const { connection, subject } = this.#letters;
    const data = encodeLetter(letter, (connection.info?.max_payload ?? 1024 ** 2) - headerRoom);
    const identity = `${letter.processor}:${letter.seq}:${letter.id}`;
    for (let copy = 0; ; copy++) {
      const stored = await store(this.#letters, `${subject}.${letter.processor}`, data, copy === 0 ? identity : `${identity}:${copy}`);
      // A duplicate of a letter that an operator has dropped or redriven since is no duplicate: the event failed again.
      if (!stored.duplicate || (await messageAt(this.#letters, stored.seq))) break;
    }
    this.redrives.look();
  }
}
