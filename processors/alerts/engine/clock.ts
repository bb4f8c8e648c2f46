import type { Seq } from '../../../pipeline/log/event-log.ts';
import type { Micros } from '../model.ts';

/** The event that is being applied. */
export interface Moment {
  readonly seq: Seq;
  /** Log time, the event's own time included. */
  readonly now: Micros;
  /** The event's id, read when asked for. */
  readonly id: () => string;
  /** The event's JSON, made when asked for. */
  readonly text: () => string;
}
