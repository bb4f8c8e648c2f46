import type { PgPoolClient, Queryable } from '../../clients/postgres.ts';
import { backoffMs, pause } from '../../runtime/backoff.ts';
import { HeadwaterError } from '../../runtime/errors.ts';
import { difference, mostListed, type Comparison, type Difference, type Steering } from './model.ts';
import type { Behind, Namespaces } from './postgres-meeting.ts';

/** Rows of a state that can be compared. */
export interface ComparedRows {
  readonly name: string;
  /** A query of `what` (a unique name) and `content`, both of type text, over the rows whose `processor` is the given parameter. */
  readonly query: (namespace: string) => string;
}

export interface Moment extends Namespaces {
  readonly kind: 'moment';
  /** A transaction that sees both, at the same offset unless they are `apart`. */
  readonly snapshot: PgPoolClient;
  /** Why they are not at the same offset. */
  readonly apart?: string;
}

const comparisonAttempts = 20;
const nothing = { compared: 0, differences: 0, listed: [], moving: 0 } as const;

/** Compares all tables as of one moment, which is asked for until there is one. A live one at work that has to come along first is waited for. */
export async function compareAll(
  { tables, compared: given }: { readonly tables: readonly string[]; readonly compared?: readonly ComparedRows[] },
  { progress, signal }: Steering,
  moment: () => Promise<Moment | Behind | undefined>,
): Promise<Comparison> {
  let at: Moment | undefined;
  let why = `in ${comparisonAttempts} attempts the two did not come to the same offset`;
  for (let n = 0; !at && n < comparisonAttempts; n++) {
    if (n > 0) await pause(backoffMs(n, { baseMs: 20, capMs: 250 }), signal);
    signal.throwIfAborted();
    const found = await moment();
    if (found?.kind === 'moment') at = found;
    if (found?.kind !== 'behind') continue;
    progress(found.why);
    why = found.why;
    if (found.atWork) n = 0;
  }
  if (!at) return { ...nothing, uncompared: why };
  const { snapshot, live, beside, apart } = at;
  try {
    if (beside === undefined) throw new HeadwaterError('rebuild_unclear', 'where the state is that stands beside cannot be told');
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
    return { compared, differences, listed, moving: 0, ...(apart !== undefined && { apart }) };
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
