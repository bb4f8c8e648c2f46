import { randomUUID } from 'node:crypto';
import type { PgPool, Queryable } from '../../clients/postgres.ts';
import { HeadwaterError } from '../../runtime/errors.ts';
import { PostgresStateStore, type PostgresEffects } from '../postgres-state-store.ts';
import type { Offset } from '../state-store.ts';
import type { Beside, BesideState, BesideStatus, FlipOutcome } from './model.ts';
import { compareAll, type ComparedRows } from './postgres-comparison.ts';
import { aligned, apart, obstacle, patienceMs, transaction, type Meeting, type Namespaces } from './postgres-meeting.ts';
import { liveStopped, overtaken } from './refusals.ts';

export interface PostgresBesideParts<Effects> {
  readonly pool: PgPool;
  /** The processor's name: that of its offset. */
  readonly processor: string;
  readonly effects: PostgresEffects<Effects>;
  /** Every table of its state, as `<schema>.<table>`: each has a primary key that begins with the column `processor`, which holds the namespace. */
  readonly tables: readonly string[];
  /** What is compared, where that is not simply the rows of the tables. */
  readonly compared?: readonly ComparedRows[];
  /**
   * For which reasons (`not_begun`, `epoch_changed`, `offset_expired`) its role goes on by itself, and does more then than change its state: what is made anew does not take
   * the place of a live state that waits for that (default: none).
   */
  readonly mends?: readonly string[];
}

const suffix = '~rebuild';

/** What the offset beside is called. */
export function besideName(processor: string): string {
  return `${processor}${suffix}`;
}

/** $1: a processor, or null for all of them. */
const statusQuery = `
  SELECT r.processor AS name, r.state, to_char(r.since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS since, r.making, b.seq AS beside_seq, b.epoch AS beside_epoch, l.seq AS live_seq, l.epoch AS live_epoch,
    coalesce(b.leased_until > clock_timestamp(), false) AS leased
  FROM headwater.processor_rebuilds r
  LEFT JOIN headwater.processor_offsets b ON b.processor = r.processor || '${suffix}'
  LEFT JOIN headwater.processor_offsets l ON l.processor = r.processor
  WHERE r.processor = $1 OR $1::text IS NULL
  ORDER BY r.processor`;

const namespacesQuery = `
  SELECT processor, coalesce(namespace, $1) AS namespace, seq::text, epoch FROM headwater.processor_offsets WHERE processor IN ($1, $2)`;

const noteBeginning = `
  INSERT INTO headwater.processor_rebuilds (processor, state, making) VALUES ($1, 'filling', $2) ON CONFLICT (processor) DO NOTHING`;

const setState = `
  UPDATE headwater.processor_rebuilds SET state = $4, making = $5, since = clock_timestamp() WHERE processor = $1 AND state = $2 AND making = $3`;

/** Since when it stands there does not change. */
const claimIt = 'UPDATE headwater.processor_rebuilds SET making = $4 WHERE processor = $1 AND state = $2 AND making = $3';

/** Does the same stand beside, in a place that is not that of the live state? Until the transaction's end it stays so. */
const holdIt = `
  SELECT FROM headwater.processor_rebuilds r
  JOIN headwater.processor_offsets b ON b.processor = $2 AND b.namespace IS NOT NULL
  LEFT JOIN headwater.processor_offsets l ON l.processor = $1
  WHERE r.processor = $1 AND r.state = $3 AND r.making = $4 AND b.namespace IS DISTINCT FROM coalesce(l.namespace, $1)
  FOR SHARE OF r`;

const forgetOffset = `
  UPDATE headwater.processor_offsets SET seq = NULL, epoch = NULL, head = NULL, redriven = NULL, holes = '{}' WHERE processor = $1`;

const deleteRecord = 'DELETE FROM headwater.processor_rebuilds WHERE processor = $1 AND state = $2 AND making = $3';

const isFlipped = `SELECT FROM headwater.processor_rebuilds WHERE processor = $1 AND state = 'kept' AND making = $2`;

/** All of what is said of a state but who works on it, in both rows. */
const exchange = `
  UPDATE headwater.processor_offsets o
  SET seq = other.seq, epoch = other.epoch, head = other.head, redriven = other.redriven, holes = other.holes, namespace = coalesce(other.namespace, other.processor)
  FROM headwater.processor_offsets other
  WHERE (o.processor, other.processor) IN (($1, $2), ($2, $1))`;

/**
 * A second state of a processor whose store is `PostgresStateStore`: rows of the same tables, marked with another namespace. A flip exchanges what the two offsets say, in one
 * transaction, while the live processor waits: both stand at the same offset then.
 */
