import type { Catalog } from '../../schemas/catalog.ts';
import { copyOut, escapeIdentifier, escapeLiteral, quoteTable, type Queryable } from '../clients/postgres.ts';
import { HeadwaterError } from '../runtime/errors.ts';
import { CopyRows } from './copy-rows.ts';
import type { RelationMessage, Tuple } from './pgoutput.ts';
import { describeRelation, type Relation } from './relation.ts';
import type { TypeRegistry } from './types.ts';

/** A table as a query sees it: the columns that the stream would send (generated ones are not among them). */
export interface ReadableTable {
  readonly oid: number;
  readonly relation: Relation;
  /** Read without the tables that inherit from it, which are captured by themselves; a partitioned one has no rows of its own. */
  readonly only: boolean;
  /** How SQL compares the primary key's columns, in the key's order. */
  readonly comparisons: readonly Comparison[];
}

/**
 * A column of the key, the type to which its literals are cast (without a length: a cast would cut a longer value to it; of a
 * domain its base type: an old row need not meet a check that is not validated), and the operators of its index with their
 * schemas: by their bare names those of an extension would not be found, or others in their place (`citext` would compare as `text`).
 */
export interface Comparison {
  readonly column: string;
  /** The same as that type has it, which the index knows as well. */
  readonly operand: string;
  readonly type: string;
  readonly equal: string;
  readonly atLeast: string;
  readonly greater: string;
  /** Which order the index has: the oids of its operators' family and of its collation. */
  readonly order: string;
  /** All of them are Postgres's own. */
  readonly builtin: boolean;
}

const queryColumns = `
  SELECT a.attname::text AS name, c.relkind = 'r' AS plain, a.atttypid::int8::float8 AS type, a.atttypmod AS modifier
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
   WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum`;

/** The type of a column (`a`); of a domain the type that it is over, however deep. */
const baseType = `
  WITH RECURSIVE under AS (
    SELECT a.atttypid AS oid
    UNION ALL
    SELECT d.typbasetype FROM under u JOIN pg_catalog.pg_type d ON d.oid = u.oid WHERE d.typtype = 'd')
  SELECT ty.oid, pg_catalog.format('%I.%I', ts.nspname, ty.typname) AS name
    FROM under u JOIN pg_catalog.pg_type ty ON ty.oid = u.oid JOIN pg_catalog.pg_namespace ts ON ts.oid = ty.typnamespace
   WHERE ty.typtype <> 'd'`;

/** Operators of an operator class (`c`). The strategies of a B-tree: 3 equal, 4 at least, 5 greater (PostgreSQL manual, "B-Tree Indexes"). */
const operators = `
  SELECT m.amopstrategy AS strategy, pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname) AS name,
         n.nspname = 'pg_catalog' AS builtin
    FROM pg_catalog.pg_amop m JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr
    JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
   WHERE m.amopfamily = c.opcfamily AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype
     AND m.amopstrategy IN (3, 4, 5)`;

const queryComparisons = `
  SELECT pg_catalog.format('t.%I', a.attname) AS column, base.name AS type,
         pg_catalog.format('t.%I', a.attname) || CASE WHEN base.oid = a.atttypid THEN '' ELSE '::' || base.name END AS operand,
         pg_catalog.min(op.name) FILTER (WHERE op.strategy = 3) AS equal,
         pg_catalog.min(op.name) FILTER (WHERE op.strategy = 4) AS "atLeast",
         pg_catalog.min(op.name) FILTER (WHERE op.strategy = 5) AS greater, pg_catalog.bool_and(op.builtin) AS builtin,
         pg_catalog.format('%s %s', c.opcfamily, i.indcollation[k]) AS "order"
    FROM pg_catalog.pg_index i CROSS JOIN pg_catalog.generate_series(0, i.indnkeyatts - 1) k
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k]
    JOIN pg_catalog.pg_opclass c ON c.oid = i.indclass[k]
    JOIN LATERAL (${baseType}) base ON true
    JOIN LATERAL (${operators}) op ON true
   WHERE i.indrelid = $1 AND i.indisprimary AND i.indimmediate
   GROUP BY k, a.attname, a.atttypid, base.oid, base.name, c.opcfamily, i.indcollation[k] ORDER BY k`;

/** Describes a table for reading. Throws `no_such_table` when there is none of this oid. */
export async function describeTable(
  client: Queryable,
  table: { oid: number; schema: string; table: string },
  types: TypeRegistry,
  catalog: Catalog,
  subject: string,
): Promise<ReadableTable> {
  const { rows } = await client.query<{ name: string; plain: boolean; type: number; modifier: number }>(queryColumns, [table.oid]);
  if (rows.length === 0) throw new HeadwaterError('no_such_table', `table ${table.schema}.${table.table} is not there, or has no columns`);
  // Identity `x` is none of pgoutput's: the key then comes from the catalogue alone.
  const message: RelationMessage = {
    oid: table.oid,
    schema: table.schema,
    table: table.table,
    identity: 'x',
    columns: rows.map((row) => ({ name: row.name, identity: false, typeOid: row.type, typeModifier: row.modifier })),
  };
  const comparisons = await client.query<Comparison>(queryComparisons, [table.oid]);
  const relation = await describeRelation(client, message, types, catalog, subject);
  return { oid: table.oid, relation, only: rows[0]!.plain, comparisons: comparisons.rows };
}

