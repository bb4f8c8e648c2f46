import { entryFor, isCaptured, type Catalog } from '../../schemas/catalog.ts';
import { quoteTable, type PgClient } from '../clients/postgres.ts';
import { generatedInKey } from '../source/relation.ts';

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
  /** It has a primary key by which its rows can be read in chunks: an immediate one, whose columns the stream sends. */
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
  generated: boolean;
}

/** How long measuring the tables may wait for whoever alters one. */
const measureMs = 1_000;
const lockNotAvailable = '55P03';

/** Is this the index that the replica identity of `m` says? */
const isIdentity = `i.indrelid = m.oid AND CASE m.relreplident
             WHEN 'i' THEN i.indisreplident AND i.indisvalid
             WHEN 'd' THEN i.indisprimary AND i.indimmediate
             ELSE false END`;

/** From PostgreSQL 18 on, the whole row as identity counts its generated columns, and these must be published. */
const generatedInRow = `(current_setting('server_version_num')::int >= 180000
             AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = m.oid AND a.attgenerated <> '' AND NOT a.attisdropped))`;

/**
 * Replica identity is judged by `relreplident`, since Postgres does: a published table without a usable one makes the
 * application's own UPDATE and DELETE fail, primary key or not (a deferrable key, REPLICA IDENTITY NOTHING). So does one with a
 * generated column from PostgreSQL 18 on; before, the updates and deletes that it gives do not say of which row they are.
 * Partitions are captured through their root, but it is their own identity that Postgres asks for: it is not inherited.
 * Only measuring takes locks (so would pg_partition_tree); the size is otherwise what Postgres last counted.
 */
function queryTables(measured: boolean): string {
  const size = measured ? 'pg_table_size(m.oid)' : `m.relpages * current_setting('block_size')::int8`;
  return `
  WITH RECURSIVE tree AS (
    SELECT c.oid AS root, c.oid AS member
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
       AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    UNION ALL
    SELECT t.root, i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.member
      JOIN pg_catalog.pg_class p ON p.oid = i.inhrelid AND p.relispartition)
  SELECT c.oid::int8::float8 AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relpersistence::text AS persistence,
         (SELECT COALESCE(sum(${size}), 0)::float8 FROM tree t JOIN pg_catalog.pg_class m ON m.oid = t.member WHERE t.root = c.oid) AS size,
         GREATEST(c.reltuples, 0)::float8 AS estimate,
         pg_has_role(current_user, c.relowner, 'USAGE') AS owned,
         EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND NOT ${generatedInKey}) AS has_key,
         identity.usable, identity.generated
    FROM tree r JOIN pg_catalog.pg_class c ON c.oid = r.root JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (
      SELECT bool_and(CASE WHEN m.relreplident = 'f' THEN NOT ${generatedInRow}
                           ELSE EXISTS (SELECT FROM pg_index i WHERE ${isIdentity} AND NOT ${generatedInKey}) END) AS usable,
             bool_or(CASE WHEN m.relreplident = 'f' THEN ${generatedInRow}
                          ELSE EXISTS (SELECT FROM pg_index i WHERE ${isIdentity} AND ${generatedInKey}) END) AS generated
        FROM tree t JOIN pg_catalog.pg_class m ON m.oid = t.member
       WHERE t.root = c.oid AND (m.oid = c.oid OR m.relkind <> 'p')) identity
   WHERE r.member = r.root ORDER BY n.nspname, c.relname`;
}

async function tableRows(client: PgClient): Promise<readonly TableRow[]> {
  await client.query('BEGIN');
  try {
    await client.query(`SET LOCAL lock_timeout = ${measureMs}`);
    const { rows } = await client.query<TableRow>(queryTables(true));
    await client.query('COMMIT');
    return rows;
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    if ((error as { code?: unknown }).code !== lockNotAvailable) throw error;
  }
  return (await client.query<TableRow>(queryTables(false))).rows;
}

/** Which tables the catalogue and their replica identities let us capture. */
export async function selectTables(client: PgClient, catalog: Catalog): Promise<Selection> {
  const rows = await tableRows(client);
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
  const onlyInserted = '(2) if rows are only inserted, appendOnly: true for it in the catalogue';
  if (row.generated)
    return `its replica identity has a generated column, which PostgreSQL does not send; to include it: (1) give it one without, by ALTER TABLE ${quoted} REPLICA IDENTITY USING INDEX with a unique index on other columns, or before PostgreSQL 18 REPLICA IDENTITY FULL; or ${onlyInserted}`;
  const all = row.has_key
    ? `ALTER TABLE ${quoted} REPLICA IDENTITY FULL, or an immediate primary key with REPLICA IDENTITY DEFAULT`
    : `a primary key, or ALTER TABLE ${quoted} REPLICA IDENTITY FULL`;
  return `it has no usable replica identity; to include it: (1) give it ${all}; or ${onlyInserted}`;
}
