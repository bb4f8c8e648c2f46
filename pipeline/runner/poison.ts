import type { LogEvent } from '../log/event-log.ts';
import { HeadwaterError, messageOf, refused } from '../runtime/errors.ts';
import type { DeadLetter } from './dead-letters.ts';
import { idOf } from './event-head.ts';
import type { Processor } from './processor.ts';

const attempts = 3;
const mostInARow = 10;

/** Applies events; an event that fails again and again becomes a letter, and too many of those in a row an error. */
export class Applier<Effects> {
  readonly #processor: Processor<Effects>;
  #inARow = 0;

  constructor(processor: Processor<Effects>) {
    this.#processor = processor;
  }

  /**
   * Applies one event. Returns the letter to publish, before the offset may move past the event, if it cannot be applied.
   * @throws HeadwaterError `too_many_dead_letters` when ten in a row cannot: that is a fault of the processor, not of an event
   */
  apply(event: LogEvent, effects: Effects): DeadLetter | undefined {
    const failed = attempt(this.#processor, event, effects);
    if (!failed) {
      // A tick concerns every processor and tries none of them.
      if (!event.subject.endsWith('._tick')) this.#inARow = 0;
      return undefined;
    }
    const { name } = this.#processor;
    if (++this.#inARow >= mostInARow)
      throw refused(
        'too_many_dead_letters',
        `${name} could not apply ${mostInARow} events in a row, the last of them ${event.seq}: ${failed.reason}`,
        'this is a fault of the processor rather than of the events: correct it and start it again, it goes on where its last commit was',
      );
    return {
      processor: name,
      seq: event.seq,
      id: idOf(event),
      ...failed,
      at: new Date().toISOString(),
      subject: event.subject,
      event: event.data,
    };
  }
}

/** Applies an event, more than once if it has to be. Undefined when it could be applied, else what is to be said of it. */
export function attempt<Effects>(
  processor: Processor<Effects>,
  event: LogEvent,
  effects: Effects,
): Pick<DeadLetter, 'code' | 'reason' | 'stack' | 'attempts'> | undefined {
  let failure: unknown;
  for (let n = 0; n < attempts; n++) {
    try {
      processor.apply(event, effects);
      return undefined;
    } catch (error) {
      failure = error;
    }
  }
  return {
    code: failure instanceof HeadwaterError ? failure.code : 'processor_error',
    reason: messageOf(failure),
    ...(failure instanceof Error && failure.stack !== undefined && { stack: failure.stack }),
    attempts,
  };
}
