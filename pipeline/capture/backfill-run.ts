import type { Seq } from '../log/event-log.ts';
import { HeadwaterError } from '../runtime/errors.ts';
import { isFaultOfCondition } from './backfill-condition.ts';
import { Pace } from './backfill-pace.ts';
import type { ChunkReader } from './backfill-reader.ts';
import type { CopyState } from './log-record.ts';
import type { CapturedTable } from './tables.ts';

/** One table's copy as far as it has come. */
export class Run {
  readonly table: CapturedTable;
  readonly reader: ChunkReader;
  readonly pace: Pace;
  /** Fires when an operator wants something else. */
  readonly interrupt: AbortSignal;
  state: CopyState;
  /** Sequence up to which the tracker knows all events of the table. */
  seq: Seq | undefined;
  /** The rows to copy have been estimated: their number is only shown. */
  estimated = false;

  constructor(table: CapturedTable, reader: ChunkReader, state: CopyState, interrupt: AbortSignal) {
    this.table = table;
    this.reader = reader;
    this.state = resumed(table, state);
    this.pace = new Pace(state.rate);
    this.interrupt = interrupt;
  }
}

/** A place in another table of this name is none in this one. */
function resumed(table: CapturedTable, state: CopyState): CopyState {
  const { after, key, moved, seq, ...rest } = state;
  const copied = state.oid === table.oid ? { after, key, moved, seq } : { rows: 0, read: 0, total: 0 };
  return { ...rest, oid: table.oid, ...copied, note: undefined, error: undefined };
}

/**
 * Errors that another attempt will not change: a fault in values, in the statement or in a function that a condition calls,
 * a write (which the transaction does not allow), an unknown column or table, a missing privilege.
 */
export function isRequestFault(error: unknown, { where }: CopyState): boolean {
  if (error instanceof HeadwaterError && error.reaction === 'usage') return true;
  if (where !== undefined && isFaultOfCondition(error)) return true;
  const code = (error as { code?: unknown }).code;
  return typeof code === 'string' && /^(0A|21|22|25006|38|39|42|54|P0|no_such_table)/.test(code);
}
