import { backoffMs, pause } from '../runtime/backoff.ts';
import { HeadwaterError, messageOf, refused } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logging.ts';
import type { EventLog, LogEvent, NewEvent, Seq } from '../log/event-log.ts';
import { comparePositions, parseId, type Position } from '../source/position.ts';

const sayAgainMs = 60_000;

/** An event with the position that its `id` says. */
export interface PositionedEvent extends NewEvent, Position {}

/** The end of the log: its last sequence, and the position of the last event (of this epoch, if there is one). */
export interface LogEnd {
  readonly seq: Seq;
  readonly position: Position;
}

/** The log has grown by something that we did not write: a late batch of our predecessor, or another writer. */
export class LogMoved extends Error {}

/** The position that an event of the log names. Throws `foreign_event` (refused) when it names none. */
export function positionOf(event: LogEvent): Position {
  try {
    const { id } = JSON.parse(Buffer.from(event.data).toString('utf8')) as { id: string };
    return parseId(id);
  } catch {
    throw refused(
      'foreign_event',
      `the log's event ${event.seq} (${event.subject}) has no position: something other than capture has written to the stream`,
      'find and stop that writer, then take a new snapshot: headwater resnapshot',
    );
  }
}

/** Is this event of the log the last of its transaction, or of none? */
export function endsTransaction(event: LogEvent): boolean {
  const { tx } = JSON.parse(Buffer.from(event.data).toString('utf8')) as { tx?: { last?: boolean } };
  return tx === undefined || tx.last === true;
}

/**
 * Writes to the end of the log, and knows where that is. Every publish names the sequence it follows, so nothing can be
 * written twice or beside another writer. When an answer does not come, the log's own last event says how much was stored.
 */
export class LogWriter {
  readonly #log: EventLog;
  readonly #logger: Logger;
  readonly #signal: AbortSignal;
  readonly #onTrouble: (trouble: string | undefined) => void;
  #end: LogEnd;
  #saidAt = -Infinity;

  /** @param onTrouble told what keeps events from being written, and undefined when they are written again */
  constructor(
    log: EventLog,
    end: LogEnd,
    logger: Logger,
    signal: AbortSignal,
    onTrouble: (trouble: string | undefined) => void = () => undefined,
  ) {
    this.#log = log;
    this.#end = end;
    this.#logger = logger;
    this.#signal = signal;
    this.#onTrouble = onTrouble;
  }

  get end(): LogEnd {
    return this.#end;
  }

  /** Returns when all events are durable, for as long as it takes. Throws `LogMoved`, or `log_regressed` (refused). */
  write(events: readonly PositionedEvent[], atomic: boolean): Promise<void> {
    return this.#write([events], atomic);
  }

  /**
   * The same for several atomic batches, sent at once: each names the sequence that the one before it will end with, so the server
   * goes from one to the next without waiting for us.
   */
  writeAll(batches: readonly (readonly PositionedEvent[])[]): Promise<void> {
    return this.#write(batches, true);
  }

  async #write(batches: readonly (readonly PositionedEvent[])[], atomic: boolean): Promise<void> {
    let rest = batches;
    for (let attempt = 0; rest.length > 0; attempt++) {
      this.#signal.throwIfAborted();
      try {
        await this.#send(rest, atomic);
        if (attempt > 0) this.#recovered();
        return;
      } catch (error) {
        this.#trouble(error, attempt > 0);
      }
      await pause(attempt === 0 ? 0 : backoffMs(attempt), this.#signal);
      rest = await this.#unstored(rest);
    }
    // Everything had been stored after all: that, too, ends the trouble.
    this.#recovered();
  }

  async #send(batches: readonly (readonly PositionedEvent[])[], atomic: boolean): Promise<void> {
    let seq = this.#end.seq;
    const answers = await Promise.allSettled(
      batches.map((events) => {
        const answer = atomic ? this.#log.append(events, seq) : this.#log.appendEach(events, seq);
        seq += events.length;
        return answer;
      }),
    );
    for (const answer of answers) if (answer.status === 'rejected') throw answer.reason;
    this.#advance(seq, batches.at(-1)!.at(-1)!);
  }

  /** What of the batches the log does not hold yet; the end moves on over what it holds. */
  async #unstored(batches: readonly (readonly PositionedEvent[])[]): Promise<readonly (readonly PositionedEvent[])[]> {
    const begun = this.#end.seq;
    const { last } = await this.#ask(() => this.#log.bounds());
    if (last < begun)
      throw refused(
        'log_regressed',
        `the log ends at sequence ${last}, but ${begun} had been acknowledged`,
        'restore the log, or take a new snapshot: headwater resnapshot',
      );
    const rest = [...batches];
    while (rest.length > 0 && this.#end.seq < last) {
      const events = rest.shift()!;
      const stored = Math.min(events.length, last - this.#end.seq);
      if (!(await this.#holds(this.#end.seq + stored, events[stored - 1]!)))
        throw await this.#moved(last, batches.flat()[last - begun - 1]);
      this.#advance(this.#end.seq + stored, events[stored - 1]!);
      if (stored < events.length) rest.unshift(events.slice(stored));
    }
    if (this.#end.seq < last) throw await this.#moved(last, undefined);
    return rest;
  }

  /** Is this the event at this sequence of the log? */
  async #holds(seq: Seq, ours: PositionedEvent): Promise<boolean> {
    const event = await this.#ask(() => this.#log.get(seq));
    // Trimmed before it could be asked for: a new start finds out how far the log has come.
    if (!event) throw new LogMoved(`the log's event ${seq} is not held any more`);
    return comparePositions(positionOf(event), ours) === 0;
  }

  /**
   * Something in the log is not ours. If our own later batch stands behind it all the same, then another writer has put in
   * just as many events as a batch of ours: what stood in that batch is missing, and no new start would find out.
   */
  async #moved(last: Seq, ours: PositionedEvent | undefined): Promise<Error> {
    if (ours && (await this.#holds(last, ours)))
      return refused(
        'log_torn',
        `another writer's events stand in the log before sequence ${last}, in the place of ours`,
        'find and stop that writer, then take a new snapshot: headwater resnapshot',
      );
    return new LogMoved(`the log ends at ${last} with an event that this process has not written`);
  }

  async #ask<T>(question: () => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      this.#signal.throwIfAborted();
      try {
        return await question();
      } catch (error) {
        if (error instanceof HeadwaterError && error.reaction === 'refused') throw error;
        this.#trouble(error, attempt > 0);
        await pause(backoffMs(attempt), this.#signal);
      }
    }
  }

  /** Said at once and then each minute, but for an answer that was merely lost. */
  #trouble(error: unknown, again: boolean): void {
    if (!again) return this.#logger.debug({ error: messageOf(error) }, 'no clear answer from the log, asking for its last event');
    this.#onTrouble(messageOf(error));
    if (performance.now() - this.#saidAt < sayAgainMs) return;
    this.#saidAt = performance.now();
    this.#logger.warn({ error: messageOf(error) }, 'the log does not take events, trying again until it does');
  }

  #recovered(): void {
    this.#onTrouble(undefined);
    if (this.#saidAt > 0) this.#logger.info('the log takes events again');
    this.#saidAt = -Infinity;
  }

  #advance(seq: Seq, { lsn, index }: Position): void {
    this.#end = { seq, position: { lsn, index } };
  }
}
