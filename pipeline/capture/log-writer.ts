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

/** Events on their way to the log. */
interface Flight {
  readonly events: readonly PositionedEvent[];
  readonly atomic: boolean;
  readonly landed: () => void;
  readonly lost: (reason: unknown) => void;
  answer: Promise<Seq>;
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
  /** In the order of the log; what is in front is not known to be durable yet. */
  #flights: Flight[] = [];
  /** The sequence that the log ends with once all of them have landed. */
  #sent: Seq;
  #landing = false;
  /** Nothing is sent: it is being found out what of the flights has been stored. */
  #grounded = false;
  /** Times in a row that something had to be sent again. */
  #attempt = 0;
  #failure: { readonly reason: unknown } | undefined;
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
    this.#sent = end.seq;
    this.#logger = logger;
    this.#signal = signal;
    this.#onTrouble = onTrouble;
  }

  /** The end as far as it is known to be durable. */
  get end(): LogEnd {
    return this.#end;
  }

  /**
   * Sends events, as one atomic batch or each by itself, at once: behind those that are still on their way, each of which names
   * the sequence that the one before it will end with. Resolves when they are durable, in the order of the calls, for as long as it
   * takes. Rejects with `LogMoved`, `log_regressed`, `log_torn` (refused) or the signal's reason; nothing is written after that.
   */
  write(events: readonly PositionedEvent[], atomic: boolean): Promise<void> {
    return new Promise((landed, lost) => {
      if (this.#failure) return lost(this.#failure.reason);
      const flight: Flight = { events, atomic, landed, lost, answer: Promise.resolve(0) };
      this.#flights.push(flight);
      if (!this.#grounded) this.#send(flight);
      if (!this.#landing) void this.#land();
    });
  }

  #send(flight: Flight): void {
    const { events, atomic } = flight;
    flight.answer = atomic ? this.#log.append(events, this.#sent) : this.#log.appendEach(events, this.#sent);
    // Looked at when its turn comes.
    flight.answer.catch(() => undefined);
    this.#sent += events.length;
  }

  /** Takes the answers in order until nothing is on its way. */
  async #land(): Promise<void> {
    this.#landing = true;
    try {
      for (let flight = this.#flights[0]; flight; flight = this.#flights[0]) {
        const failed = await flight.answer.then(
          () => undefined,
          (error: unknown) => ({ error }),
        );
        if (failed) await this.#sendAgain(failed.error);
        else this.#advance(flight.events.length);
      }
    } catch (reason) {
      this.#failure = { reason };
      for (const { lost } of this.#flights.splice(0)) lost(reason);
    } finally {
      this.#landing = false;
    }
  }

  /** Finds out what of the flights is stored, and sends the rest once more. */
  async #sendAgain(reason: unknown): Promise<void> {
    this.#grounded = true;
    // Whatever is still on its way could be stored after we have asked.
    await Promise.allSettled(this.#flights.map(({ answer }) => answer));
    this.#signal.throwIfAborted();
    const attempt = this.#attempt++;
    this.#trouble(reason, attempt > 0);
    await pause(attempt === 0 ? 0 : backoffMs(attempt), this.#signal);
    await this.#landStored();
    this.#signal.throwIfAborted();
    this.#sent = this.#end.seq;
    for (const flight of this.#flights) this.#send(flight);
    this.#grounded = false;
  }

  /** The end moves on over those of the flights' events that the log holds. */
  async #landStored(): Promise<void> {
    const begun = this.#end.seq;
    const events = this.#flights.flatMap((flight) => flight.events);
    const { last } = await this.#ask(() => this.#log.bounds());
    if (last < begun)
      throw refused(
        'log_regressed',
        `the log ends at sequence ${last}, but ${begun} had been acknowledged`,
        'restore the log, or take a new snapshot: headwater resnapshot',
      );
    while (this.#flights.length > 0 && this.#end.seq < last) {
      const flight = this.#flights[0]!;
      const stored = Math.min(flight.events.length, last - this.#end.seq);
      if (!(await this.#holds(this.#end.seq + stored, flight.events[stored - 1]!))) throw await this.#moved(last, events[last - begun - 1]);
      this.#advance(stored);
    }
    if (this.#end.seq < last) throw await this.#moved(last, undefined);
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
    this.#attempt = 0;
    this.#onTrouble(undefined);
    if (this.#saidAt > 0) this.#logger.info('the log takes events again');
    this.#saidAt = -Infinity;
  }

  /** The first `count` events of the first flight are durable. */
  #advance(count: number): void {
    const flight = this.#flights[0]!;
    const { lsn, index } = flight.events[count - 1]!;
    this.#end = { seq: this.#end.seq + count, position: { lsn, index } };
    if (this.#attempt > 0) this.#recovered();
    if (count < flight.events.length) {
      this.#flights[0] = { ...flight, events: flight.events.slice(count) };
      return;
    }
    this.#flights.shift();
    flight.landed();
  }
}
