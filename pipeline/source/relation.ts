import { entryFor, isCaptured, type Catalog, type TableEntry } from '../../schemas/catalog.ts';
import { tableToken } from '../../schemas/subjects.ts';
import type { Queryable } from '../clients/postgres.ts';
import type { RelationMessage } from './pgoutput.ts';
import { typeNameSql, type TypeRegistry, type ValueType } from './types.ts';

/** A column as it is written into events. */
export interface Column {
  readonly name: string;
  /** `"name":`, ready to be written. */
  readonly label: Buffer;
  readonly type: ValueType;
  /** Part of the replica identity. */
  readonly identity: boolean;
  /** Left out by the catalogue. */
  readonly excluded: boolean;
}

export type RowOp = 'insert' | 'update' | 'delete' | 'truncate' | 'read';

/** A table as it was when the changes that follow were made, with everything its events repeat prepared. */
export interface Relation {
  readonly schema: string;
  readonly table: string;
  /** `<schema>.<table>`. */
  readonly name: string;
  readonly entry: TableEntry;
  readonly captured: boolean;
  readonly columns: readonly Column[];
  /** Indexes of the primary key's columns, in the key's order; empty without a primary key. */
  readonly key: readonly number[];
  readonly subjects: Readonly<Record<RowOp, string>>;
  /** `","type":…,"op":…,"table":…` for each operation: what stands behind the id. */
  readonly heads: Readonly<Record<RowOp, Buffer>>;
  readonly schemaSubject: string;
  /** The JSON of `columns` in a schema event. */
  readonly columnsJson: string;
  /** Whether a column is json or jsonb. */
  readonly hasJson: boolean;
}

/** What the catalogue of Postgres adds to a Relation message, or says of a table that is read by a query. */
interface Details {
  readonly typeNames: readonly string[];
  /** Names of the primary key's columns, in order; undefined when the table is no longer there. */
  readonly key: readonly string[] | undefined;
  /** One of them is generated: Postgres does not send it, and the others alone are no key. */
  readonly generated: boolean;
}

/** Has an index (`i`) a generated column in its key? Postgres does not send those. */
export const generatedInKey = `EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = i.indrelid AND a.attgenerated <> ''
             AND a.attnum = ANY ((i.indkey::pg_catalog.int2[])[0 : i.indnkeyatts - 1]))`;

const queryKey = `
  SELECT array(SELECT a.attname::text FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY k(attnum, n)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum WHERE k.n <= i.indnkeyatts ORDER BY k.n) AS key,
         ${generatedInKey} AS generated
    FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary AND i.indimmediate
   WHERE c.oid = $1`;

const queryTypeNames = `
  SELECT COALESCE(array_agg(${typeNameSql('t.oid', 't.modifier')} ORDER BY t.n), '{}') AS names
    FROM unnest($1::pg_catalog.oid[], $2::pg_catalog.int4[]) WITH ORDINALITY t(oid, modifier, n)`;

/** Completes a Relation message from the catalogue of Postgres and from ours. */
export async function describeRelation(
  client: Queryable,
  message: RelationMessage,
  types: TypeRegistry,
  catalog: Catalog,
  subject: string,
): Promise<Relation> {
  const oids = message.columns.map((column) => column.typeOid);
  await types.load(client, oids);
  const names = await client.query<{ names: string[] }>(queryTypeNames, [oids, message.columns.map((column) => column.typeModifier)]);
  const { rows } = await client.query<{ key: string[]; generated: boolean }>(queryKey, [message.oid]);
  const details: Details = { typeNames: names.rows[0]!.names, key: rows[0]?.key, generated: rows[0]?.generated ?? false };
  return makeRelation(message, details, types, catalog, subject);
}

function makeRelation(message: RelationMessage, details: Details, types: TypeRegistry, catalog: Catalog, subject: string): Relation {
  const { schema, table } = message;
  const name = `${schema}.${table}`;
  const entry = entryFor(catalog, schema, table);
  const excluded = new Set(entry.exclude);
  const key = details.generated ? [] : keyOf(message, details.key);
  const heads = (op: RowOp): Buffer => Buffer.from(`","type":${JSON.stringify(entry.type)},"op":"${op}","table":${JSON.stringify(name)}`);
  const token = tableToken(schema, table);
  const described = message.columns
    .map((column, i) => ({ name: column.name, type: details.typeNames[i] ?? '', key: key.includes(i) }))
    .filter((column) => !excluded.has(column.name));
  return {
    schema,
    table,
    name,
    entry,
    captured: isCaptured(catalog, schema, table),
    columns: message.columns.map((column) => ({
      name: column.name,
      label: Buffer.from(`${JSON.stringify(column.name)}:`),
      type: types.get(column.typeOid),
      identity: column.identity,
      excluded: excluded.has(column.name),
    })),
    key,
    subjects: eachOp((op) => `${subject}.${token}.${op}`),
    heads: eachOp(heads),
    schemaSubject: `${subject}._schema.${token}`,
    columnsJson: JSON.stringify(described),
    hasJson: message.columns.some((column) => types.get(column.typeOid).json),
  };
}

function eachOp<T>(make: (op: RowOp) => T): Record<RowOp, T> {
  return { insert: make('insert'), update: make('update'), delete: make('delete'), truncate: make('truncate'), read: make('read') };
}

/**
 * The primary key: with the default replica identity the message's own flags say which columns it had when the change was
 * made, and the catalogue gives their order; with another identity only the catalogue knows it.
 */
function keyOf(message: RelationMessage, catalogKey: readonly string[] | undefined): readonly number[] {
  const indexOf = (name: string): number => message.columns.findIndex((column) => column.name === name);
  const ordered = (catalogKey ?? []).map(indexOf);
  if (message.identity !== 'd') return ordered.includes(-1) ? [] : ordered;
  const flagged = message.columns.flatMap((column, i) => (column.identity ? [i] : []));
  const same = flagged.length === ordered.length && flagged.every((i) => ordered.includes(i));
  return same ? ordered : flagged;
}
