import type { LogEvent } from '../log/event-log.ts';

/**
 * What to do with an event that comes again after newer ones have been applied.
 */
export interface RedriveRules {
  /**
   * `rows`: an event says how its row is, so it is superseded, and not applied, when the log holds a later one of the same row.
   * `events`: every event counts by itself, whatever has come after it.
   */
  readonly of?: 'rows' | 'events';
  /** Under which sequence it is applied: its `own`, or that of the `tick` of the log before which it is, where sequences may only grow. */
  readonly under?: 'own' | 'tick';
  /** What an event changes besides its row, by name: a later event that changes one of these supersedes it, too. May throw: then it changes nothing. */
  concerns?(event: LogEvent): readonly string[];
}

/**
 * A consumer of the log with a state of its own. `apply` is deterministic: from the same events, the same effects.
 * Applying does no input or output; the state store carries the effects out together with the offset.
 */
export interface Processor<Effects> {
  /** Its role on the command line, its offset's name and its metric label. */
  readonly name: string;
  /** NATS subject filters; all of the log when absent. */
  readonly subjects?: readonly string[];
  /**
   * Loads what applying these events needs from the store, before the first of them is applied: at most as many as one commit may have.
   * Commits of earlier events may still be under way, so what they change must be in memory. Rejects when the store is away; then it is called again.
   */
  prepare?(events: readonly LogEvent[]): Promise<void>;
  /** Folds one event into the effects. Throwing sends the event to the dead letters, without a trace in `effects`. */
  apply(event: LogEvent, effects: Effects): void;
  /** An empty set of effects, before a batch. */
  begin(): Effects;
  /** How its dead letters are redriven (default: as of rows, under their own sequence). */
  readonly redrive?: RedriveRules;
  /** Called when the state in the store is not what this instance believed: forget everything kept in memory. */
  reset?(): void;
}
