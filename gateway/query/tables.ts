import { publicationList } from '../../pipeline/capture/publications.ts';
import type { PgPool, PgPoolClient } from '../../pipeline/clients/postgres.ts';
import { mayRead, type Principal } from '../../pipeline/runtime/http.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import { entryFor, isCaptured, ownSchema, type Catalog } from '../../schemas/catalog.ts';
import type { QueryTable } from './model.ts';
import type { QueryTables } from './prepare.ts';
import { QueryRefused } from './refused.ts';
import { queryGiven, queryNames, queryTable, type ColumnRow, type TableRow } from './table-rows.ts';

export interface TableDirectoryParts {
  /** For the catalogues of PostgreSQL: queries of users run on another. */
  readonly pool: PgPool;
  readonly catalog: Catalog;
  /** `HEADWATER_PUBLICATION`: what is published is captured. */
  readonly publication: string;
  readonly log: Logger;
  /** For tests: ms since any moment. */
  readonly now?: () => number;
}

/** How long a description is tried with (ms). Nothing is answered by one that is no longer true; only refusals may be so old. */
const descriptionMs = 1_000;
const namesMs = 10_000;
const grantMs = 60_000;
const mostDescriptions = 10_000;
/** Two names of 63 bytes and a dot. */
const longestName = 127;

interface Held<T> {
  readonly at: number;
  readonly value: Promise<T>;
}

/**
 * The tables that can be queried: captured ones, as the catalogue of PostgreSQL describes them. It also sees to it that the role of
 * queries may read these columns and no others, since which ones those are is for our catalogue to say.
 */
export class TableDirectory {
  readonly #parts: TableDirectoryParts;
  readonly #now: () => number;
  readonly #tables = new Map<string, Held<Described>>();
  /** When the role was last given what it needs to read a table. */
  readonly #granted = new Map<string, number>();
  #names: Held<readonly Name[]> | undefined;
  #swept: Promise<void> | undefined;

  constructor(parts: TableDirectoryParts) {
    this.#parts = parts;
    this.#now = parts.now ?? (() => performance.now());
  }

  /**
   * What a principal may ask of the table of this name.
   * @param name `<schema>.<table>`
   * @throws QueryRefused `forbidden` when the key may not read it; errors of the database
   */
  async view(name: string, principal: Pick<Principal, 'scopes'>): Promise<QueryTables> {
    // PostgreSQL has no longer ones, and nothing is to be kept of them.
    const { table, fault }: Described = name.length > longestName ? {} : await this.#describe(name);
    if (table) {
      if (!mayRead(principal, table.channel))
        throw new QueryRefused('forbidden', `this key may not read the channel ${table.channel}`, { field: 'from' });
      return { find: (wanted) => (wanted === name ? table : undefined), names: () => [name] };
    }
    // Why a table is not captured is nobody's business who could not read it.
    if (fault !== undefined && mayRead(principal, name))
      throw new QueryRefused('bad_query', `from is ${name}, which cannot be queried: ${fault}`, { field: 'from' });
    const names = await this.#allNames();
    return { find: () => undefined, names: () => names.filter(({ channel }) => mayRead(principal, channel)).map((each) => each.name) };
  }

  /** Forgets how a table looked: it has been found to be different. */
  forget(name: string): void {
    this.#tables.delete(name);
  }

  /**
   * Gives the role what it needs to read a table, and takes what it should not have.
   * @returns the statements that only someone with more privileges can run
   */
  async grant(name: string): Promise<string | undefined> {
    const missing = await this.#ask<{ missing: string | null }>('SELECT headwater.ensure_query_role() AS missing');
    if (typeof missing[0]?.missing === 'string') return missing[0].missing;
    this.forget(name);
    this.#granted.delete(name);
    return (await this.#describe(name)).missing;
  }

  #describe(name: string): Promise<Described> {
    const held = this.#tables.get(name);
    if (held && this.#now() - held.at < descriptionMs) return held.value;
    this.#tables.delete(name);
    if (this.#tables.size >= mostDescriptions) this.#tables.delete(this.#tables.keys().next().value!);
    const value = this.#load(name);
    const entry = { at: this.#now(), value };
    this.#tables.set(name, entry);
    value.catch(() => this.#tables.get(name) === entry && this.#tables.delete(name));
    return value;
  }

  async #load(name: string): Promise<Described> {
    const { catalog, publication } = this.#parts;
    await this.#sweep();
    const rows = await this.#ask<TableRow>(queryTable, [name, ...publicationList(publication)]);
    // A dot may belong to the schema's name or to the table's.
    const row = rows.find(({ schema, table }) => isReadable(catalog, schema, table)) ?? rows[0];
    if (!row || (row.schema === ownSchema && !isReadable(catalog, row.schema, row.table))) return {};
    const fault = whyNot(row, catalog);
    if (fault !== undefined) return { fault };
    const { exclude } = entryFor(catalog, row.schema, row.table);
    const columns = (row.columns ?? []).filter((column) => !exclude.includes(column.name));
    // Where it does not help, it is not done again and again: each time the table has another version.
    if (isGranted(row, columns) || this.#now() - (this.#granted.get(name) ?? -Infinity) < grantMs)
      return { table: this.#described(name, row, columns) };
    this.#granted.set(name, this.#now());
    const missing = await this.#grant(row.oid, columns);
    return { ...(await this.#load(name)), missing };
  }

  #described(name: string, row: TableRow, columns: readonly ColumnRow[]): QueryTable {
    const { exclude, channel } = entryFor(this.#parts.catalog, row.schema, row.table);
    const insertOnly = row.appended === true && row.published !== true;
    return {
      name,
      schema: row.schema,
      table: row.table,
      channel: channel!,
      columns: new Map(columns.map((column) => [column.name, column.type])),
      key: row.key.every((column) => !exclude.includes(column)) ? row.key : [],
      partitioned: !row.plain,
      notNull: named(columns.filter((column) => column.required)),
      looseText: named(columns.filter((column) => column.loose)),
      identity: row.plain && !insertOnly ? columns.filter((column) => column.identity).map((column) => column.name) : [],
      cacheable: row.plain && !row.guarded && row.published === true && row.identified,
      version: row.version,
    };
  }

  /** Lets the role read exactly these columns. */
  async #grant(oid: string, columns: readonly ColumnRow[]): Promise<string | undefined> {
    const [answer] = await this.#ask<{ missing: string | null }>('SELECT headwater.let_queries_read($1::oid::regclass, $2) AS missing', [
      oid,
      columns.map((column) => column.name),
    ]);
    return answer?.missing ?? undefined;
  }

  /** Once: takes from the role what it was given when more was captured. */
  #sweep(): Promise<void> {
    this.#swept ??= this.#takeBack().catch((error: unknown) => {
      this.#swept = undefined;
      throw error;
    });
    return this.#swept;
  }

  async #takeBack(): Promise<void> {
    const { catalog, log } = this.#parts;
    for (const { oid, schema, table } of await this.#ask<{ oid: string; schema: string; table: string }>(queryGiven)) {
      if (isReadable(catalog, schema, table)) continue;
      await this.#ask(`SELECT headwater.let_queries_read($1::oid::regclass, '{}')`, [oid]);
      log.info({ table: `${schema}.${table}` }, 'no longer captured: queries may not read it any more');
    }
  }

