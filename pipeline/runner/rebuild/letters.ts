import type { EventLog, Seq } from '../../log/event-log.ts';
import type { Logger } from '../../runtime/logging.ts';
import type { DeadLetter, DeadLetters } from '../dead-letters.ts';
import { idOf } from '../event-head.ts';
import type { Processor } from '../processor.ts';

interface LetterParts {
  readonly deadLetters: DeadLetters;
  readonly eventLog: EventLog;
  readonly processor: Pick<Processor<unknown>, 'name'>;
  /** The sequences of all events that the state lacks. */
  readonly holes: () => Promise<readonly Seq[]>;
}

const mostRemembered = 10_000;

/**
 * Dead letters of a state that is made anew. What operators want redriven is for the live state alone, and a letter is gone once it is redriven there, or dropped, though the
 * state beside may still lack its event. So before that becomes the live one, every event that it lacks gets its letter.
 */
export class RebuildLetters implements DeadLetters {
  readonly #parts: LetterParts;
  readonly #log: Logger;
  /** Of this run, by sequence. */
  readonly #letters = new Map<Seq, DeadLetter>();
  /** What is done of a completion that is tried again. */
  readonly #done = new Set<Seq>();

  constructor(parts: LetterParts, log: Logger) {
    this.#parts = parts;
    this.#log = log;
  }

  async publish(letter: DeadLetter): Promise<void> {
    await this.#parts.deadLetters.publish(letter);
    if (this.#letters.size < mostRemembered) this.#letters.set(letter.seq, letter);
  }

  /**
   * Publishes a letter for each event that the state lacks; one that is there already is stored once. Having failed, it goes on where it was; having been done, it begins
   * anew: letters may have been redriven or dropped meanwhile.
   */
  async complete(): Promise<void> {
    for (const seq of await this.#parts.holes()) {
      if (this.#done.has(seq)) continue;
      const letter = this.#letters.get(seq) ?? (await this.#letterOf(seq));
      if (letter) await this.#parts.deadLetters.publish(letter);
      this.#done.add(seq);
    }
    this.#done.clear();
  }

  async #letterOf(seq: Seq): Promise<DeadLetter | undefined> {
    const { eventLog, processor } = this.#parts;
    const event = await eventLog.get(seq);
    if (!event) {
      this.#log.warn(
        { seq },
        `${processor.name}: the rebuilt state lacks event ${seq}, which the log does not hold any more: backfill its row`,
      );
      return undefined;
    }
    const { epoch } = await eventLog.bounds();
    return {
      processor: processor.name,
      seq,
      id: idOf(event),
      code: 'rebuild_hole',
      reason: 'this event could not be applied when the state was filled that a rebuild has flipped',
      attempts: 1,
      at: new Date().toISOString(),
      subject: event.subject,
      epoch,
      event: event.data,
    };
  }
}
