import { unexpectedAnswer } from '../../../pipeline/clients/redis.ts';
import type { Seq } from '../../../pipeline/log/event-log.ts';
import type { Definition, Micros } from '../model.ts';
import { decodeRecord } from '../store/record.ts';
import type { Piece } from './summary.ts';

/** What Redis answers to a script: texts, numbers, nothing, lists. */
type Reply = Buffer | number | null | readonly Reply[];

/** The state of an aggregate that was read: all of the answer is as of `seq`. */
export interface Head {
  /** Undefined while nothing has been folded yet. */
  readonly seq: Seq | undefined;
  readonly epoch: string;
  /** Log time in microseconds. */
  readonly clock: Micros | undefined;
}

/** Reads an answer part by part. */
export class Answer {
  readonly head: Head;
  readonly #parts: readonly Reply[];
  #next = 0;

  constructor(reply: unknown) {
    const [, seq, epoch, clock, body] = listOf(reply as Reply);
    const [position, time] = [textOf(seq), textOf(clock)];
    this.head = {
      seq: position === undefined ? undefined : Number(position),
      epoch: textOf(epoch) ?? '',
      clock: time === undefined ? undefined : Number(time),
    };
    this.#parts = listOf(body);
  }

  get ended(): boolean {
    return this.#next >= this.#parts.length;
  }

  text(): string | undefined {
    return textOf(this.#parts[this.#next++]);
  }

  number(): number | undefined {
    const part = this.#parts[this.#next++];
    const number = Number(typeof part === 'number' ? part : (textOf(part) ?? NaN));
    return Number.isFinite(number) ? number : undefined;
  }

  list(): readonly Reply[] {
    return listOf(this.#parts[this.#next++]);
  }

  texts(): readonly string[] {
    return this.list().map((part) => textOf(part) ?? '');
  }
}

/** The entry that the registry has instead of the expected one; undefined when the answer is one. `''`: it has none. */
export function movedTo(reply: unknown): string | undefined {
  const [kind, entry] = listOf(reply as Reply);
  return kind === 0 ? (textOf(entry) ?? '') : undefined;
}

/** A window of one level that was read; without a piece it is empty. */
export interface LevelWindow {
  readonly level: Definition['levels'][number];
  readonly index: number;
  readonly piece: Piece | undefined;
}

export function windowOf(reply: Reply | undefined, { levels }: Definition): LevelWindow {
  const [number, index, record, counts] = listOf(reply);
  const level = levels[Number(number) - 1];
  const at = Number(textOf(index));
  if (!level || !Number.isSafeInteger(at)) throw unexpectedAnswer('a window', reply);
  const text = textOf(record);
  const panes = level.micros / levels[0]!.micros;
  const first = at * panes;
  const piece = text === undefined ? undefined : { first, last: first + panes - 1, record: decodeRecord(text), counts: countsOf(counts) };
  return { level, index: at, piece };
}

export function piecesOf(reply: Reply | undefined, definition: Definition): readonly Piece[] {
  return listOf(reply).flatMap((window) => windowOf(window, definition).piece ?? []);
}

export function listOf(reply: Reply | undefined): readonly Reply[] {
  if (!Array.isArray(reply)) throw unexpectedAnswer('a reading', reply);
  return reply as readonly Reply[];
}

export function textOf(reply: Reply | undefined): string | undefined {
  return Buffer.isBuffer(reply) ? reply.toString('utf8') : typeof reply === 'number' ? String(reply) : undefined;
}

function countsOf(reply: Reply | undefined): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  if (reply == null) return counts;
  const flat = listOf(reply);
  for (let i = 0; i + 1 < flat.length; i += 2) counts.set(textOf(flat[i])!, Number(textOf(flat[i + 1])));
  return counts;
}
