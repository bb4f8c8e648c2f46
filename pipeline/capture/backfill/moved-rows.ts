import type { Key, Moved } from '../row-key.ts';
import type { ChangeTracker } from './change-tracker.ts';
import type { Chunk } from './reader.ts';
import { parsedKey } from './row-change.ts';
import type { Run } from './run.ts';
import type { Transfer } from './transfer.ts';

/** Rows that are read again in one go. */
const movedAtOnce = 50;
/** So many may wait for it: they are kept in the state. */
const maxMoved = 200;

export interface MovedRead {
  readonly logged: number;
  readonly keptBy: 'interrupted' | 'stuck' | undefined;
}

/**
 * Reads rows that have moved, by an event that has only a part of them, to where the chunks may have gone by. Some of them at
 * once; all of them when there are many, or when this was the last chunk.
 * @returns how many were logged, and what kept it from logging all that had to be: an order, or that they are not visible for long
 * while others wait
 */
export async function readMoved(run: Run, { key, next }: Chunk, transfer: Transfer, tracker: ChangeTracker): Promise<MovedRead> {
  const { name } = run.table;
  const range = { where: run.state.where, key };
  let logged = 0;
  let atOnce = movedAtOnce;
  for (let waited = 0; tracker.moved(name).length > 0; waited++) {
    const some = tracker.moved(name).slice(0, atOnce);
    const keys = some.map((moved) => moved.key);
    const read = await transfer.read(run, (onSnapshot) => run.reader.readKeys(keys, range, onSnapshot));
    if (!read) return { logged, keptBy: 'interrupted' };
    const inserted = await transfer.insert(run, read);
    logged += inserted?.logged ?? 0;
    const done = inserted === undefined ? [] : doneOf(some, inserted.chunk, transfer);
    tracker.forgetMoved(name, new Set(done));
    if (next && tracker.moved(name).length < maxMoved) break;
    // As many as found room.
    if (read.chunk.cut) atOnce = Math.max(1, Math.min(atOnce - 1, read.chunk.rows.length));
    if (done.length > 0) waited = 0;
    else if (run.isStuck) return { logged, keptBy: 'stuck' };
    else await run.waitUntilVisible(waited);
  }
  return { logged, keptBy: undefined };
}

/** Those of the moved rows that a chunk has as they are, or that are no longer there. */
function doneOf(moved: readonly Moved[], { table, rows, cut, snapshot }: Chunk, { writer }: Transfer): readonly Moved[] {
  const visible = moved.filter(({ xid }) => snapshot.sees(xid));
  if (!cut || moved.length === 1) return visible;
  const text = (key: Key): string => JSON.stringify(Object.values(key));
  const found = new Set(rows.map((row) => text(parsedKey(writer.rawKeyOf(table, row)))));
  return visible.filter(({ key }) => found.has(text(key)));
}
