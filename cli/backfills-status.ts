import type { CopyState, LogRecord } from '../pipeline/capture/log-record.ts';

/** A copy of a table that is not done: what `headwater status` says of it. */
export interface BackfillStatus {
  readonly table: string;
  readonly state: 'running' | 'pending' | 'paused' | 'failed';
  /** Since when it is that, ISO 8601; undefined for what an older version has noted. */
  readonly since: string | undefined;
  /** When anything was last noted of it: its last chunk, or what it waits for. */
  readonly changedAt: string;
  /** Rows in the log, rows read, and about how many there are. */
  readonly rows: number;
  readonly read: number;
  readonly total: number;
  readonly where?: string;
  /** Most rows a second that were asked for, and rows a second of late. */
  readonly rate?: number;
  readonly speed?: number;
  /** What it waits for, or why it has failed. */
  readonly note?: string;
  readonly error?: string;
}

/** A copy that has noted nothing for so long does not move: a slow condition may take minutes until it is found how to ask it. */
const stuckSeconds = 300;

const order: readonly BackfillStatus['state'][] = ['failed', 'running', 'pending', 'paused'];

/** The copies that are under way, paused or have failed: what needs a person first. Empty when all are done. */
export async function backfillsStatus(record: Pick<LogRecord, 'notedCopies'>): Promise<readonly BackfillStatus[]> {
  const found = (await record.notedCopies()).flatMap(({ state, changedAt }) => statusOf(state, changedAt));
  return found.sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state) || (a.table < b.table ? -1 : 1));
}

function statusOf(copy: CopyState, changedAt: Date): BackfillStatus[] {
  const { table, state, since, rows, read = rows, total = 0, where, rate, speed, note, error, whole } = copy;
  // That some rows have been copied since does not mend it.
  if (whole?.state === 'failed' && (state === 'done' || state === 'cancelled')) return statusOf(wholeCopy(copy, whole), changedAt);
  if (state === 'done' || state === 'none' || state === 'cancelled') return [];
  return [
    {
      ...{ table, state, since, changedAt: changedAt.toISOString(), rows, read, total },
      ...(where !== undefined && { where }),
      ...(rate !== undefined && { rate }),
      ...(state === 'running' && speed !== undefined && { speed }),
      ...(note !== undefined && { note }),
      ...(error !== undefined && { error }),
    },
  ];
}

/** The copy of all rows that had failed before some of them were copied: how many it had logged is not known any more. */
function wholeCopy({ table, oid, total = 0 }: CopyState, { error }: NonNullable<CopyState['whole']>): CopyState {
  return { table, oid, state: 'failed', rows: 0, total, error };
}

/**
 * Copies that have failed, and a queue that does not move though capture runs.
 * @param capturing capture holds its slot: that it does not is told elsewhere
 */
export function backfillsProblems(backfills: readonly BackfillStatus[] | undefined, capturing: boolean): string[] {
  const failed = (backfills ?? []).filter(({ state }) => state === 'failed');
  const problems = failed.map(
    ({ table, error }) =>
      `the backfill of ${table} has failed: ${error ?? 'no reason given'}. ` +
      `Mend the cause and ask again, or \`headwater backfill cancel ${table}\` gives it up`,
  );
  const open = (backfills ?? []).filter(({ state }) => state === 'running' || state === 'pending');
  // One is copied at a time: the others wait for their turn.
  const last = open.toSorted((a, b) => Date.parse(b.changedAt) - Date.parse(a.changedAt))[0];
  const seconds = last ? (Date.now() - Date.parse(last.changedAt)) / 1_000 : 0;
  if (last && capturing && seconds > stuckSeconds) {
    const { table, note } = open.find(({ state }) => state === 'running') ?? last;
    problems.push(
      `the backfill of ${table} has not moved for ${Math.round(seconds)} s${note === undefined ? ': the log of capture says why' : `: it ${note}`}`,
    );
  }
  return problems;
}
