import type { PgPool, PgPoolClient, Queryable } from '../../clients/postgres.ts';
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
  readonly namespaces: (client: Queryable) => Promise<Namespaces>;
  /** How long the live processor is held up at most, in ms; changed by each meeting. */
  patience: number;
}

/**
 * Holds the live processor up, lets the other one come to the same offset, and works in that moment, in the transaction that holds it up.
 * Undefined when they did not meet; nothing has been done then, and the live one did not wait unless the other had been where it was right before.
 */
export async function aligned(
  meeting: Meeting,
  { reach }: Steering,
  work: (client: Queryable) => Promise<void>,
): Promise<Namespaces | undefined> {
  const { pool, processor, namespaces } = meeting;
  // Most of the way before the live one has to wait.
  let met = true;
  for (let n = 0; n < approaches; n++) {
    const { rows } = await pool.query<{ seq: string | null }>('SELECT seq FROM headwater.processor_offsets WHERE processor = $1', [
      processor,
    ]);
    if (rows[0]?.seq != null) met = await reach(Number(rows[0].seq));
  }
  if (!met) return undefined;
  return transaction(pool, async (client) => {
    await client.query(`SET LOCAL idle_in_transaction_session_timeout = ${lockMs}`);
    const locked = await client.query<{ seq: string | null }>(
      'SELECT seq FROM headwater.processor_offsets WHERE processor = $1 FOR UPDATE',
      [processor],
    );
    const seq = locked.rows[0]?.seq;
    if (seq != null && !(await reach(Number(seq), meeting.patience))) {
      meeting.patience = Math.min(meeting.patience * 2, patienceMs.most);
      return undefined;
    }
    meeting.patience = patienceMs.first;
    const found = await namespaces(client);
    if (!found.offset || (found.liveOffset && found.liveOffset.epoch !== found.offset.epoch)) return undefined;
    await work(client);
    return found;
  });
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
