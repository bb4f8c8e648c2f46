import { pause } from '../../runtime/backoff.ts';
import type { Visibility } from '../visibility.ts';
import { readBack } from './history.ts';
import type { BackfillOptions, Run } from './run.ts';

/**
 * From here on the changes of the table are tracked. Those logged before, by transactions that a snapshot may still not
 * see, are read back from the log; transactions of before this session are waited for, since nobody knows if they are logged.
 */
export async function prime(options: BackfillOptions, run: Run): Promise<void> {
  const { tracker, firstKnownXid, out } = options;
  const snapshot = await fitting(options, run, 'transactions that began before capture did', (now) => now.seesAllBelow(firstKnownXid));
  if (!snapshot) return;
  const { name } = run.table;
  const { seq, after, moved = [] } = run.state;
  const to = out.end.seq;
  tracker.track(name);
  tracker.forgetChanges(snapshot);
  const oldestUnseen = (): number => tracker.oldestUnseenSeq ?? Infinity;
  const from = Math.min(oldestUnseen(), after && seq !== undefined ? seq + 1 : Infinity);
  if (from <= to && !(await readBack({ ...options, signal: run.interrupt }, run.table, { from, to }, snapshot))) {
    run.beginAnew('the log does not hold what has happened since the last chunk');
    // What is gone may be of transactions that a chunk would not see.
    await fitting(options, run, 'transactions that are in the log and not visible yet', () => oldestUnseen() > to);
  } else tracker.addMoved(name, moved);
  run.seq = run.primed = to;
}

/** The first snapshot that fits; undefined when it was interrupted before. */
async function fitting(
  { tracker, signal }: BackfillOptions,
  run: Run,
  waitsFor: string,
  fits: (snapshot: Visibility) => boolean,
): Promise<Visibility | undefined> {
  for (let waited = 0; ; waited++) {
    signal.throwIfAborted();
    if (run.interrupt.aborted) return undefined;
    const snapshot = await run.reader.now();
    tracker.forgetTransactions(snapshot);
    if (fits(snapshot)) return snapshot;
    if (waited > 1) await run.waitsFor(waitsFor);
    run.stepAside();
    await pause(Math.min(1_000, 20 * 2 ** waited), run.interrupt);
  }
}
