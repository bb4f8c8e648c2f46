import { typeNameSql } from '../../pipeline/source/types.ts';

/** For suggestions: no more names than anybody would read. */
const mostNames = 1_000;

/** A column, as PostgreSQL has it. */
export interface ColumnRow {
  readonly name: string;
  readonly type: string;
  /** In the replica identity. */
  readonly identity: boolean;
  readonly required: boolean;
  /** Its collation takes different texts for equal. */
  readonly loose: boolean;
  /** Whether the role of queries may read it; null when that role is not there. */
  readonly granted: boolean | null;
  /** Whether it was given that by name. */
  readonly explicit: boolean;
}

/** A table, as PostgreSQL has it. */
export interface TableRow {
  readonly oid: string;
  readonly schema: string;
  readonly table: string;
  readonly plain: boolean;
  readonly partition: boolean;
  readonly guarded: boolean;
  readonly unlogged: boolean;
  /** Has a usable replica identity. */
  readonly identified: boolean;
  /** In the publication of all changes; in the one of inserts alone. Null before capture has ever started on this database. */
  readonly published: boolean | null;
  readonly appended: boolean | null;
  readonly usage: boolean | null;
  /** Whether the role was given the table whole. */
  readonly whole: boolean;
  readonly columns: readonly ColumnRow[] | null;
  readonly key: readonly string[];
  readonly version: string;
}

const reader = `pg_catalog.to_regrole('headwater_query')::pg_catalog.oid`;
const publishedIn = (n: number): string => `
  (SELECT pg_catalog.bool_or(EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid))
     FROM pg_catalog.pg_publication p WHERE p.pubname = $${n})`;
const given = (acl: string): string => `
  EXISTS (SELECT FROM pg_catalog.aclexplode(${acl}) g WHERE g.grantee = ${reader})`;

/**
 * The version of the table `c`: another one after each change of its definition, and never one of before. The rows of PostgreSQL's own
 * catalogues tell of changes by the transactions that wrote them (`xmin`): the table's row (also of a rewrite, of which no event tells),
 * those of its columns, of the indexes that name rows, of publications, of types and of the labels of enums, by which stored values read.
 * What is counted for the planner, or frozen, leaves them as they are.
 */
export const versionSql = `
  pg_catalog.md5(pg_catalog.concat_ws(' ', c.oid, c.xmin,
    array(SELECT a.xmin FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid ORDER BY a.attnum),
    array(SELECT i.xmin FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident) ORDER BY i.indexrelid),
    array(SELECT r.xmin FROM pg_catalog.pg_publication_rel r WHERE r.prrelid = c.oid ORDER BY r.oid),
    array(SELECT pg_catalog.concat_ws('-', t.xmin, e.xmin)
            FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
            LEFT JOIN pg_catalog.pg_enum e ON e.enumtypid IN (t.oid, t.typelem, t.typbasetype)
           WHERE a.attrelid = c.oid AND a.attnum > 0 ORDER BY a.attnum, e.oid)))`;

/** The versions of some tables, by their schemas and names. */
export const queryVersions = `
  SELECT asked.schema::text AS schema, asked.name::text AS table, ${versionSql} AS version
    FROM ROWS FROM (pg_catalog.unnest($1::name[]), pg_catalog.unnest($2::name[])) AS asked (schema, name)
    JOIN pg_catalog.pg_namespace n ON n.nspname = asked.schema
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = asked.name`;

/** A generated column is in no event. The key as capture takes it: immediate, in its order. */
export const queryTable = `
  SELECT c.oid::text AS oid, n.nspname::text AS schema, c.relname::text AS table, c.relkind = 'r' AS plain, c.relispartition AS partition,
         c.relrowsecurity AS guarded, c.relpersistence <> 'p' AS unlogged,
         c.relreplident = 'f' OR c.relreplident = 'd' AND pk.indrelid IS NOT NULL
           OR c.relreplident = 'i' AND EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid) AS identified,
         ${publishedIn(2)} AS published, ${publishedIn(3)} AS appended,
         pg_catalog.has_schema_privilege(${reader}, n.oid, 'USAGE') AS usage, ${given('c.relacl')} AS whole,
         (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', a.attname, 'type', ${typeNameSql('a.atttypid', 'a.atttypmod')},
                   'required', a.attnotnull OR COALESCE(a.attnum = ANY (pk.indkey), false), 'loose', NOT COALESCE(l.collisdeterministic, true),
                   'identity', CASE c.relreplident
                       WHEN 'f' THEN true
                       WHEN 'd' THEN COALESCE(a.attnum = ANY (pk.indkey), false)
                       WHEN 'i' THEN EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid AND a.attnum = ANY (i.indkey))
                       ELSE false END,
                   'granted', pg_catalog.has_column_privilege(${reader}, c.oid, a.attnum, 'SELECT'), 'explicit', ${given('a.attacl')}) ORDER BY a.attnum)
            FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') AS columns,
         array(SELECT a.attname::text FROM pg_catalog.unnest(pk.indkey) WITH ORDINALITY k(attnum, n)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum WHERE k.n <= pk.indnkeyatts ORDER BY k.n) AS key,
         ${versionSql} AS version
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_index pk ON pk.indrelid = c.oid AND pk.indisprimary AND pk.indimmediate
   WHERE n.nspname || '.' || c.relname = $1 AND c.relkind IN ('r', 'p')`;

/** Names for suggestions. */
export const queryNames = `
  SELECT n.nspname::text AS schema, c.relname::text AS table FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
   ORDER BY n.nspname <> 'public', 1, 2 LIMIT ${mostNames}`;

/** What the role was ever given. */
export const queryGiven = `
  SELECT c.oid::text AS oid, n.nspname::text AS schema, c.relname::text AS table
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE ${given('c.relacl')} OR EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND ${given('a.attacl')})`;
