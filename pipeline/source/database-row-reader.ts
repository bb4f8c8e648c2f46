import { isCaptured, type Catalog } from '../../schemas/catalog.ts';
import { stableText, type PgPool, type PgPoolClient } from '../clients/postgres.ts';
import type { DatabaseRows } from '../runner/database-rows.ts';
import { HeadwaterError, messageOf, usage } from '../runtime/errors.ts';
import { encodeRow } from './event-encoder.ts';
import { describeTable, hasKey, readRows, selectRows, type ReadableTable } from './table-reader.ts';
import { TypeRegistry } from './types.ts';

const queryOid = `
  SELECT c.oid::int8::float8 AS oid, n.nspname::text AS schema, c.relname::text AS table
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname || '.' || c.relname = $1 AND c.relkind IN ('r', 'p')`;

/** Single rows from the database, in the log's own mapping of values. */
export function databaseRows(pool: PgPool, catalog: Catalog, subject: string): DatabaseRows {
  const types = new TypeRegistry();
  return {
    async readRow(table, key) {
      const client = await pool.connect();
      let failure: Error | undefined;
      try {
        for (const setting of [...stableText, `SET statement_timeout = '2s'`]) await client.query(setting);
        return await readOne(client, table, key);
      } catch (error) {
        // A connection that failed in the middle of a COPY is of no more use.
        failure = error as Error;
        throw error;
      } finally {
        client.release(failure);
      }
    },
  };

  async function readOne(client: PgPoolClient, table: string, key: readonly string[]): Promise<string | undefined> {
    const { rows } = await client.query<{ oid: number; schema: string; table: string }>(queryOid, [table]);
    const found = rows.find((row) => isCaptured(catalog, row.schema, row.table));
    if (!found) throw usage('unknown_table', `table ${table} is not captured`);
    const readable = await describeTable(client, found, types, catalog, subject);
    const condition = keyCondition(readable, key);
    let row: string | undefined;
    try {
      await readRows(
        client,
        selectRows(readable, { where: condition }),
        (tuple) => (row = encodeRow(readable.relation, tuple).toString('utf8')),
      );
    } catch (error) {
      // Class 22: the text is no value of the column's type.
      if (String((error as { code?: unknown }).code).startsWith('22')) throw usage('bad_key', messageOf(error));
      throw error;
    }
    return row;
  }
}

function keyCondition(table: ReadableTable, key: readonly string[]): string {
  const { name, key: columns } = table.relation;
  if (columns.length === 0) throw usage('bad_key', `${name} has no primary key`);
  if (columns.length !== key.length)
    throw new HeadwaterError('bad_key', `the key of ${name} has ${columns.length} columns, not ${key.length}`);
  return hasKey(table, key);
}
