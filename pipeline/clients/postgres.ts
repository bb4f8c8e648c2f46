import type { Duplex } from 'node:stream';
import pg from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import type { Logger } from '../runtime/logging.ts';
import { messageOf } from '../runtime/errors.ts';

export type PgClient = pg.Client;
export type PgPool = pg.Pool;
export type PgPoolClient = pg.PoolClient;
/** What runs one query after the other. */
export type Queryable = pg.ClientBase;
export type PgConfig = pg.ClientConfig;
export type PgPoolConfig = pg.PoolConfig;
export const { DatabaseError, escapeIdentifier, escapeLiteral } = pg;

/** `"schema"."table"`, quoted for SQL. */
export function quoteTable(schema: string, table: string): string {
  return `${escapeIdentifier(schema)}.${escapeIdentifier(table)}`;
}

/**
 * Settings under which every value has one text form, whoever reads it and wherever: the stream, a snapshot, a backfill, a query.
 * `search_path` matters too, since names of types, tables and functions are printed relative to it.
 */
export const textForms: readonly string[] = [
  `search_path = pg_catalog`,
  `TimeZone = 'UTC'`,
  `DateStyle = 'ISO, MDY'`,
  `IntervalStyle = 'iso_8601'`,
  `extra_float_digits = 3`,
  `bytea_output = 'hex'`,
  `xmloption = 'content'`,
];

/** Statements for a session that reads whole tables: `textForms`, all rows or an error, and no time limit. */
export const stableText: readonly string[] = [
  ...textForms.map((setting) => `SET ${setting}`),
  // Rows that a policy hides would be missing without a word: Postgres then refuses instead.
  `SET row_security = off`,
  // What reads a whole table takes as long as it takes.
  `SELECT set_config(name, '0', false) FROM pg_catalog.pg_settings
    WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout')`,
];

/** A connected client whose background errors (a server that went away) are logged, not thrown. */
export async function connectPostgres(url: string, applicationName: string, log: Logger, extra: PgConfig = {}): Promise<PgClient> {
  const client = new pg.Client({
    connectionString: url,
    application_name: applicationName,
    keepAlive: true,
    connectionTimeoutMillis: 10_000,
    ...extra,
  });
  client.on('error', (error) => log.debug({ error: messageOf(error) }, `${applicationName}: PostgreSQL connection lost`));
  await client.connect();
  return client;
}

/** Was the connection lost, rather than what was asked for refused? By the SQLSTATE of an answer, and by the client's own words. */
export function isConnectionLost(error: unknown): boolean {
  if (error instanceof DatabaseError) return /^(08|57P0)/.test(error.code ?? '');
  const { code } = Object(error) as { readonly code?: unknown };
  return /^E(CONN|PIPE|HOST|NET|TIMEDOUT)/.test(String(code)) || /connection (terminated|ended|error)/i.test(messageOf(error));
}

/** Closes a connection; one that does not answer is cut off, with whatever it was doing. Safe to call twice. */
export async function closePostgres(client: PgClient, graceMs = 1_000): Promise<void> {
  const cut = setTimeout(() => cutOff(client), graceMs);
  await client.end().catch(() => undefined);
  clearTimeout(cut);
}

/** A pool of short-lived uses; connections that break while idle are replaced at the next use. */
export function createPool(url: string, applicationName: string, log: Logger, max = 5, extra: PgPoolConfig = {}): PgPool {
  const pool = new pg.Pool({
    connectionString: url,
    application_name: applicationName,
    max,
    keepAlive: true,
    connectionTimeoutMillis: 10_000,
    ...extra,
  });
  pool.on('error', (error) => log.debug({ error: messageOf(error) }, `${applicationName}: idle PostgreSQL connection lost`));
  // The pool listens only to idle clients: one that is lost while checked out, between two queries, would end the process.
  pool.on('connect', (client) =>
    client.on('error', (error) => log.debug({ error: messageOf(error) }, `${applicationName}: PostgreSQL connection lost`)),
  );
  return pool;
}

/**
 * Cuts the connections of a new pool off so long after the signal has fired, with whatever they are doing: a statement may take hours, or wait for a lock. Who waits for them
 * is told that they are lost.
 * @returns what stops that
 */
export function cutOffWhenAborted(pool: PgPool, signal: AbortSignal, graceMs: number): () => void {
  const clients = new Set<Queryable>();
  pool.on('connect', (client) => void clients.add(client));
  pool.on('remove', (client) => void clients.delete(client));
  let timer: NodeJS.Timeout | undefined;
  const begin = (): void => {
    // Those that are opened in order to tidy up have their time, too.
    timer = setInterval(() => clients.forEach(cutOff), graceMs);
  };
  if (signal.aborted) begin();
  else signal.addEventListener('abort', begin, { once: true });
  return () => {
    signal.removeEventListener('abort', begin);
    clearInterval(timer);
  };
}

function cutOff(client: Queryable): void {
  (client as unknown as { connection: { stream: Duplex } }).connection.stream.destroy();
}

/** The rows of `COPY (query) TO STDOUT`, as the bytes come. */
export function copyOut(client: Queryable, query: string): AsyncIterable<Buffer> {
  return client.query(copyTo(`COPY (${query}) TO STDOUT`)) as AsyncIterable<Buffer>;
}