  async #allNames(): Promise<readonly Name[]> {
    if (!this.#names || this.#now() - this.#names.at >= namesMs) {
      const entry = { at: this.#now(), value: this.#loadNames() };
      this.#names = entry;
      entry.value.catch(() => this.#names === entry && (this.#names = undefined));
    }
    return this.#names.value;
  }

  async #loadNames(): Promise<readonly Name[]> {
    const { catalog } = this.#parts;
    const rows = await this.#ask<{ schema: string; table: string }>(queryNames);
    return rows
      .filter(({ schema, table }) => isReadable(catalog, schema, table))
      .map(({ schema, table }) => ({ name: `${schema}.${table}`, channel: entryFor(catalog, schema, table).channel! }));
  }

  /** Names of types are printed with their schemas, as events have them. */
  async #ask<Row extends object>(sql: string, values: readonly unknown[] = []): Promise<readonly Row[]> {
    const client = await this.#parts.pool.connect();
    let broken: Error | undefined;
    try {
      await client.query(`BEGIN; SET LOCAL search_path = pg_catalog; SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '1s'`);
      const { rows } = await client.query<Row>(sql, [...values]);
      await client.query('COMMIT');
      return rows;
    } catch (error) {
      broken = await rolledBack(client);
      throw error;
    } finally {
      client.release(broken);
    }
  }
}

interface Name {
  readonly name: string;
  readonly channel: string;
}

/** A table, or why it cannot be queried (as the end of a sentence), or neither when there is none. */
interface Described {
  readonly table?: QueryTable;
  readonly fault?: string;
  /** Statements that someone with more privileges has to run before it can be read. */
  readonly missing?: string | undefined;
}

/** May the role read these columns and no others? True as well when there is no such role. */
function isGranted(row: TableRow, columns: readonly ColumnRow[]): boolean {
  if (row.usage === null) return true;
  const readable = new Set(columns);
  const tooMuch = row.whole || (row.columns ?? []).some((column) => column.explicit && !readable.has(column));
  return row.usage && !tooMuch && columns.every((column) => column.granted !== false);
}

function named(columns: readonly ColumnRow[]): ReadonlySet<string> {
  return new Set(columns.map((column) => column.name));
}

/** Ends a failed transaction; what comes back is why the connection is of no more use. */
async function rolledBack(client: PgPoolClient): Promise<Error | undefined> {
  try {
    await client.query('ROLLBACK');
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

/** Can somebody be allowed to read it, as far as our catalogue goes? */
function isReadable(catalog: Catalog, schema: string, table: string): boolean {
  return isCaptured(catalog, schema, table) && entryFor(catalog, schema, table).channel !== undefined;
}

function whyNot(row: TableRow, catalog: Catalog): string | undefined {
  const { schema, table, partition, published, appended, unlogged, identified } = row;
  if (!isReadable(catalog, schema, table)) return 'it is not captured, since the catalogue leaves it out';
  if (partition) return 'it is a partition; ask the partitioned table';
  if (published === true || appended === true) return undefined;
  if (unlogged) return 'it is not captured, since it is unlogged or temporary';
  if (!identified && !entryFor(catalog, schema, table).appendOnly)
    return 'it is not captured, since it has no usable replica identity (a primary key, or REPLICA IDENTITY FULL)';
  return published === null ? undefined : 'it has been made since capture started, and is captured when capture starts again';
}
