import type { PgPool, PgPoolClient, Queryable } from '../clients/postgres.ts';
import {
  difference,
  mostListed,
  overtaken,
  type Beside,
  type BesideState,
  type BesideStatus,
  type Comparison,
  type Difference,
  type FlipOutcome,
  type Steering,
} from './rebuild.ts';
import { PostgresStateStore, type PostgresEffects } from './postgres-state-store.ts';
import type { Offset } from './state-store.ts';

export interface PostgresBesideParts<Effects> {
  readonly pool: PgPool;
  /** The processor's name: that of its offset. */
  readonly processor: string;
  readonly effects: PostgresEffects<Effects>;
  /** Every table of its state, as `<schema>.<table>`: each has a primary key that begins with the column `processor`, which holds the namespace. */
  readonly tables: readonly string[];
  /** What is compared, where that is not simply the rows of the tables. */
  readonly compared?: readonly ComparedRows[];
}

/** Rows of a state that can be compared. */
export interface ComparedRows {
  readonly name: string;
  /** A query of `what` (a unique name) and `content`, both of type text, over the rows whose `processor` is the given parameter. */
  readonly query: (namespace: string) => string;
}

/** What the offset beside is called. */
export function besideName(processor: string): string {
  return `${processor}~rebuild`;
}

const statusQuery = `
  SELECT r.state, r.since::text AS since, b.seq AS beside_seq, b.epoch AS beside_epoch, l.seq AS live_seq, l.epoch AS live_epoch
  FROM headwater.processor_rebuilds r
  LEFT JOIN headwater.processor_offsets b ON b.processor = $2
  LEFT JOIN headwater.processor_offsets l ON l.processor = $1
  WHERE r.processor = $1`;

const namespacesQuery = `
  SELECT processor, coalesce(namespace, $1) AS namespace, seq::text, epoch FROM headwater.processor_offsets WHERE processor IN ($1, $2)`;

const setState = `
  INSERT INTO headwater.processor_rebuilds (processor, state) VALUES ($1, $2)
  ON CONFLICT (processor) DO UPDATE SET state = excluded.state, since = now()`;

/** All of what is said of a state but who works on it. */
const exchange = `
  UPDATE headwater.processor_offsets o
  SET seq = other.seq, epoch = other.epoch, head = other.head, redriven = other.redriven, holes = other.holes, namespace = coalesce(other.namespace, other.processor)
  FROM headwater.processor_offsets other
  WHERE (o.processor, other.processor) IN (($1, $2), ($2, $1))`;

/** After so long without an answer a lock that holds the live processor up is given back. */
const lockMs = 10_000;
const approaches = 4;

/**
 * A second state of a processor whose store is `PostgresStateStore`: rows of the same tables, marked with another namespace. A flip exchanges what the two offsets say, in one
 * transaction, while the live processor waits: both stand at the same offset then.
 */
