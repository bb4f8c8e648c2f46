import type { Duplex } from 'node:stream';
import { escapeLiteral, quoteTable, textForms, type PgPool, type PgPoolClient } from '../../pipeline/clients/postgres.ts';
import { HeadwaterError, messageOf } from '../../pipeline/runtime/errors.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import { JsonWriter } from '../../pipeline/source/json-writer.ts';
import { TypeRegistry } from '../../pipeline/source/types.ts';
import { answersBytes, answerSize, codeOf, faultOf, isNotSetUp, NotSetUp, notSetUp, ownFaultOf } from './database-faults.ts';
import type { PreparedQuery, QueryAsker, QueryExecutor, QueryRows, QueryTable } from './model.ts';
import { QueryRefused, TableChanged } from './refused.ts';
import { versionSql } from './table-rows.ts';
import { Turns } from './turns.ts';

export interface ExecutorParts {
  /** Only queries run on it: each takes a connection for as long as `timeoutMs`. */
  readonly pool: PgPool;
  /** For snapshots, which must not wait behind queries. */
  readonly quickPool: PgPool;
  /** How long the database may work on one query (ms). */
  readonly timeoutMs: number;
  /** What the plan of one query may cost, in the planner's units. */
  readonly costMax: number;
  /** Gives the role of queries what it needs for a table; returns what only an administrator can run. */
  readonly grant: (table: string) => Promise<string | undefined>;
  /** Told of a table that is not as it was described. */
  readonly changed: (table: string) => void;
  readonly log: Logger;
}

/** Beyond the time-out of the database: then the connection is given up, it may lead nowhere (ms). */
const graceMs = 1_000;
/** A table whose definition is being changed is waited for so long (ms). */
const lockMs = 500;
/** A connection is waited for so long where the pool does not say (ms). */
const patienceMs = 5_000;

/** Values in the spelling of events, policies of tables, and a plan that uses one core and no compiler. */
const settings: readonly string[] = [...textForms, 'row_security = on', 'max_parallel_workers_per_gather = 0', 'jit = off'];

/** Text as the server sends it. */
const asText = { getTypeParser: () => (text: string) => text };

/**
 * Runs prepared queries: as the role `headwater_query`, in a transaction that cannot write, on behalf of an owner (policies of tables
 * see who it is in the setting `headwater.user_id`), within limits of cost, time and bytes.
 */
export function queryExecutor(parts: ExecutorParts): QueryExecutor {
  return new PostgresExecutor(parts);
}

class PostgresExecutor implements QueryExecutor {
  readonly #parts: ExecutorParts;
  readonly #types = new TypeRegistry();
  readonly #turns: Turns;

  constructor(parts: ExecutorParts) {
    this.#parts = parts;
    const { max, connectionTimeoutMillis } = parts.pool.options;
    this.#turns = new Turns(max, connectionTimeoutMillis ?? patienceMs);
  }

  async run(query: PreparedQuery, asker: QueryAsker, signal: AbortSignal): Promise<QueryRows> {
    const done = await this.#turns.take(asker.keyId, signal);
    try {
      return await this.#runMending(query, asker.owner, signal);
    } finally {
      done();
    }
  }

  async snapshot(signal: AbortSignal): Promise<string> {
    signal.throwIfAborted();
    const { rows } = await this.#parts.quickPool.query<{ snapshot: string }>('SELECT pg_catalog.pg_current_snapshot()::text AS snapshot');
    signal.throwIfAborted();
    return rows[0]!.snapshot;
  }

