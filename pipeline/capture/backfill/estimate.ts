import type { PgClient } from '../../clients/postgres.ts';
import { selectRows, type ReadableTable } from '../../source/table-reader.ts';

export const explain = 'EXPLAIN (FORMAT JSON)';

/** The plan of a statement, as EXPLAIN gives it. */
interface Plan {
  readonly 'QUERY PLAN': readonly { readonly Plan: { readonly 'Plan Rows': number } }[];
}

/** Ends each further query of the transaction that waits too long for a lock: in between it is looked whether to go on. */
export const endWaiting = 'SET LOCAL lock_timeout = 1000';

/** Ends each further query of the transaction that takes too long. */
export function endAfter(timeoutMs: number): string {
  return `SET LOCAL statement_timeout = ${Math.ceil(timeoutMs)}`;
}

/** How many rows the server expects a table to have. Throws (`isLocked`) while somebody keeps it from looking. */
export async function estimateTable(client: PgClient, table: ReadableTable): Promise<number> {
  await client.query('BEGIN READ ONLY');
  try {
    await client.query(endWaiting);
    return await estimatedRows(client, selectRows(table, {}));
  } finally {
    await client.query('ROLLBACK').catch(() => undefined);
  }
}

/** How many rows the server expects a query to give. */
export async function estimatedRows(client: PgClient, query: string): Promise<number> {
  const { rows } = await extendedQuery(client, `${explain} ${query}`);
  return rows[0]?.['QUERY PLAN'][0]?.Plan['Plan Rows'] ?? 0;
}

/** In the extended protocol, which takes one statement only. */
export function extendedQuery(client: PgClient, text: string): Promise<{ rows: Plan[] }> {
  const config = { text, queryMode: 'extended' };
  return client.query<Plan>(config);
}