export function postgresBeside<Effects>(parts: PostgresBesideParts<Effects>): Beside<Effects> {
  const { pool, processor, effects, tables } = parts;
  const beside = besideName(processor);
  const store = new PostgresStateStore(pool, beside, effects);
  const namespaces = async (client: Queryable): Promise<Namespaces> => {
    const { rows } = await client.query<{ processor: string; namespace: string; seq: string | null; epoch: string | null }>(
      namespacesQuery,
      [processor, beside],
    );
    const [live, other] = [processor, beside].map((name) => rows.find((row) => row.processor === name));
    const offset = (row: typeof live): Offset | undefined =>
      row?.seq == null || row.epoch === null ? undefined : { seq: Number(row.seq), epoch: row.epoch };
    return { live: live?.namespace ?? processor, beside: other?.namespace, liveOffset: offset(live), offset: offset(other) };
  };
  const empty = async (client: Queryable, namespace: string): Promise<void> => {
    for (const table of tables) await client.query(`DELETE FROM ${table} WHERE processor = $1`, [namespace]);
  };
  return {
    name: processor,
    store,
    follows: true,
    status: () => statusOf(pool, processor, beside),
    begin: () =>
      transaction(pool, async (client) => {
        const { live } = await namespaces(client);
        await client.query(
          `INSERT INTO headwater.processor_offsets (processor, namespace) VALUES ($1, $2)
           ON CONFLICT (processor) DO UPDATE SET namespace = excluded.namespace`,
          [beside, live === processor ? beside : processor],
        );
        await client.query(setState, [processor, 'filling']);
      }),
    clear: () =>
      transaction(pool, async (client) => {
        const { beside: namespace } = await namespaces(client);
        if (namespace !== undefined) await empty(client, namespace);
        await client.query(
          `UPDATE headwater.processor_offsets SET seq = NULL, epoch = NULL, head = NULL, redriven = NULL, holes = '{}' WHERE processor = $1`,
          [beside],
        );
      }),
    compare: (steering) =>
      compareAll(parts, steering, async () => {
        const snapshot = await pool.connect();
        try {
          const there = await aligned(pool, processor, namespaces, steering, async () => {
            await snapshot.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1');
          });
          return there && { snapshot, ...there };
        } catch (error) {
          snapshot.release(true);
          throw error;
        }
      }),
    async flip(steering, expected): Promise<FlipOutcome> {
      let outcome: FlipOutcome = 'behind';
      await aligned(pool, processor, namespaces, steering, async (client) => {
        const found = await client.query('SELECT FROM headwater.processor_rebuilds WHERE processor = $1 AND state = $2 FOR UPDATE', [
          processor,
          expected,
        ]);
        if (found.rowCount !== 1) throw overtaken(processor);
        await client.query(exchange, [processor, beside]);
        await client.query(setState, [processor, 'kept']);
        outcome = 'flipped';
      });
      return outcome;
    },
    async remove() {
      await pool.query(setState, [processor, 'dropping']);
      await transaction(pool, async (client) => {
        const { live, beside: namespace } = await namespaces(client);
        if (namespace !== undefined && namespace !== live) await empty(client, namespace);
        await client.query('DELETE FROM headwater.processor_offsets WHERE processor = $1', [beside]);
        await client.query('DELETE FROM headwater.processor_rebuilds WHERE processor = $1', [processor]);
      });
    },
  };
}

interface Namespaces {
  readonly live: string;
  readonly beside: string | undefined;
  readonly liveOffset: Offset | undefined;
  readonly offset: Offset | undefined;
}

async function statusOf(pool: PgPool, processor: string, beside: string): Promise<BesideStatus | undefined> {
  const { rows } = await pool.query<{
    state: BesideState;
    since: string;
    beside_seq: string | null;
    beside_epoch: string | null;
    live_seq: string | null;
    live_epoch: string | null;
  }>(statusQuery, [processor, beside]);
  const row = rows[0];
  if (!row) return undefined;
  const offset = (seq: string | null, epoch: string | null): Offset | undefined =>
    seq === null || epoch === null ? undefined : { seq: Number(seq), epoch };
  return {
    name: processor,
    state: row.state,
    since: row.since,
    offset: offset(row.beside_seq, row.beside_epoch),
    live: offset(row.live_seq, row.live_epoch),
  };
}

/**
 * Holds the live processor up, lets the other one come to the same offset, and works in that moment, in the transaction that holds it up.
 * Undefined when they did not meet; nothing has been done then.
 */
async function aligned(
  pool: PgPool,
  processor: string,
  namespaces: (client: Queryable) => Promise<Namespaces>,
  { reach }: Steering,
  work: (client: Queryable) => Promise<void>,
): Promise<Namespaces | undefined> {
  // Most of the way before the live one has to wait.
  for (let n = 0; n < approaches; n++) {
    const { rows } = await pool.query<{ seq: string | null }>('SELECT seq FROM headwater.processor_offsets WHERE processor = $1', [
      processor,
    ]);
    if (rows[0]?.seq != null) await reach(Number(rows[0].seq));
  }
  return transaction(pool, async (client) => {
    await client.query(`SET LOCAL idle_in_transaction_session_timeout = ${lockMs}`);
    const locked = await client.query<{ seq: string | null }>(
      'SELECT seq FROM headwater.processor_offsets WHERE processor = $1 FOR UPDATE',
      [processor],
    );
    const seq = locked.rows[0]?.seq;
    if (seq != null && !(await reach(Number(seq)))) return undefined;
    const found = await namespaces(client);
    if (!found.offset || (found.liveOffset && found.liveOffset.epoch !== found.offset.epoch)) return undefined;
    await work(client);
    return found;
  });
}

