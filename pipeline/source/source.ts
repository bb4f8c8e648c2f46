import type { NewEvent } from '../log/event-log.ts';
import type { Lsn, Position } from './position.ts';

/** One event of a committed transaction, encoded. */
export interface SourceEvent extends NewEvent {
  readonly lsn: Lsn;
  readonly index: number;
  /** Unsigned 32 bit; undefined for what is not part of a transaction. */
  readonly xid: number | undefined;
  /** The last event of its transaction that is logged. */
  readonly last: boolean;
  /** `<schema>.<table>`, for row changes and truncates. */
  readonly table: string | undefined;
}

/**
 * Committed transactions in commit order, after a position, as they come: each step of the iteration gives what has
 * arrived since the step before. A transaction may spread over several steps; its last event says so.
 */
export interface Source {
  /** `onStart` is called once the database has begun to stream. */
  read(after: Position, signal: AbortSignal, onStart?: () => void): AsyncIterable<readonly SourceEvent[]>;
  /** Tells the database that everything before `lsn` is durable elsewhere and need not be kept. */
  confirm(lsn: Lsn): void;
}
