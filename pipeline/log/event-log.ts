/** A stream sequence, from 1. It is the one position that every reader of the log shares. */
export type Seq = number;

/** An event as it is written: its subject, and the bytes that every reader will get. */
export interface NewEvent {
  readonly subject: string;
  readonly data: Uint8Array;
}

/** An event as it is read. */
export interface LogEvent extends NewEvent {
  readonly seq: Seq;
}

/** What the log holds. Empty when `first > last`. */
export interface Bounds {
  readonly first: Seq;
  readonly last: Seq;
  /** Names this history; another epoch means that positions of before say nothing here. */
  readonly epoch: string;
  /** The first sequence of this epoch, whether or not it is still held. */
  readonly epochStart: Seq;
  readonly bytes: number;
  readonly messages: number;
}

export interface ReadOptions {
  /** NATS subject filters; all of the log when absent. */
  readonly subjects?: readonly string[];
  /** Ends the reading: the iteration then simply ends. */
  readonly signal?: AbortSignal;
  /** Bytes that may wait unread before the reader stops asking the server for more (default 4 MiB). */
  readonly highWaterBytes?: number;
}

/**
 * The append-only log.
 *
 * `append` is atomic: all events or none, directly after `expectedLastSeq`, durable when it returns. It throws
 * `AppendConflict` when the log's last sequence is another one, and `AppendUnclear` when the events may have been stored
 * (a time-out, a lost connection): then ask `last()`.
 */
export interface EventLog {
  append(events: readonly NewEvent[], expectedLastSeq: Seq): Promise<Seq>;
  /** The same for a few events, each by itself (an atomic batch costs more): when it throws, a first part of them may be stored. */
  appendEach(events: readonly NewEvent[], expectedLastSeq: Seq): Promise<Seq>;
  /**
   * Events from `from` on in sequence order, in batches of whatever has arrived, for ever. Never skips: throws
   * `OffsetExpired` when events at or after `from` have been trimmed before they could be read, `log_regressed` (refused)
   * when the log ends before the event in front of `from`.
   */
  read(from: Seq, options?: ReadOptions): AsyncIterable<readonly LogEvent[]>;
  /** The event at exactly this sequence, if it is still held. */
  get(seq: Seq): Promise<LogEvent | undefined>;
  /** The last event, asked of the stream's leader; with a subject filter, the last of those. */
  last(subject?: string): Promise<LogEvent | undefined>;
  /** The last event of each subject that matches, in sequence order. */
  lastPerSubject(subject: string): Promise<readonly LogEvent[]>;
  /** The first event at or after a time (stream time), if there is one. */
  firstSince(time: Date): Promise<LogEvent | undefined>;
  bounds(): Promise<Bounds>;
}
