import { JetStreamApiError, jetstreamManager, nuid, type NatsConnection } from '../../clients/nats.ts';
import type { LogEvent, Seq } from '../../log/event-log.ts';
import { PullReader } from '../../log/pull-reader.ts';
import { HeadwaterError } from '../../runtime/errors.ts';
import { decodeLetter, type StoredLetter } from '../dead-letters.ts';
import { beside, type LetterStream } from './letter-stream.ts';
import { messageAt, nextMessage, remove, store, type RedriveRecord, type RequestBody } from './requests.ts';

const streamNotFound = 10059;
const highWaterBytes = 8 * 1024 ** 2;
/** Most of one request: it is applied in one commit. */
const mostLetters = 500;
const mostBytes = 1024 ** 2;
const headerRoom = 1_024;
/** After so long without a message it is asked whether there is one. */
const patienceMs = 500;

/** A letter as an operator sees it. */
export interface ListedLetter extends StoredLetter {
  /** An operator has asked for it to be redriven, and it has not been yet. */
  readonly asked: boolean;
}

/** A letter that an operator has dropped. */
export interface DroppedLetter extends StoredLetter {
  readonly dropped: { readonly at: string; readonly by: string; readonly reason: string };
}

/** A letter to be redriven, with the size of its event. */
export interface WantedLetter {
  readonly place: Seq;
  readonly bytes: number;
}

/** A request that was made: its record will stand after `place`. */
export interface MadeRequest {
  readonly id: string;
  readonly place: Seq;
  readonly processor: string;
  /** Places of the letters. */
  readonly letters: readonly Seq[];
}

/** The operators' side of the dead letters on JetStream. */
export class DeadLetterDesk {
  readonly #letters: LetterStream;

  private constructor(letters: LetterStream) {
    this.#letters = letters;
  }

  /** @param settings as of `JetStreamDeadLetters` */
  static async open(
    connection: NatsConnection,
    settings: { readonly stream?: string; readonly subject?: string } = {},
  ): Promise<DeadLetterDesk> {
    const jsm = await jetstreamManager(connection, { timeout: 10_000 });
    return new DeadLetterDesk({ connection, jsm, stream: 'DEADLETTERS', subject: 'dl', ...settings });
  }

