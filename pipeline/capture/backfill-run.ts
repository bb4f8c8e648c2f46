import type { Seq } from '../log/event-log.ts';
import { Pace } from './backfill-pace.ts';
import type { ChunkReader } from './backfill-reader.ts';
import type { CopyState } from './log-record.ts';
import type { CapturedTable } from './tables.ts';

/** One table's time at work. */
export interface Turn {
  /** Fires when an operator wants something else. */
  readonly interrupt: AbortSignal;
  /** Are there others that wait for their turn? */
  readonly othersWait: () => boolean;
}

/** One table's copy as far as it has come. */
export class Run {
  readonly table: CapturedTable;
  readonly reader: ChunkReader;
  readonly pace: Pace;
  /** Fires when an operator wants something else. */
  readonly interrupt: AbortSignal;
  /** Do others wait for their turn? */
  readonly othersWait: () => boolean;
  state: CopyState;
  /** Sequence up to which the tracker knows all events of the table. */
  seq: Seq | undefined;
  /** Nothing has been logged that the state does not count: to end here repeats nothing. */
  atPlace = true;
  /** When the last chunk was done. */
  movedOnAt = performance.now();
  /** The rows to copy have been estimated: their number is only shown. */
  estimated = false;

  constructor(table: CapturedTable, reader: ChunkReader, state: CopyState, { interrupt, othersWait }: Turn) {
    this.table = table;
    this.reader = reader;
    this.state = resumed(table, state);
    this.pace = new Pace(state.rate);
    this.interrupt = interrupt;
    this.othersWait = othersWait;
  }
}

/** A place in another table of this name is none in this one. */
function resumed(table: CapturedTable, state: CopyState): CopyState {
  const { after, key, moved, seq, ...rest } = state;
  const copied = state.oid === table.oid ? { after, key, moved, seq } : { rows: 0, read: 0, total: 0 };
  return { ...rest, oid: table.oid, ...copied, note: undefined, error: undefined };
}
