import type { Seq } from '../log/event-log.ts';

/** An event that a processor could not apply. (processor, seq) says which one it is. */
export interface DeadLetter {
  readonly processor: string;
  readonly seq: Seq;
  /** The event's own id; empty when it could not be read. */
  readonly id: string;
  readonly code: string;
  readonly reason: string;
  /** Where in the program it failed. */
  readonly stack?: string;
  readonly attempts: number;
  /** When it was given up, ISO 8601. */
  readonly at: string;
  /** When it was first given up, if it has been redriven in vain since. */
  readonly firstAt?: string;
  /** The subject of the event, and the epoch of the log that it is of. */
  readonly subject?: string;
  readonly epoch?: string;
  /** The event as it stands in the log. */
  readonly event: Uint8Array;
}

/** A letter as it is read. */
export interface StoredLetter extends Omit<DeadLetter, 'event'> {
  /** Its own sequence among the dead letters. */
  readonly place: Seq;
  /** Undefined when there was no room for it. */
  readonly event: Uint8Array | undefined;
}

/**
 * Where events go that a processor could not apply, to be looked at and redriven. `publish` returns when the letter is
 * stored durably, and may be called again with the same one: it is then stored once.
 */
export interface DeadLetters {
  publish(letter: DeadLetter): Promise<void>;
  /** What operators want redriven; without it nothing is. */
  readonly redrives?: RedriveRequests;
}

/** An operator wants letters of one processor redriven. Its id is unique for all time. */
export interface RedriveRequest {
  readonly id: string;
  /** Its own sequence among the dead letters. */
  readonly place: Seq;
  /** Places of the letters. */
  readonly letters: readonly Seq[];
}

/**
 * What became of a letter: its event is `applied`, `superseded` by a newer one and changes nothing, `unneeded` since the state has it or will
 * come to it, or has `failed` again; `gone`: there is no such letter any more.
 */
export type RedriveOutcome = 'applied' | 'superseded' | 'unneeded' | 'failed' | 'gone';

export interface RedriveResult {
  readonly place: Seq;
  readonly outcome: RedriveOutcome;
  /** The event's sequence, when it is known. */
  readonly seq?: Seq;
  readonly reason?: string;
  /** Failed again: the letter to keep instead. */
  readonly letter?: DeadLetter;
}

/** What a processor is told of its dead letters. */
export interface LetterWatcher {
  /** There is a request, or there will be one in a moment. */
  asked(): void;
  /** How many letters it has. */
  letters(count: number): void;
}

/** The processors' side of redriving. What it throws is tried again. */
export interface RedriveRequests {
  /** Tells a processor of requests, at once or some seconds later, until the returned function is called. Never throws. */
  watch(processor: string, watcher: LetterWatcher): () => void;
  /** The oldest request that is not finished. */
  next(processor: string): Promise<RedriveRequest | undefined>;
  letter(place: Seq): Promise<StoredLetter | undefined>;
  /** Records what became of the letters, removes those that are done with, and then the request. May be called again. */
  finish(processor: string, request: RedriveRequest, results: readonly RedriveResult[]): Promise<void>;
}

const mostReason = 2_000;
const mostStack = 4_000;
const eventMark = ',"event":';

/** A letter as it is stored: the event's own JSON spliced in; base64 where it is none; left out (`omitted`) beyond `maxBytes`. */
export function encodeLetter(letter: DeadLetter, maxBytes = Infinity): Uint8Array {
  const { event, reason, stack, ...head } = letter;
  const trace = stack === undefined ? {} : { stack: stack.slice(0, mostStack) };
  const start = JSON.stringify({ ...head, reason: reason.slice(0, mostReason), ...trace }).slice(0, -1);
  const text = Buffer.from(event.buffer, event.byteOffset, event.byteLength);
  const body = isJson(text)
    ? Buffer.concat([Buffer.from(`${start},"event":`), text, Buffer.from('}')])
    : Buffer.from(`${start},"event":"${text.toString('base64')}","encoding":"base64"}`);
  return body.length <= maxBytes ? body : Buffer.from(`${start},"event":null,"omitted":true}`);
}

/** The reverse of `encodeLetter`; undefined for what is no letter. The event's bytes are what they were. */
export function decodeLetter(place: Seq, data: Uint8Array): StoredLetter | undefined {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  // A quote in any text before it is escaped there.
  const start = bytes.indexOf(eventMark);
  try {
    const head = JSON.parse(`${bytes.toString('utf8', 0, start)}}`) as Omit<DeadLetter, 'event'>;
    if (start < 0 || typeof head.processor !== 'string' || !Number.isSafeInteger(head.seq)) return undefined;
    const { encoding, omitted, event } = JSON.parse(bytes.toString('utf8')) as { encoding?: string; omitted?: boolean; event?: unknown };
    if (omitted) return { ...head, place, event: undefined };
    if (encoding === 'base64') return { ...head, place, event: Buffer.from(String(event), 'base64') };
    return { ...head, place, event: bytes.subarray(start + eventMark.length, bytes.length - 1) };
  } catch {
    return undefined;
  }
}

function isJson(text: Buffer): boolean {
  try {
    JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(text));
    return true;
  } catch {
    return false;
  }
}
