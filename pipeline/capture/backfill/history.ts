import { tableToken } from '../../../schemas/subjects.ts';
import { OffsetExpired } from '../../log/errors.ts';
import type { EventLog, Seq } from '../../log/event-log.ts';
import type { ChangeTracker } from './change-tracker.ts';
import type { CapturedTable } from '../tables.ts';
import type { Visibility } from '../visibility.ts';

export interface HistoryParts {
  readonly eventLog: EventLog;
  readonly subject: string;
  readonly tracker: ChangeTracker;
  readonly signal: AbortSignal;
}

/**
 * Tells the tracker of a table's events from `from` to `to`, inclusive, both of the log. Changes that the snapshot sees are not
 * kept, but the rows that they have moved are: there may be very many, since a backfill can have been paused for long.
 * @param snapshot older than every chunk to come
 * @returns false when the log does not hold all of that any more
 */
export async function readBack(
  { eventLog, subject, tracker, signal }: HistoryParts,
  { schema, table, name }: Pick<CapturedTable, 'schema' | 'table' | 'name'>,
  range: { readonly from: Seq; readonly to: Seq },
  snapshot: Visibility,
): Promise<boolean> {
  const ofTable = `${subject}.${tableToken(schema, table)}.*`;
  // A reader of some subjects only cannot tell by itself that there is nothing more to come.
  const to = Math.min(range.to, (await eventLog.last(ofTable))?.seq ?? 0);
  if ((await eventLog.bounds()).first > range.from) return false;
  if (to < range.from) return true;
  tracker.forgetChanges(snapshot);
  try {
    for await (const events of eventLog.read(range.from, { subjects: [ofTable], signal })) {
      for (const event of events) {
        if (event.seq > to) break;
        const { tx } = JSON.parse(Buffer.from(event.data).toString('utf8')) as { tx?: { xid: number } };
        tracker.note({ data: event.data, xid: tx?.xid, table: name }, event.seq);
      }
      if (events.at(-1)!.seq >= to) break;
    }
    return true;
  } catch (error) {
    if (error instanceof OffsetExpired) return false;
    throw error;
  }
}
