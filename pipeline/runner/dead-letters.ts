import type { Seq } from '../log/event-log.ts';

/** An event that a processor could not apply. (processor, seq) says which one it is. */
export interface DeadLetter {
  readonly processor: string;
  readonly seq: Seq;
  /** The event's own id; empty when it could not be read. */
  readonly id: string;
  readonly code: string;
  readonly reason: string;
  readonly attempts: number;
  /** When it was given up, ISO 8601. */
  readonly at: string;
  /** The event as it stands in the log. */
  readonly event: Uint8Array;
}

/**
 * Where events go that a processor could not apply, to be looked at and redriven. `publish` returns when the letter is
 * stored durably, and may be called again with the same one: it is then stored once.
 */
export interface DeadLetters {
  publish(letter: DeadLetter): Promise<void>;
}

/** A letter as it is stored: the event's own JSON spliced in; base64 where it is none; left out (`omitted`) beyond `maxBytes`. */
export function encodeLetter(letter: DeadLetter, maxBytes = Infinity): Uint8Array {
  const { event, reason, ...head } = letter;
  const start = JSON.stringify({ ...head, reason: reason.slice(0, 2_000) }).slice(0, -1);
  const text = Buffer.from(event.buffer, event.byteOffset, event.byteLength);
  const body = isJson(text)
    ? Buffer.concat([Buffer.from(`${start},"event":`), text, Buffer.from('}')])
    : Buffer.from(`${start},"event":"${text.toString('base64')}","encoding":"base64"}`);
  return body.length <= maxBytes ? body : Buffer.from(`${start},"event":null,"omitted":true}`);
}

function isJson(text: Buffer): boolean {
  try {
    JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(text));
    return true;
  } catch {
    return false;
  }
}
