import { typeNameSql } from '../../../pipeline/source/types.ts';
import { entryFor, isCaptured, type Catalog } from '../../../schemas/catalog.ts';
import type { ColumnTypes } from '../../../schemas/condition/column-type.ts';
import { suggestion } from '../../../schemas/nearest.ts';
import type { Statements } from './owned-rows.ts';

/** A table that rules can be on. */
export interface RuleTable {
  readonly schema: string;
  readonly table: string;
  /** As events have them: what the catalogue excludes is not among them. */
  readonly columns: ColumnTypes;
  /** The primary key's columns; empty without one. */
  readonly key: readonly string[];
}

/** A table, or why no rule can be on it, as the end of a sentence that begins with `table`. */
export type FoundTable = { readonly found: RuleTable; readonly fault?: undefined } | { readonly found?: undefined; readonly fault: string };

interface TableRow {
  readonly schema: string;
  readonly name: string;
  readonly partition: boolean;
  readonly unlogged: boolean;
  readonly identified: boolean;
  /** Null before capture has ever started on this database. */
  readonly published: boolean | null;
  readonly columns: readonly { readonly name: string; readonly type: string }[];
  readonly key: readonly string[];
}

/** A generated column is in no event. The key as capture takes it: immediate, in its order. */
const queryTable = `
  SELECT n.nspname::text AS schema, c.relname::text AS name, c.relispartition AS partition, c.relpersistence <> 'p' AS unlogged,
         c.relreplident IN ('f', 'i') OR c.relreplident = 'd' AND i.indrelid IS NOT NULL AS identified,
         (SELECT bool_or(EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid))
            FROM pg_catalog.pg_publication p WHERE p.pubname = ANY ($2)) AS published,
         (SELECT json_agg(json_build_object('name', a.attname, 'type', ${typeNameSql('a.atttypid', 'a.atttypmod')}) ORDER BY a.attnum)
            FROM pg_catalog.pg_attribute a
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') AS columns,
         array(SELECT a.attname::text FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY k(attnum, n)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum WHERE k.n <= i.indnkeyatts ORDER BY k.n) AS key
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary AND i.indimmediate
   WHERE n.nspname || '.' || c.relname = $1 AND c.relkind IN ('r', 'p')`;

/** Names alone, and no more than anybody would read: for suggestions. */
const queryNames = `
  SELECT n.nspname || '.' || c.relname AS name FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'headwater')
   ORDER BY 1 LIMIT 1000`;

/**
 * Looks a table up in the catalogue of Postgres, and in ours.
 * @param name `<schema>.<table>`
 * @param publications capture's: what is in none of them is not captured
 */
export async function findTable(
  statements: Statements,
  name: string,
  catalog: Catalog,
  publications: readonly string[],
): Promise<FoundTable> {
  const rows = await statements.query<TableRow>(queryTable, [name, publications]);
  // A dot may belong to the schema's name or to the table's.
  const row = rows.find(({ schema, name: table }) => isCaptured(catalog, schema, table)) ?? rows[0];
  if (!row) {
    const names = await statements.query<{ name: string }>(queryNames);
    const near = suggestion(
      name,
      names.map((each) => each.name),
    );
    return { fault: `is ${name}, and there is no such table${near}` };
  }
  const reason = whyNotCaptured(row, catalog);
  if (reason !== undefined) return { fault: `is ${name}, which is not captured, so that nothing of it is in the log: ${reason}` };
  const { exclude } = entryFor(catalog, row.schema, row.name);
  const columns = row.columns.filter((column) => !exclude.includes(column.name)).map(({ name: column, type }) => [column, type] as const);
  return { found: { schema: row.schema, table: row.name, columns: new Map(columns), key: row.key } };
}

function whyNotCaptured({ schema, name, partition, unlogged, identified, published }: TableRow, catalog: Catalog): string | undefined {
  if (!isCaptured(catalog, schema, name)) return 'the catalogue leaves it out';
  if (partition) return 'it is a partition, and its changes are those of the partitioned table';
  if (published === true) return undefined;
  if (unlogged) return 'it is unlogged or temporary';
  if (!identified && !entryFor(catalog, schema, name).appendOnly)
    return 'it has no usable replica identity (give it a primary key, or REPLICA IDENTITY FULL, and restart capture)';
  // Before capture's first start there is nothing to compare with.
  return published === null ? undefined : 'it has been made since capture started, and joins when capture starts again';
}
