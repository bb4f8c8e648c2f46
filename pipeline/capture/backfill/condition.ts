import type { PgClient } from '../../clients/postgres.ts';
import { messageOf, usage, type HeadwaterError } from '../../runtime/errors.ts';
import { fromTable, selectRows, type ReadableTable } from '../../source/table-reader.ts';
import { endAfter, endWaiting, estimatedRows, explain, extendedQuery } from './estimate.ts';
import { isFaultOfStatement } from './faults.ts';

/** What is shown of a condition on both sides of a fault. */
const shownCharacters = 20;
/** Names that are not found: outside pg_catalog they need their schema. */
const unknownNames: ReadonlySet<string> = new Set(['42883', '42704', '42P01', '3F000']);

/**
 * Makes sure that a text is one boolean expression on the rows of a table, and nothing more. Returns the estimated rows that meet it.
 *
 * Between CASE WHEN and THEN there is no bracket that it could close and no clause that it could add, and in the extended
 * protocol no second statement: what passes here stays within the brackets that it is put into.
 * @throws HeadwaterError `bad_condition` (usage), which says where the fault is; what the server answers when it could not look
 * at it (`isLocked`)
 */
export async function checkCondition(client: PgClient, table: ReadableTable, where: string, timeoutMs: number): Promise<number> {
  const alone = 'EXPLAIN SELECT CASE WHEN\n';
  const filter = `${explain} ${selectRows(table, { where: '\0' }).split('\0')[0]!}`;
  await client.query('BEGIN READ ONLY');
  let asked = alone;
  try {
    await client.query(endAfter(timeoutMs));
    await client.query(endWaiting);
    await extendedQuery(client, `${alone}${where}\nTHEN true END FROM ${fromTable(table)}`);
    asked = filter;
    return await estimatedRows(client, selectRows(table, { where }));
  } catch (error) {
    throw isFaultOfStatement(error) ? badCondition(table.relation.name, where, error, Array.from(asked).length) : error;
  } finally {
    await client.query('ROLLBACK').catch(() => undefined);
  }
}

function badCondition(table: string, where: string, error: unknown, before: number): HeadwaterError {
  const { position, hint, code } = error as { position?: string; hint?: string; code?: string };
  // Characters, from 1, as the server counts them.
  const characters = Array.from(where);
  const at = position === undefined ? NaN : Number(position) - before;
  const place =
    at >= 1 && at <= characters.length
      ? `, at character ${at}: ${JSON.stringify(characters.slice(Math.max(0, at - 1 - shownCharacters), at - 1 + shownCharacters).join(''))}`
      : '';
  const said = messageOf(error).replace('argument of CASE/WHEN', 'a condition').replace('at or near "THEN"', 'at its end');
  const unqualified = code !== undefined && unknownNames.has(code);
  const next =
    hint ??
    (unqualified ? 'names that are not of pg_catalog need their schema: public.name' : 'it takes what SQL takes behind WHERE: id < 1000');
  return usage('bad_condition', `--where is not a condition on ${table}: ${said}${place}`, next);
}