export function postgresBeside<Effects>(parts: PostgresBesideParts<Effects>): Beside<Effects> {
  const { pool, processor, effects, tables, mends = [] } = parts;
  const beside = besideName(processor);
  /** What this process works on, and what it is called once it has been flipped. */
  let standing: Standing = { state: 'filling', making: '' };
  let next = '';
  const work = (state: BesideState, making: string): string => {
    standing = { state, making };
    next = randomUUID();
    return making;
  };
  const holds = async (client: Queryable): Promise<boolean> =>
    (await client.query(holdIt, [processor, beside, standing.state, standing.making])).rowCount === 1;
  const store = new PostgresStateStore(pool, beside, effects, holds);
  /** Changes what is noted, if it is still the same. */
  const change = async (client: PgPool | Queryable, statement: string, { state, making }: Standing, ...values: string[]): Promise<void> => {
    const { rowCount } = await client.query(statement, [processor, state, making, ...values]);
    if (rowCount !== 1) throw overtaken(processor);
  };
  const namespaces = async (client: PgPool | Queryable): Promise<Namespaces> => {
    const { rows } = await client.query<{ processor: string; namespace: string; seq: string | null; epoch: string | null }>(
      namespacesQuery,
      [processor, beside],
    );
    const [live, other] = [processor, beside].map((name) => rows.find((row) => row.processor === name));
    const offset = (row: typeof live): Offset | undefined =>
      row?.seq == null || row.epoch === null ? undefined : { seq: Number(row.seq), epoch: row.epoch };
    return { live: live?.namespace ?? processor, beside: other?.namespace, liveOffset: offset(live), offset: offset(other) };
  };
  const meeting: Meeting = { pool, processor, namespaces, patience: patienceMs.first };
  const empty = async (client: Queryable, namespace: string): Promise<void> => {
    for (const table of tables) await client.query(`DELETE FROM ${table} WHERE processor = $1`, [namespace]);
  };
  return {
    name: processor,
    store,
    follows: true,
    status: async () => (await postgresBesides(pool, processor))[0]?.status,
    async begin() {
      const making = randomUUID();
      await transaction(pool, async (client) => {
        const { rowCount } = await client.query(noteBeginning, [processor, making]);
        if (rowCount !== 1) throw overtaken(processor);
        const { live } = await namespaces(client);
        const place = live === processor ? beside : processor;
        await client.query(
          `INSERT INTO headwater.processor_offsets (processor, namespace) VALUES ($1, $2)
           ON CONFLICT (processor) DO UPDATE SET namespace = excluded.namespace`,
          [beside, place],
        );
        await client.query(forgetOffset, [beside]);
      });
      return work('filling', making);
    },
    async claim(found) {
      const making = randomUUID();
      await change(pool, claimIt, found, making);
      return work(found.state, making);
    },
    clear: () =>
      transaction(pool, async (client) => {
        if (!(await holds(client))) throw overtaken(processor);
        await empty(client, (await namespaces(client)).beside!);
        await client.query(forgetOffset, [beside]);
      }),
    async holes() {
      const { rows } = await pool.query<{ seq: string }>(
        'SELECT unnest(holes) AS seq FROM headwater.processor_offsets WHERE processor = $1 ORDER BY 1',
        [beside],
      );
      return rows.map(({ seq }) => Number(seq));
    },
    compare: (steering) =>
      compareAll(parts, steering, async () => {
        const live = await obstacle(meeting, steering);
        if (live?.kind === 'behind') return live;
        const snapshot = await pool.connect();
        const look = async (): Promise<void> => void (await snapshot.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1'));
        try {
          if (live) {
            steering.letGo();
            await look();
            return { kind: 'moment', snapshot, ...(await namespaces(snapshot)), apart: live.why };
          }
          const there = await aligned(meeting, steering, look);
          if (there) return { kind: 'moment', snapshot, ...there };
          snapshot.release();
          return undefined;
        } catch (error) {
          snapshot.release(true);
          throw error;
        }
      }),
    async flip(steering): Promise<FlipOutcome> {
      // The answer to a flip before this one may have been lost.
      if ((await pool.query(isFlipped, [processor, next])).rowCount === 1) return 'flipped';
      const flip = async (client: Queryable): Promise<void> => {
        await change(client, setState, standing, 'kept', next);
        const { rowCount } = await client.query(exchange, [processor, beside]);
        if (rowCount !== 2)
          throw new HeadwaterError('rebuild_unclear', `${rowCount} of the two offsets of ${processor} could be exchanged`);
      };
      const live = await obstacle(meeting, steering);
      if (live?.kind === 'behind') {
        steering.progress(live.why);
        return 'behind';
      }
      if (live && mends.includes(live.code)) throw liveStopped(processor, live.why);
      if (live) steering.letGo();
      const done = live ? await steering.still(() => apart(meeting, live, flip)) : await aligned(meeting, steering, flip);
      return done ? 'flipped' : 'behind';
    },
    async remove() {
      const making = randomUUID();
      await change(pool, setState, standing, 'dropping', making);
      work('dropping', making);
      await transaction(pool, async (client) => {
        if (await holds(client)) await empty(client, (await namespaces(client)).beside!);
        // Without rows of its own there is nothing but the notes to remove.
        await change(client, deleteRecord, standing);
        await client.query('DELETE FROM headwater.processor_offsets WHERE processor = $1', [beside]);
      });
    },
  };
}

/** What stands beside, and how it is named. */
type Standing = Pick<BesideStatus, 'state' | 'making'>;

/** What stands beside a processor's live state, or beside those of all processors, and whether a command is at work on it. */
export async function postgresBesides(
  pool: PgPool,
  processor?: string,
): Promise<readonly { readonly status: BesideStatus; readonly leased: boolean }[]> {
  const { rows } = await pool.query<{
    name: string;
    state: BesideState;
    since: string;
    making: string;
    beside_seq: string | null;
    beside_epoch: string | null;
    live_seq: string | null;
    live_epoch: string | null;
    leased: boolean;
  }>(statusQuery, [processor ?? null]);
  const offset = (seq: string | null, epoch: string | null): Offset | undefined =>
    seq === null || epoch === null ? undefined : { seq: Number(seq), epoch };
  return rows.map(({ name, state, since, making, leased, ...row }) => ({
    status: { name, state, since, making, offset: offset(row.beside_seq, row.beside_epoch), live: offset(row.live_seq, row.live_epoch) },
    leased,
  }));
}