  /** How many letters each processor has. */
  async counts(): Promise<ReadonlyMap<string, number>> {
    const { jsm, stream, subject } = this.#letters;
    const info = await absentAsUndefined(jsm.streams.info(stream, { subjects_filter: `${subject}.>` }));
    const counts = Object.entries(info?.state.subjects ?? {})
      .map(([name, count]) => [name.slice(subject.length + 1), count] as const)
      .filter(([name]) => !isBeside(name));
    return new Map(counts.sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  /**
   * All letters there are when it is called, the oldest first, one at a time.
   * @param processor its letters only, and those of its parts (`aggregates` has `aggregates.price`)
   */
  async *list(processor: string | undefined, signal: AbortSignal): AsyncGenerator<ListedLetter, void, undefined> {
    const asked = await this.asked(signal);
    const { subject } = this.#letters;
    const subjects = processor === undefined ? [`${subject}.>`] : [`${subject}.${processor}`, `${subject}.${processor}.>`];
    for await (const event of this.#read(subjects, signal)) {
      if (isBeside(event.subject.slice(subject.length + 1))) continue;
      const letter = decodeLetter(event.seq, event.data);
      if (letter) yield { ...letter, asked: asked.has(event.seq) };
    }
  }

  /** What has been asked for and not been done, by the place of the letter. */
  async asked(signal: AbortSignal): Promise<ReadonlyMap<Seq, MadeRequest>> {
    const asked = new Map<Seq, MadeRequest>();
    const start = this.#of(beside.redrive, '').length;
    for await (const { seq, subject, data } of this.#read([this.#of(beside.redrive, '>')], signal)) {
      const { id, letters } = parse(data) as RequestBody;
      for (const place of letters) asked.set(place, { id, place: seq, processor: subject.slice(start), letters });
    }
    return asked;
  }

  /** Letters that were dropped, the oldest first. */
  async *dropped(processor: string | undefined, signal: AbortSignal): AsyncGenerator<DroppedLetter, void, undefined> {
    const names = processor === undefined ? ['>'] : [processor, `${processor}.>`];
    for await (const { seq, data } of this.#read(
      names.map((name) => this.#of(beside.dropped, name)),
      signal,
    )) {
      const letter = decodeLetter(seq, data);
      if (letter) yield letter as DroppedLetter;
    }
  }

  /** Asks for letters of one processor to be redriven: durable when it resolves, done when the processor comes to it. In parts, as they are applied. */
  async request(processor: string, letters: readonly WantedLetter[]): Promise<readonly MadeRequest[]> {
    const made: MadeRequest[] = [];
    for (const part of partsOf(letters)) {
      const body: RequestBody = { id: nuid.next(), letters: part, at: new Date().toISOString() };
      const { seq } = await store(this.#letters, this.#of(beside.redrive, processor), Buffer.from(JSON.stringify(body)), body.id);
      made.push({ id: body.id, place: seq, processor, letters: part });
    }
    return made;
  }

  /** What became of requests, as it is known. Ends when all is, or when the signal fires. */
  async *results(requests: readonly MadeRequest[], signal: AbortSignal): AsyncGenerator<RedriveRecord, void, undefined> {
    const open = new Set(requests.map(({ id }) => id));
    if (open.size === 0) return;
    const from = Math.min(...requests.map(({ place }) => place)) + 1;
    for await (const { data } of this.#follow([this.#of(beside.redriven, '>')], from, signal)) {
      const record = parse(data) as RedriveRecord;
      if (!open.delete(record.id)) continue;
      yield record;
      if (open.size === 0) return;
    }
  }

  /** Takes a letter out, and keeps it as dropped. May be called again. */
  async drop({ place, processor }: Pick<StoredLetter, 'place' | 'processor'>, reason: string, by: string): Promise<boolean> {
    const message = await messageAt(this.#letters, place);
    if (!message) return false;
    const dropped = { at: new Date().toISOString(), by, reason: reason.slice(0, 1_000) };
    const data = withNote(message.data, { dropped }, (this.#letters.connection.info?.max_payload ?? 1024 ** 2) - headerRoom);
    await store(this.#letters, this.#of(beside.dropped, processor), data, `dropped:${message.time.getTime()}:${place}`);
    await remove(this.#letters, place);
    return true;
  }

  #of(token: string, processor: string): string {
    return `${this.#letters.subject}.${token}.${processor}`;
  }

  /** What the stream holds now. */
  async *#read(subjects: readonly string[], signal: AbortSignal): AsyncGenerator<LogEvent, void, undefined> {
    const { jsm, stream } = this.#letters;
    const info = await absentAsUndefined(jsm.streams.info(stream));
    if (!info || info.state.messages === 0) return;
    const last = info.state.last_seq;
    const reader = await this.#open(subjects, 1);
    try {
      for (let next = 1; !reader.drained;) {
        const events = await reader.take(AbortSignal.any([signal, AbortSignal.timeout(patienceMs)]));
        signal.throwIfAborted();
        // What the server has counted may have been removed before it was sent.
        if (!events && !(await this.#holds(subjects, next))) return;
        for (const event of events ?? []) {
          if (event.seq > last) return;
          yield event;
          next = event.seq + 1;
        }
      }
    } finally {
      reader.close();
    }
  }

  async #holds(subjects: readonly string[], from: Seq): Promise<boolean> {
    for (const subject of subjects) if (await nextMessage(this.#letters, subject, from)) return true;
    return false;
  }

  async *#follow(subjects: readonly string[], from: Seq, signal: AbortSignal): AsyncGenerator<LogEvent, void, undefined> {
    for (let next = from; !signal.aborted;) {
      const reader = await this.#open(subjects, next);
      try {
        for (let events = await reader.take(signal); events; events = await reader.take(signal)) {
          for (const event of events) {
            yield event;
            next = event.seq + 1;
          }
        }
      } catch (error) {
        // The connection was lost, say: from there again.
        if (!(error instanceof HeadwaterError) || error.reaction !== 'retry') throw error;
      } finally {
        reader.close();
      }
    }
  }

  #open(subjects: readonly string[], from: Seq): Promise<PullReader> {
    const { connection, jsm, stream } = this.#letters;
    const maxPayload = connection.info?.max_payload ?? 1024 ** 2;
    return PullReader.open(connection, jsm, { stream, subjects, start: { seq: from }, highWaterBytes, maxPayload });
  }
}

/** A letter with one more member in front, since the event is its last. Without the event, where there is no room for both. */
function withNote(letter: Uint8Array, note: object, most: number): Uint8Array {
  const body = Buffer.from(letter.buffer, letter.byteOffset, letter.byteLength).subarray(1);
  const front = Buffer.from(`${JSON.stringify(note).slice(0, -1)},`);
  if (front.length + body.length <= most) return Buffer.concat([front, body]);
  return Buffer.concat([front, body.subarray(0, body.indexOf(',"event":')), Buffer.from(',"event":null,"omitted":true}')]);
}

function isBeside(name: string): boolean {
  return Object.values(beside).some((token) => name.startsWith(`${token}.`));
}

/** Places of letters in parts, none of them too much for one commit. */
function* partsOf(letters: readonly WantedLetter[]): Generator<Seq[], void, undefined> {
  let part: Seq[] = [];
  let bytes = 0;
  for (const { place, bytes: size } of letters) {
    if (part.length >= mostLetters || (bytes >= mostBytes && part.length > 0)) {
      yield part;
      [part, bytes] = [[], 0];
    }
    part.push(place);
    bytes += size;
  }
  if (part.length > 0) yield part;
}

function parse(data: Uint8Array): unknown {
  return JSON.parse(Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('utf8'));
}

/** The stream is made when the first processor starts. */
async function absentAsUndefined<T>(asked: Promise<T>): Promise<T | undefined> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof JetStreamApiError && error.code === streamNotFound) return undefined;
    throw error;
  }
}