  async #runMending(query: PreparedQuery, owner: string, signal: AbortSignal): Promise<QueryRows> {
    const { name } = query.table;
    try {
      return await this.#run(query, owner, signal);
    } catch (error) {
      if (!isNotSetUp(error)) throw this.#translated(error, name);
    }
    // The role or a privilege is missing, say since the database comes from a dump: that can often be mended here.
    await this.#mend(name);
    return this.#run(query, owner, signal).catch((error: unknown) => {
      throw isNotSetUp(error) ? this.#ownFault(error, name) : this.#translated(error, name);
    });
  }

  async #run(query: PreparedQuery, owner: string, signal: AbortSignal): Promise<QueryRows> {
    signal.throwIfAborted();
    const client = await this.#parts.pool.connect();
    const guard = new ConnectionGuard(client, this.#parts.timeoutMs + graceMs);
    let broken: Error | undefined;
    // Nobody waits any more: the database is to be free for others. The connection is not used again, so that only this query can be hit.
    const cancel = (): void => {
      broken = new Error('its query was cancelled');
      void this.#cancel(client);
    };
    signal.addEventListener('abort', cancel, { once: true });
    try {
      return await this.#transaction(client, query, owner, signal);
    } catch (error) {
      await client.query('ROLLBACK').catch((failure: unknown) => (broken = failure as Error));
      throw guard.reason ?? error;
    } finally {
      signal.removeEventListener('abort', cancel);
      guard.end();
      client.release(guard.reason ?? broken);
    }
  }

  async #cancel(client: PgPoolClient): Promise<void> {
    const { processID } = client as unknown as { readonly processID: number | null };
    // A query that cannot be cancelled ends with its time-out.
    await this.#parts.quickPool.query('SELECT pg_catalog.pg_cancel_backend($1)', [processID]).catch(() => undefined);
  }

  async #transaction(client: PgPoolClient, query: PreparedQuery, owner: string, signal: AbortSignal): Promise<QueryRows> {
    const { timeoutMs, costMax } = this.#parts;
    const begun = performance.now();
    const begin = client.query(beginning(query.table, owner, timeoutMs)).catch((error: unknown) => {
      // Only here is the role taken: what a query itself may get wrong has the same code as a role that is not there.
      throw NotSetUp.of(error) ?? error;
    });
    const answers = (await begin) as unknown as { rows: { snapshot: string; version: string | null }[] }[];
    const { snapshot, version } = answers.at(-2)!.rows[0]!;
    if (version !== query.table.version) throw this.#changed(query.table.name);
    signal.throwIfAborted();
    const values = [...query.sql.values];
    const plan = await client.query<{ 'QUERY PLAN': string }>({ text: `EXPLAIN (FORMAT JSON) ${query.sql.text}`, values, types: asText });
    refuseCostly(plan.rows[0]!['QUERY PLAN'], costMax);
    signal.throwIfAborted();
    const left = Math.ceil(timeoutMs - (performance.now() - begun));
    // What the beginning took, the query does not have.
    if (left < timeoutMs * 0.9) await client.query(`SET LOCAL statement_timeout = ${Math.max(1, left)}`);
    const result = await client.query<(string | null)[]>({ text: query.sql.text, values, rowMode: 'array', types: asText });
    const oids = result.fields.map((field) => field.dataTypeID);
    await this.#types.load(client, oids);
    await client.query('COMMIT');
    return toRows(query, result.rows, oids, this.#types, snapshot);
  }

  async #mend(table: string): Promise<void> {
    const { grant, log } = this.#parts;
    const missing = await grant(table).catch((error: unknown) => {
      throw this.#ownFault(error, table);
    });
    if (missing === undefined) return;
    log.error({ table, missing }, `queries of ${table} are off until a superuser of the database has run: ${missing}`);
    throw notSetUp(undefined);
  }

  #translated(error: unknown, table: string): unknown {
    if (error instanceof QueryRefused || error instanceof TableChanged) return error;
    const code = codeOf(error);
    // Table, column or type is not there (any more).
    if (/^(?:42P01|42703|42704)$/.test(code)) return this.#changed(table, error);
    const fault = faultOf(error, this.#parts.timeoutMs);
    if (fault?.code === 'unavailable') this.#parts.log.warn({ error: messageOf(error), code, table }, 'a query could not be run');
    return fault ?? error;
  }

  #changed(table: string, cause?: unknown): TableChanged {
    this.#parts.changed(table);
    return new TableChanged(table, cause);
  }

  /** What the asker has no part in. */
  #ownFault(error: unknown, table: string): QueryRefused {
    const { refusal, advice } = ownFaultOf(error);
    const said = { table, error: messageOf(error), code: codeOf(error) };
    if (advice !== undefined) this.#parts.log.error(said, `queries of ${table} are off: ${advice}`);
    else this.#parts.log.warn(said, 'a query could not be run');
    return refusal;
  }
}

