import { headers, JetStreamApiError } from '../../clients/nats.ts';
import type { Seq } from '../../log/event-log.ts';
import { HeadwaterError } from '../../runtime/errors.ts';
import type { Logger } from '../../runtime/logging.ts';
import {
  decodeLetter,
  encodeLetter,
  type LetterWatcher,
  type RedriveRequest,
  type RedriveRequests,
  type RedriveResult,
  type StoredLetter,
} from '../dead-letters.ts';
import { beside, type LetterStream } from './letter-stream.ts';
import { LetterWatch } from './watch.ts';

const noSuchMessage = 10037;
const deleteFailed = 10057;
const headerRoom = 1_024;
const atOnce = 50;
/** Whoever waits for a record has read it by then, also one who has lost the connection meanwhile. */
const recordsMs = 3_600_000;
const mostTidied = 500;

/** A request's body. */
export interface RequestBody {
  readonly id: string;
  readonly letters: readonly Seq[];
  readonly at: string;
}

/** What is kept of a redrive. */
export interface RedriveRecord {
  readonly id: string;
  readonly at: string;
  readonly results: readonly Omit<RedriveResult, 'letter'>[];
}

/** What the server answers to a stored message (ADR-22 publish acknowledgement). */
interface PubAck {
  readonly seq?: number;
  readonly duplicate?: boolean;
  readonly error?: { readonly description?: string };
}

/** A message as the server has it. */
interface StoredMessage {
  readonly seq: Seq;
  readonly subject: string;
  readonly data: Uint8Array;
  readonly time: Date;
  json(): unknown;
}

/** Stores a message, once for each id within the stream's window. Resolves when it is durable. */
export async function store(
  { connection, stream }: Pick<LetterStream, 'connection' | 'stream'>,
  subject: string,
  data: Uint8Array,
  messageId: string,
): Promise<{ readonly seq: Seq; readonly duplicate: boolean }> {
  const head = headers();
  head.set('Nats-Msg-Id', messageId);
  head.set('Nats-Expected-Stream', stream);
  const answer = await connection.request(subject, data, { headers: head, timeout: 10_000 });
  const { seq, duplicate = false, error } = answer.json<PubAck>();
  if (error || seq === undefined)
    throw new HeadwaterError(
      'dead_letter_refused',
      `the dead letter was not stored: ${error?.description ?? 'no sequence in the answer'}`,
      {
        reaction: 'retry',
      },
    );
  return { seq, duplicate };
}

/** The message at exactly this sequence, asked of the leader. */
export async function messageAt({ jsm, stream }: LetterStream, seq: Seq): Promise<StoredMessage | undefined> {
  return orNone(jsm.streams.getMessage(stream, { seq }));
}

/** The first message of a subject, or of those that a wildcard stands for, from a sequence on. Asked of the leader. */
export async function nextMessage({ jsm, stream }: LetterStream, subject: string, from: Seq): Promise<StoredMessage | undefined> {
  // The types of the client know this question only of the direct API.
  const query = { seq: from, next_by_subj: subject };
  return orNone(jsm.streams.getMessage(stream, query));
}

/** Removes a message; one that is not there is removed already. */
export async function remove(letters: LetterStream, seq: Seq): Promise<void> {
  try {
    // Nothing of it is secret: overwriting it would only take time.
    await letters.jsm.streams.deleteMessage(letters.stream, seq, false);
  } catch (error) {
    // The server has one code for all that keeps it from deleting.
    if (!(error instanceof JetStreamApiError) || error.code !== deleteFailed || (await messageAt(letters, seq))) throw error;
  }
}

async function orNone<T>(asked: Promise<T | null>): Promise<T | undefined> {
  try {
    return (await asked) ?? undefined;
  } catch (error) {
    if (error instanceof JetStreamApiError && error.code === noSuchMessage) return undefined;
    throw error;
  }
}

/** Does something with each item, with some of them at the same time. */
export async function eachOf<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const done: R[] = [];
  for (let start = 0; start < items.length; start += atOnce)
    done.push(...(await Promise.all(items.slice(start, start + atOnce).map(work))));
  return done;
}