async function transaction<T>(pool: PgPool, work: (client: PgPoolClient) => Promise<T>): Promise<T> {
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

interface Moment extends Namespaces {
  /** A transaction that sees both at the same offset. */
  readonly snapshot: PgPoolClient;
}

const comparisonAttempts = 20;

/** Compares all tables as of one moment. */
async function compareAll<Effects>(
  { tables, compared: given }: PostgresBesideParts<Effects>,
  { progress, signal }: Steering,
  moment: () => Promise<Moment | undefined>,
): Promise<Comparison> {
  let at: Moment | undefined;
  for (let n = 0; !at && n < comparisonAttempts; n++) {
    signal.throwIfAborted();
    at = await moment();
  }
  if (at?.beside === undefined) {
    at?.snapshot.release(true);
    return { compared: 0, differences: 0, listed: [], moving: 1 };
  }
  const { snapshot, live, beside } = at;
  try {
    const listed: Difference[] = [];
    let [compared, differences] = [0, 0];
    for (const rows of given ?? (await Promise.all(tables.map((table) => rowsOf(snapshot, table))))) {
      progress(`${compared} rows compared, ${differences} differ`);
      const found = await compareRows(snapshot, rows, live, beside);
      compared += found.compared;
      differences += found.differences;
      listed.push(...found.listed.slice(0, mostListed - listed.length));
    }
    await snapshot.query('COMMIT');
    snapshot.release();
    return { compared, differences, listed, moving: 0 };
  } catch (error) {
    snapshot.release(true);
    throw error;
  }
}

interface ComparedRow {
  readonly what: string | null;
  readonly live: string | null;
  readonly beside: string | null;
  readonly compared: string;
  readonly differences: string;
}

/** The rows of a table, by its primary key, all of it as text: a column of type json may hold what jsonb refuses. */
async function rowsOf(client: Queryable, table: string): Promise<ComparedRows> {
  const { rows: columns } = await client.query<{ name: string; key: boolean }>(
    `SELECT quote_ident(a.attname) AS name, coalesce(a.attnum = ANY (i.indkey), false) AS key
     FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
     WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> 'processor' ORDER BY a.attnum`,
    [table],
  );
  const text = (names: readonly string[]): string =>
    names.length > 0 ? `ROW(${names.map((name) => `${name}::text`).join(', ')})::text` : `''::text`;
  const keys = columns.filter(({ key }) => key).map(({ name }) => name);
  const contents = text(columns.map(({ name }) => name));
  return {
    name: table.replace(/^.*\./, ''),
    query: (namespace) => `SELECT ${text(keys)} AS what, ${contents} AS content FROM ${table} WHERE processor = ${namespace}`,
  };
}

async function compareRows(
  client: Queryable,
  { name, query }: ComparedRows,
  live: string,
  beside: string,
): Promise<Pick<Comparison, 'compared' | 'differences' | 'listed'>> {
  const { rows } = await client.query<ComparedRow>(
    `WITH both_states AS (
       SELECT coalesce(l.what, b.what) AS what, l.content AS live, b.content AS beside
       FROM (${query('$1')}) l FULL JOIN (${query('$2')}) b ON b.what = l.what
     ), counts AS (
       SELECT count(*) AS compared, count(*) FILTER (WHERE live IS DISTINCT FROM beside) AS differences FROM both_states
     ), listed AS (
       SELECT what, live, beside FROM both_states WHERE live IS DISTINCT FROM beside LIMIT ${mostListed}
     )
     SELECT listed.*, compared, differences FROM counts LEFT JOIN listed ON true`,
    [live, beside],
  );
  return {
    compared: Number(rows[0]?.compared ?? 0),
    differences: Number(rows[0]?.differences ?? 0),
    listed: rows.flatMap(({ what, live: l, beside: b }) =>
      what === null ? [] : [difference(`${name} ${what}`, l ?? undefined, b ?? undefined)],
    ),
  };
}
