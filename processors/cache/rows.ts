import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Seq } from '../../pipeline/log/event-log.ts';
import type { DatabaseRows } from '../../pipeline/runner/database-rows.ts';
import { HeadwaterError, messageOf } from '../../pipeline/runtime/errors.ts';
import { mayRead, sendError, type Principal, type Routes } from '../../pipeline/runtime/http.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import { Counter, type Registry } from '../../pipeline/runtime/metrics.ts';
import { alertsChannel, entryFor, isCaptured, type Catalog, type TableEntry } from '../../schemas/catalog.ts';
import { decodeRowKey, encodeRowKey } from '../../schemas/row-key.ts';
import type { CachedAnswer } from './redis-rows.ts';
import { rawMember } from './row-event.ts';

export interface RowsParts {
  readonly catalog: Catalog;
  readonly cache: { row(table: string, key: string): Promise<CachedAnswer> };
  /** Without it, only what is in the cache can be answered. */
  readonly database: DatabaseRows | undefined;
  readonly metrics: Registry;
  readonly log: Logger;
}

/** A row that was found. `row` is JSON text, passed on as it is. */
interface Found {
  readonly row: string;
  readonly seq?: Seq;
  readonly asOf: Seq;
  readonly source: 'cache' | 'database';
}

/** The cache is asked this long before the database is (ms). */
const cachePatienceMs = 1_000;
const path = '/v2/rows/';

/**
 * `GET /v2/rows/<schema>.<table>/<key>`: a current row. `asOf` says which events it includes at least; a row of the
 * database can be newer than that.
 */
export function rowsRoutes(parts: RowsParts): Routes {
  const rows = new Rows(parts);
  return (app) => {
    // A wildcard: parameters would be decoded before the key could be taken apart, and limited in length.
    app.get(`${path}*`, (request, reply) => answer(rows, parts, request, reply));
  };
}

async function answer(rows: Rows, { catalog, log }: RowsParts, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const asked = parsePath(request.raw.url ?? '');
  if (!asked) {
    const message = `the path is ${path}<schema>.<table>/<key>, the key's values percent-encoded and joined by ":"`;
    return sendError(reply, 'bad_request', message, 'key');
  }
  const { schema, table, key } = asked;
  const name = `${schema}.${table}`;
  const entry = entryFor(catalog, schema, table);
  if (entry.channel === undefined || !isCaptured(catalog, schema, table)) return sendError(reply, 'not_found', `there is no table ${name}`);
  if (!mayRead(request.principal, entry.channel))
    return sendError(reply, 'forbidden', `this key may not read the channel ${entry.channel}`);
  let found: Found | undefined;
  try {
    found = await rows.find(name, key);
  } catch (error) {
    const code = error instanceof HeadwaterError ? error.code : '';
    if (code === 'bad_key') return sendError(reply, 'bad_request', messageOf(error), 'key');
    if (code === 'unknown_table') return sendError(reply, 'not_found', `there is no table ${name}`);
    log.warn({ error: messageOf(error), table: name }, 'a row could not be read');
    void reply.header('retry-after', '1');
    return sendError(reply, 'unavailable', 'neither the cache nor the database could be asked, try again');
  }
  if (!found || !owns(request.principal, entry, found.row)) return sendError(reply, 'not_found', `there is no such row in ${name}`);
  return reply.code(200).header('content-type', 'application/json; charset=utf-8').send(toJson(found));
}

/** What a request's path names; undefined when it is not of that form. A dot belongs to the table's name rather than the schema's. */
function parsePath(url: string): { readonly schema: string; readonly table: string; readonly key: readonly string[] } | undefined {
  const [name, encodedKey, ...more] = url.split('?', 1)[0]!.slice(path.length).split('/');
  // A colon may stand in a table's name as it is.
  const [decoded] = decodeRowKey((name ?? '').replaceAll(':', '%3A')) ?? [];
  const key = encodedKey === undefined ? undefined : decodeRowKey(encodedKey);
  const [, schema, table] = /^([^.]+)\.(.+)$/su.exec(decoded ?? '') ?? [];
  if (!key || schema === undefined || table === undefined || more.length > 0) return undefined;
  // NUL cannot be in any value of Postgres.
  return [schema, table, ...key].some((text) => text.includes('\0')) ? undefined : { schema, table, key };
}

