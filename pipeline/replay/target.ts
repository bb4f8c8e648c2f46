import type { LogEvent, Seq } from '../log/event-log.ts';

/** What a target has for good: a replay that goes on begins behind it. */
export interface Settled {
  /** The last event it has; undefined before the first. */
  readonly through: Seq | undefined;
  /** How many it has. */
  readonly events: number;
  /** Bytes of them as the target got them. */
  readonly bytes: number;
  /** What it needs besides to go on; JSON. */
  readonly state?: Readonly<Record<string, string | number>>;
}

/** Before the first event. */
export const nothingSettled: Settled = { through: undefined, events: 0, bytes: 0 };

/**
 * Where replayed events go. Events come in sequence order, each once. A target that takes them in units (a batch, a member of a gzip
 * file) cuts these by the events alone, so that a replay that goes on makes the same ones.
 */
export interface ReplayTarget {
  /** Takes events; resolves when more may come, not when they are there for good. */
  write(events: readonly LogEvent[], signal: AbortSignal): Promise<void>;
  /** Makes what was taken durable, as far as units are whole; with `end` all of it. */
  settle(end: boolean, signal: AbortSignal): Promise<Settled>;
  /** Lets go of what it holds. Safe to call twice. */
  close(): Promise<void>;
}
