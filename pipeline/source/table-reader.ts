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
}

const queryColumns = `
  SELECT a.attname::text AS name, a.atttypid::int8::float8 AS type, a.atttypmod AS modifier
    FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum`;

/** Describes a table for reading. Throws `no_such_table` (usage) when there is none of this oid. */
export async function describeTable(
  client: Queryable,
  table: { oid: number; schema: string; table: string },
  types: TypeRegistry,
  catalog: Catalog,
  subject: string,
): Promise<ReadableTable> {
  const { rows } = await client.query<{ name: string; type: number; modifier: number }>(queryColumns, [table.oid]);
  if (rows.length === 0) throw new HeadwaterError('no_such_table', `table ${table.schema}.${table.table} is not there, or has no columns`);
  // Identity `x` is none of pgoutput's: the key then comes from the catalogue alone.
  const message: RelationMessage = {
    oid: table.oid,
    schema: table.schema,
    table: table.table,
    identity: 'x',
    columns: rows.map((row) => ({ name: row.name, identity: false, typeOid: row.type, typeModifier: row.modifier })),
  };
  return { oid: table.oid, relation: await describeRelation(client, message, types, catalog, subject) };
}

export interface RowRange {
  /** Text values of the primary key after which to begin. */
  readonly after?: readonly string[] | undefined;
  readonly limit?: number;
  readonly where?: string | undefined;
}

/** The query that reads a table, whole or a chunk of it in the order of its primary key. */
export function selectRows({ relation }: ReadableTable, range: RowRange): string {
  const columns = relation.columns.map((column) => `t.${escapeIdentifier(column.name)}`).join(', ');
  const key = relation.key.map((i) => `t.${escapeIdentifier(relation.columns[i]!.name)}`).join(', ');
  const conditions = [
    ...(range.where ? [`(${range.where})`] : []),
    // Untyped literals take the type of the column they are compared with.
    ...(range.after ? [`(${key}) > (${range.after.map(escapeLiteral).join(', ')})`] : []),
  ];
  const where = conditions.length > 0 ? ` WHERE ${conditions.join(' AND ')}` : '';
  const order = range.limit === undefined ? '' : ` ORDER BY ${key} LIMIT ${range.limit}`;
  return `SELECT ${columns} FROM ${quoteTable(relation.schema, relation.table)} t${where}${order}`;
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
