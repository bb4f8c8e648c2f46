import { entryFor, isCaptured, type Catalog } from '../../schemas/catalog.ts';
import { escapeIdentifier, quoteTable, type PgClient } from '../clients/postgres.ts';
import type { Logger } from '../runtime/logging.ts';

/** A table that is captured. */
export interface CapturedTable {
  readonly oid: number;
  readonly schema: string;
  readonly table: string;
  /** `<schema>.<table>`. */
  readonly name: string;
  /** Bytes on disk, without indexes. */
  readonly size: number;
  /** Estimated rows; -1 when Postgres has no estimate. */
  readonly estimate: number;
  readonly hasKey: boolean;
  /** Inserts and truncates only. */
  readonly appendOnly: boolean;
}

/** A table that is left out, and why. */
export interface LeftOut {
  readonly name: string;
  readonly reason: string;
}

export interface Selection {
  readonly tables: readonly CapturedTable[];
  readonly leftOut: readonly LeftOut[];
}

interface TableRow {
  oid: number;
  schema: string;
  name: string;
  size: number;
  estimate: number;
  persistence: string;
  owned: boolean;
  has_key: boolean;
  usable: boolean;
}

/**
 * Replica identity is judged by `relreplident`, since Postgres does: a published table without a usable one makes the
 * application's own UPDATE and DELETE fail, primary key or not (a deferrable key, REPLICA IDENTITY NOTHING).
 * Partitions are captured through their root.
 */
const queryTables = `
  SELECT c.oid::int8::float8 AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relpersistence::text AS persistence,
         (SELECT COALESCE(sum(pg_table_size(t.relid)), 0)::float8 FROM pg_partition_tree(c.oid) t) + CASE WHEN c.relkind = 'r' AND NOT c.relispartition THEN pg_table_size(c.oid) ELSE 0 END AS size,
         GREATEST(c.reltuples, 0)::float8 AS estimate,
         pg_has_role(current_user, c.relowner, 'USAGE') AS owned,
         EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AS has_key,
         CASE c.relreplident
           WHEN 'f' THEN true
           WHEN 'i' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid)
           WHEN 'd' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate)
           ELSE false END AS usable
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
     AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
   ORDER BY n.nspname, c.relname`;

/** Which tables the catalogue and their replica identities let us capture. */
export async function selectTables(client: PgClient, catalog: Catalog): Promise<Selection> {
  const { rows } = await client.query<TableRow>(queryTables);
  const tables: CapturedTable[] = [];
  const leftOut: LeftOut[] = [];
  for (const row of rows) {
    if (!isCaptured(catalog, row.schema, row.name)) continue;
    const name = `${row.schema}.${row.name}`;
    const appendOnly = !row.usable && entryFor(catalog, row.schema, row.name).appendOnly;
    const reason = whyLeftOut(row, appendOnly);
    if (reason !== undefined) leftOut.push({ name, reason });
    else
      tables.push({
        oid: row.oid,
        schema: row.schema,
        table: row.name,
        name,
        size: row.size,
        estimate: row.estimate,
        hasKey: row.has_key,
        appendOnly,
      });
  }
  return { tables, leftOut };
}

function whyLeftOut(row: TableRow, appendOnly: boolean): string | undefined {
  const quoted = quoteTable(row.schema, row.name);
  if (row.persistence === 'u') return `it is unlogged, so its changes are in no WAL (ALTER TABLE ${quoted} SET LOGGED)`;
  if (!row.owned) return 'this role does not own it, so it cannot publish it (make the role a member of the owner)';
  if (row.usable || appendOnly) return undefined;
  const all = row.has_key
    ? `ALTER TABLE ${quoted} REPLICA IDENTITY FULL, or an immediate primary key with REPLICA IDENTITY DEFAULT`
    : `a primary key, or ALTER TABLE ${quoted} REPLICA IDENTITY FULL`;
  return `it has no usable replica identity; to include it: (1) give it ${all}; or (2) if rows are only inserted, appendOnly: true for it in the catalogue`;
}

/** The two publications: all changes, and the inserts and truncates of tables without identity. */
export interface Publications {
  readonly all: string;
  readonly append: string;
}

export function publicationNames(base: string): Publications {
  return { all: base, append: `${base}_append` };
}

/** Both names, for a command that takes a list. */
export function publicationList(base: string): readonly string[] {
  const { all, append } = publicationNames(base);
  return [all, append];
}

/**
 * Makes the publications, or brings those that are there in line: tables by name, each in exactly one. They must exist
 * before the slot, since decoding looks them up as they were when the WAL was written.
 */
export async function ensurePublications(
  client: PgClient,
  names: Publications,
  tables: readonly CapturedTable[],
  log: Logger,
): Promise<void> {
  await client.query(`SET lock_timeout = '30s'`);
  await ensurePublication(
    client,
    names.append,
    'insert, truncate',
    tables.filter((table) => table.appendOnly),
    log,
  );
  await ensurePublication(
    client,
    names.all,
    'insert, update, delete, truncate',
    tables.filter((table) => !table.appendOnly),
    log,
  );
}

async function ensurePublication(
  client: PgClient,
  name: string,
  publish: string,
  tables: readonly CapturedTable[],
  log: Logger,
): Promise<void> {
  const id = escapeIdentifier(name);
  const { rowCount } = await client.query('SELECT FROM pg_catalog.pg_publication WHERE pubname = $1', [name]);
  if (!rowCount) await client.query(`CREATE PUBLICATION ${id} WITH (publish = '${publish}', publish_via_partition_root = true)`);
  const { rows } = await client.query<{ oid: number; schema: string; name: string }>(
    `SELECT c.oid::int8::float8 AS oid, n.nspname::text AS schema, c.relname::text AS name FROM pg_catalog.pg_publication_rel r
       JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid JOIN pg_catalog.pg_class c ON c.oid = r.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = $1`,
    [name],
  );
  const published = new Set(rows.map((row) => row.oid));
  const wanted = new Set(tables.map((table) => table.oid));
  const added = tables.filter((table) => !published.has(table.oid));
  const dropped = rows.filter((row) => !wanted.has(row.oid));
  if (dropped.length > 0)
    await client.query(`ALTER PUBLICATION ${id} DROP TABLE ${dropped.map((row) => `ONLY ${quoteTable(row.schema, row.name)}`).join(', ')}`);
  if (added.length > 0)
    await client.query(
      `ALTER PUBLICATION ${id} ADD TABLE ${added.map((table) => `ONLY ${quoteTable(table.schema, table.table)}`).join(', ')}`,
    );
  if (added.length + dropped.length > 0)
    log.info(
      { publication: name, added: added.map((table) => table.name), removed: dropped.map((row) => `${row.schema}.${row.name}`) },
      'publication brought in line',
    );
}
