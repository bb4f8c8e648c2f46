import type { PgPool, PgPoolClient, Queryable } from '../../clients/postgres.ts';
import type { Bounds } from '../../log/event-log.ts';
import { HeadwaterError } from '../../runtime/errors.ts';
import { requireContinuity } from '../offset-check.ts';
import type { Offset } from '../state-store.ts';
import type { Steering } from './model.ts';

/** After so long without an answer a lock that holds the live processor up is given back. */
const lockMs = 10_000;
const approaches = 4;
/** So long the live processor waits for the other one: the most at first, and the more often that did not suffice, the more. */
export const patienceMs = { first: 250, most: 1_000 } as const;

/** Where both states are, and how far. */
export interface Namespaces {
  readonly live: string;
  readonly beside: string | undefined;
  readonly liveOffset: Offset | undefined;
  readonly offset: Offset | undefined;
}

export interface Meeting {
  readonly pool: PgPool;
  readonly processor: string;
  readonly namespaces: (client: PgPool | Queryable) => Promise<Namespaces>;
  /** How long the live processor is held up at most, in ms; changed by each meeting. */
  patience: number;
}

/** Nobody works on the live state, and it can no longer go on from where it stands. */
export interface Stopped {
  readonly kind: 'stopped';
  /** `not_begun`, or what `requireContinuity` says of it. */
  readonly code: string;
  readonly why: string;
  readonly offset: Offset | undefined;
  /** The log's epoch when that was found. */
  readonly epoch: string;
}

/** The live state has to come along first. */
export interface Behind {
  readonly kind: 'behind';
  readonly why: string;
  /** Somebody works on it. */
  readonly atWork: boolean;
}

interface LiveRow {
  readonly seq: string | null;
  readonly epoch: string | null;
  readonly leased: boolean;
}

const readLive = `
  SELECT seq, epoch, coalesce(leased_until > clock_timestamp(), false) AS leased FROM headwater.processor_offsets WHERE processor = $1`;

const placeForLive = 'INSERT INTO headwater.processor_offsets (processor) VALUES ($1) ON CONFLICT (processor) DO NOTHING';

/**
 * Holds the live processor up, lets the other one come to the same offset, and works in that moment, in the transaction that holds it up.
 * Undefined when they did not meet; nothing has been done then, and the live one did not wait unless the other had been where it was right before.
 * They never meet where there is an `obstacle`.
 */
export async function aligned(
  meeting: Meeting,
  { reach }: Steering,
  work: (client: Queryable) => Promise<void>,
): Promise<Namespaces | undefined> {
  const { pool, processor, namespaces } = meeting;
  // Most of the way before the live one has to wait.
  let met = false;
  for (let n = 0; n < approaches; n++) {
    const { offset } = await liveAt(pool, processor);
    met = offset !== undefined && (await reach(offset.seq));
  }
  if (!met) return undefined;
  return transaction(pool, async (client) => {
    const { offset } = await lockLive(client, processor);
    if (!offset) return undefined;
    if (!(await reach(offset.seq, meeting.patience))) {
      meeting.patience = Math.min(meeting.patience * 2, patienceMs.most);
      return undefined;
    }
    meeting.patience = patienceMs.first;
    const found = await namespaces(client);
    if (found.offset?.epoch !== offset.epoch) return undefined;
    await work(client);
    return found;
  });
}

/** Why the two cannot meet as they are now; undefined: they can. */
export async function obstacle(meeting: Meeting, { bounds }: Steering): Promise<Stopped | Behind | undefined> {
  const { pool, processor } = meeting;
  const { offset, leased } = await liveAt(pool, processor);
  if (!leased) {
    // Asked for later than the offset, which the log therefore holds, unless it has lost events.
    const now = await bounds();
    const reason = offset ? discontinuity(processor, offset, now) : { code: 'not_begun', why: `${processor} has not begun` };
    if (reason) return { kind: 'stopped', ...reason, offset, epoch: now.epoch };
  }
  const beside = (await meeting.namespaces(pool)).offset;
  if (!beside || (offset?.epoch === beside.epoch && offset.seq >= beside.seq)) return undefined;
  const at = offset ? `at ${offset.seq}${offset.epoch === beside.epoch ? '' : ` of epoch ${offset.epoch}`}` : 'at its beginning';
  const why = `the live one is ${at}, and has to come to ${beside.seq} first${leased ? '' : ': start it'}`;
  return { kind: 'behind', why, atWork: leased };
}

function discontinuity(processor: string, offset: Offset, bounds: Bounds): Pick<Stopped, 'code' | 'why'> | undefined {
  try {
    requireContinuity(processor, offset, bounds);
    return undefined;
  } catch (error) {
    if (error instanceof HeadwaterError) return { code: error.code, why: error.message };
    throw error;
  }
}

/**
 * Works in a transaction in which a live state that was found to be stopped stays so. Undefined when it is not the same any more, or what stands beside is not of the log as
 * it is now: nothing has been done then.
 */
export async function apart(
  { pool, processor, namespaces }: Meeting,
  { offset, epoch }: Stopped,
  work: (client: Queryable) => Promise<void>,
): Promise<Namespaces | undefined> {
  return transaction(pool, async (client) => {
    await client.query(placeForLive, [processor]);
    const now = await lockLive(client, processor);
    if (now.leased || now.offset?.seq !== offset?.seq || now.offset?.epoch !== offset?.epoch) return undefined;
    const found = await namespaces(client);
    if (found.offset?.epoch !== epoch) return undefined;
    await work(client);
    return found;
  });
}

async function liveAt(client: PgPool | Queryable, processor: string, lock = ''): Promise<{ offset: Offset | undefined; leased: boolean }> {
  const { rows } = await client.query<LiveRow>(`${readLive}${lock}`, [processor]);
  const { seq = null, epoch = null, leased = false } = rows[0] ?? {};
  return { offset: seq === null || epoch === null ? undefined : { seq: Number(seq), epoch }, leased };
}

async function lockLive(client: Queryable, processor: string): ReturnType<typeof liveAt> {
  await client.query(`SET LOCAL idle_in_transaction_session_timeout = ${lockMs}`);
  return liveAt(client, processor, ' FOR UPDATE');
}

/** Runs something in a transaction. */
export async function transaction<T>(pool: PgPool, work: (client: PgPoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    const done = await work(client);
    await client.query('COMMIT');
    client.release();
    return done;
  } catch (error) {
    client.release(true);
    throw error;
  }
}