/** Alerts belong to someone: others are not told that they are there. */
function owns(principal: Principal, entry: TableEntry, row: string): boolean {
  const column = entry.filters.userId;
  if (entry.channel !== alertsChannel || principal.scopes.includes('admin')) return true;
  if (column === undefined) return false;
  const owner = (JSON.parse(row) as Readonly<Record<string, unknown>>)[column];
  return (typeof owner === 'string' || typeof owner === 'number') && String(owner) === principal.owner;
}

function toJson({ row, seq, asOf, source }: Found): string {
  return `{"row":${row}${seq === undefined ? '' : `,"seq":${seq}`},"asOf":${asOf},"source":"${source}"}`;
}

/** Finds rows in the cache, or else in the database: one question at a time for each row, and nothing is written back. */
class Rows {
  readonly #parts: RowsParts;
  readonly #reads: Counter<'result'>;
  readonly #underWay = new Map<string, Promise<Found | undefined>>();
  /** The newest position that the cache was seen at: what the database shows includes it. */
  #asOf: Seq = 0;

  constructor(parts: RowsParts) {
    this.#parts = parts;
    const name = 'headwater_rows_reads_total';
    this.#reads =
      (parts.metrics.getSingleMetric(name) as Counter<'result'> | undefined) ??
      new Counter({
        name,
        help: 'Rows asked for: hit (also a row known to be absent), partial, miss, or no answer of the cache',
        labelNames: ['result'],
        registers: [parts.metrics],
      });
  }

  async find(table: string, key: readonly string[]): Promise<Found | undefined> {
    const encoded = encodeRowKey(key);
    const cached = await this.#ask(table, encoded);
    this.#asOf = Math.max(this.#asOf, cached?.asOf ?? 0);
    const asOf = cached?.asOf ?? this.#asOf;
    if (cached?.known === 'absent') {
      this.#reads.inc({ result: 'hit' });
      return undefined;
    }
    if (cached?.known === 'row') {
      const row = wholeRow(cached.event);
      this.#reads.inc({ result: row === undefined ? 'partial' : 'hit' });
      if (row !== undefined) return { row, seq: cached.seq, asOf, source: 'cache' };
    } else this.#reads.inc({ result: cached ? 'miss' : 'unavailable' });
    return this.#fromDatabase(table, key, encoded);
  }

  /** Undefined when the cache gives no answer in time. */
  async #ask(table: string, key: string): Promise<CachedAnswer | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<undefined>((resolve) => (timer = setTimeout(() => resolve(undefined), cachePatienceMs)));
    try {
      return await Promise.race([this.#parts.cache.row(table, key), late]);
    } catch (error) {
      this.#parts.log.debug({ error: messageOf(error) }, 'the cache gives no answer, asking the database');
      return undefined;
    } finally {
      clearTimeout(timer);
    }
  }

  async #fromDatabase(table: string, key: readonly string[], encoded: string): Promise<Found | undefined> {
    const name = `${table}/${encoded}`;
    const begun = this.#underWay.get(name);
    if (begun) return begun;
    const reading = this.#read(table, key).finally(() => this.#underWay.delete(name));
    this.#underWay.set(name, reading);
    return reading;
  }

  async #read(table: string, key: readonly string[]): Promise<Found | undefined> {
    if (!this.#parts.database) throw new HeadwaterError('no_database', 'there is no database to ask', { reaction: 'retry' });
    // Known before the read begins, so the read includes it.
    const asOf = this.#asOf;
    const row = await this.#parts.database.readRow(table, key);
    return row === undefined ? undefined : { row, asOf, source: 'database' };
  }
}

/** The event's row, unless columns are missing in it: large values that Postgres did not resend, or that found no room. */
function wholeRow(event: Buffer): string | undefined {
  for (const name of ['unchanged', 'omitted']) {
    // The search for the text is quick and nearly always settles it; the text may also be a value of the row.
    if (event.includes(`"${name}":`) && rawMember(event, name)?.includes('"')) return undefined;
  }
  return rawMember(event, 'after')?.toString('utf8');
}