/** A letter, unless there is none at this place. */
async function letterAt(letters: LetterStream, place: Seq): Promise<StoredLetter | undefined> {
  const message = await messageAt(letters, place);
  if (!message || Object.values(beside).some((token) => message.subject.startsWith(`${letters.subject}.${token}.`))) return undefined;
  return decodeLetter(place, message.data);
}

/** What operators want redriven, in the stream of the dead letters. */
export class JetStreamRedrives implements RedriveRequests {
  readonly #letters: LetterStream;
  readonly #watch: LetterWatch;
  readonly #recordsMs: number;

  /** @param keepMs how long what became of requests is kept (default 1 h) */
  constructor(letters: LetterStream, { keepMs = recordsMs, log }: { readonly keepMs?: number; readonly log?: Logger | undefined } = {}) {
    this.#letters = letters;
    this.#watch = new LetterWatch({ letters, tidy: (processor) => this.tidy(processor), log });
    this.#recordsMs = keepMs;
  }

  watch(processor: string, watcher: LetterWatcher): () => void {
    return this.#watch.watch(processor, watcher);
  }

  async next(processor: string): Promise<RedriveRequest | undefined> {
    const message = await nextMessage(this.#letters, `${this.#letters.subject}.${beside.redrive}.${processor}`, 1);
    if (!message) return undefined;
    const { id, letters } = message.json() as RequestBody;
    return { id, letters, place: message.seq };
  }

  letter(place: Seq): Promise<StoredLetter | undefined> {
    return letterAt(this.#letters, place);
  }

  async finish(processor: string, { id, place }: RedriveRequest, results: readonly RedriveResult[]): Promise<void> {
    const { connection, subject } = this.#letters;
    const most = (connection.info?.max_payload ?? 1024 ** 2) - headerRoom;
    await eachOf(results, async ({ place: old, outcome, letter, reason }) => {
      if (letter) await this.#keep(processor, id, letter, encodeLetter(letter, most));
      // Nobody knows why any more: this session has begun after another one had done it, and that may have put a new letter in the place of this.
      else if (outcome === 'failed' && reason === undefined) await this.#keepAsIs(processor, id, old);
      // The letter stays where it is.
      else if (outcome === 'failed') return;
      await remove(this.#letters, old);
    });
    const record: RedriveRecord = {
      id,
      at: new Date().toISOString(),
      results: results.map(({ letter: _letter, ...result }) => ({
        ...result,
        ...(result.reason && { reason: result.reason.slice(0, 200) }),
      })),
    };
    await store(this.#letters, `${subject}.${beside.redriven}.${processor}`, Buffer.from(JSON.stringify(record)), `redriven:${id}`);
    await remove(this.#letters, place);
    this.look();
  }

  /** The letters are others now: whoever watches is told soon how many there are. */
  look(): void {
    this.#watch.look();
  }

  /** Removes what was recorded of requests so long ago that nobody waits for it. */
  async tidy(processor: string): Promise<void> {
    const { subject } = this.#letters;
    let from = 1;
    for (let n = 0; n < mostTidied; n++) {
      const record = await nextMessage(this.#letters, `${subject}.${beside.redriven}.${processor}`, from);
      if (!record || record.time.getTime() > Date.now() - this.#recordsMs) return;
      await remove(this.#letters, record.seq);
      from = record.seq + 1;
    }
  }

  /** In the place of a letter that has failed again, once for each redrive. */
  async #keep(processor: string, id: string, letter: Pick<StoredLetter, 'processor' | 'seq' | 'id'>, data: Uint8Array): Promise<void> {
    const { subject } = this.#letters;
    await store(this.#letters, `${subject}.${processor}`, data, `${letter.processor}:${letter.seq}:${letter.id}:${id}`);
  }

  /** Stores the letter again as it is, unless the new one stands already. */
  async #keepAsIs(processor: string, id: string, place: Seq): Promise<void> {
    const message = await messageAt(this.#letters, place);
    const letter = message && decodeLetter(place, message.data);
    if (letter) await this.#keep(processor, id, letter, message.data);
  }
}