export interface RowRange {
  /** Text values of the primary key after which to begin. */
  readonly after?: readonly string[] | undefined;
  /** And with which to end. */
  readonly upTo?: readonly string[] | undefined;
  readonly limit?: number;
  readonly where?: string | undefined;
}

/**
 * Keeps a table's definition from being changed until the transaction ends. To a snapshot that is older than a rewriting of the
 * table it looks empty, so this comes before the snapshot is taken (the statement takes none itself).
 */
export function lockTable({ schema, table }: { readonly schema: string; readonly table: string }): string {
  return `LOCK TABLE ${quoteTable(schema, table)} IN ACCESS SHARE MODE`;
}

/** The query that reads a table, whole or a chunk of it in the order of its primary key. */
export function selectRows(table: ReadableTable, range: RowRange): string {
  const { relation, comparisons } = table;
  const columns = relation.columns.map((column) => `t.${escapeIdentifier(column.name)}`).join(', ');
  const key = comparisons.map(({ column }) => column).join(', ');
  // A comment at the end of the condition must not swallow what follows.
  const conditions = [
    ...(range.where ? [`(${range.where}\n)`] : []),
    ...(range.after ? [behind(comparisons, range.after)] : []),
    ...(range.upTo ? [notBehind(comparisons, range.upTo)] : []),
  ];
  const where = conditions.length > 0 ? ` WHERE ${conditions.join(' AND ')}` : '';
  const order = range.limit === undefined ? '' : ` ORDER BY ${key} LIMIT ${range.limit}`;
  return `SELECT ${columns} FROM ${fromTable(table)}${where}${order}`;
}

/** What stands behind FROM: the table, by the name `t`. */
export function fromTable({ relation, only }: ReadableTable): string {
  return `${only ? 'ONLY ' : ''}${quoteTable(relation.schema, relation.table)} t`;
}

/** The query for the key of the row that stands `count` rows behind `after`, in the order of the key. */
export function selectKey(table: ReadableTable, after: readonly string[] | undefined, count: number): string {
  const { comparisons } = table;
  const key = comparisons.map(({ column }) => column).join(', ');
  const where = after ? ` WHERE ${behind(comparisons, after)}` : '';
  return `SELECT ${key} FROM ${fromTable(table)}${where} ORDER BY ${key} LIMIT 1 OFFSET ${count - 1}`;
}

/** What the order of the key depends on: under another one, a place in it says nothing. */
export function keyOrder({ comparisons }: ReadableTable): string {
  return comparisons.map(({ column, order }) => `${column} ${order}`).join(', ');
}

/** The condition that a row has this key, given as text values. */
export function hasKey({ comparisons }: ReadableTable, key: readonly string[]): string {
  return comparisons.map(({ operand, equal, type }, i) => `${operand} ${equal} ${literal(key[i], type)}`).join(' AND ');
}

/** The condition that a row's key comes after another in the order of its index. */
function behind(key: readonly Comparison[], after: readonly string[]): string {
  const values = key.map(({ type }, i) => literal(after[i], type));
  if (key.every(({ builtin }) => builtin)) return `(${key.map(({ operand }) => operand).join(', ')}) > (${values.join(', ')})`;
  // One operator would have to do for all columns; so the comparison of rows is written out.
  const from = (i: number): string => {
    const { operand, greater, equal } = key[i]!;
    const beyond = `${operand} ${greater} ${values[i]!}`;
    return i === key.length - 1 ? beyond : `(${beyond} OR (${operand} ${equal} ${values[i]!} AND ${from(i + 1)}))`;
  };
  return `${key[0]!.operand} ${key[0]!.atLeast} ${values[0]!} AND ${from(0)}`;
}

/** The condition that it does not, in a form that the index understands. */
function notBehind(key: readonly Comparison[], upTo: readonly string[]): string {
  const values = key.map(({ type }, i) => literal(upTo[i], type));
  if (key.every(({ builtin }) => builtin)) return `(${key.map(({ operand }) => operand).join(', ')}) <= (${values.join(', ')})`;
  return `NOT (${key[0]!.operand} ${key[0]!.greater} ${values[0]!}) AND NOT (${behind(key, upTo)})`;
}

function literal(text: string | undefined, type: string): string {
  // It would be taken for the empty text.
  if (text === undefined) throw new Error('a value of the key is missing');
  return `${escapeLiteral(text)}::${type}`;
}

/** Reads rows in the text form of the stream; `each` gets a tuple that is valid during the call, `between` may wait between chunks. */
export async function readRows(client: Queryable, query: string, each: (row: Tuple) => void, between?: () => Promise<void>): Promise<void> {
  const rows = new CopyRows();
  for await (const chunk of copyOut(client, query)) {
    rows.feed(chunk, each);
    await between?.();
  }
}

/** The text values of a row's primary key. */
export function keyTexts({ relation }: ReadableTable, row: Tuple): readonly string[] {
  return relation.key.map((i) => row.source.toString('utf8', row.starts[i], row.ends[i]));
}