/**
 * Everything in front of the query, in one message. The table is locked before the snapshot is taken, so that nobody changes it while it
 * is read, and what the snapshot says of it is so: to an older one, a table that has been rewritten looks empty. The statement before the
 * last says what was found.
 */
function beginning({ schema, table, partitioned }: QueryTable, owner: string, timeoutMs: number): string {
  const relation = quoteTable(schema, table);
  return [
    'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY',
    `SET LOCAL statement_timeout = ${timeoutMs}`,
    `SET LOCAL lock_timeout = ${lockMs}`,
    `SET LOCAL idle_in_transaction_session_timeout = ${timeoutMs + graceMs}`,
    ...settings.map((setting) => `SET LOCAL ${setting}`),
    // The role may read columns, and locking takes the privilege on the whole table: so before the role is taken.
    `LOCK TABLE ${partitioned ? '' : 'ONLY '}${relation} IN ACCESS SHARE MODE`,
    `SELECT set_config('headwater.user_id', ${escapeLiteral(owner)}, true), pg_current_snapshot()::text AS snapshot,
            (SELECT ${versionSql} FROM pg_catalog.pg_class c WHERE c.oid = to_regclass(${escapeLiteral(relation)})) AS version`,
    'SET LOCAL ROLE headwater_query',
  ].join('; ');
}

function refuseCostly(plan: string, costMax: number): void {
  const [explained] = JSON.parse(plan) as { readonly Plan: { readonly 'Total Cost': number } }[];
  const cost = explained!.Plan['Total Cost'];
  if (cost <= costMax) return;
  throw new QueryRefused(
    'query_too_costly',
    `the database estimates the cost of this query at ${Math.round(cost)}, and ${costMax} is allowed: ask for fewer rows, by columns that have an index`,
  );
}

function toRows(
  query: PreparedQuery,
  rows: readonly (readonly (string | null)[])[],
  oids: readonly number[],
  types: TypeRegistry,
  snapshot: string,
): QueryRows {
  const { output, limit } = query;
  const labels = output.map((name, i) => Buffer.from(`${i === 0 ? '' : ','}${JSON.stringify(name)}:`));
  const encoders = output.map((_, i) => types.get(oids[i]!).encode);
  const out = new JsonWriter();
  const items = rows.slice(0, limit).map((row) => {
    out.ascii('{');
    for (const [i, encode] of encoders.entries()) {
      out.raw(labels[i]!);
      const text = row[i];
      if (text === null || text === undefined) out.ascii('null');
      else {
        const bytes = Buffer.from(text);
        encode(out, bytes, 0, bytes.length);
      }
    }
    out.ascii('}');
    return out.take().toString('utf8');
  });
  const last = rows.length > limit ? rows[limit - 1] : undefined;
  return { items, more: last?.slice(output.length), snapshot };
}

/** Cuts a connection that is silent for too long, or brings more than anybody should be sent. */
class ConnectionGuard {
  readonly #stream: Duplex;
  readonly #timer: NodeJS.Timeout;
  /** Why the connection was cut, if it was. */
  reason: Error | undefined;
  #bytes = 0;

  constructor(client: PgPoolClient, deadlineMs: number) {
    this.#stream = (client as unknown as { connection: { stream: Duplex } }).connection.stream;
    this.#timer = setTimeout(() => this.#cut(new HeadwaterError('database_silent', `no answer within ${deadlineMs} ms`)), deadlineMs);
    this.#stream.on('data', this.#onData);
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#stream.off('data', this.#onData);
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#bytes += chunk.length;
    if (this.#bytes > answersBytes) this.#cut(answerSize());
  };

  #cut(reason: Error): void {
    this.reason ??= reason;
    this.#stream.destroy();
  }
}
