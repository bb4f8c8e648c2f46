import { checkQuery, type DescribedTables } from '../../schemas/query/check.ts';
import type { Query, QueryFault } from '../../schemas/query/query.ts';
import type { PreparedQuery, QueryTable } from './model.ts';
import { QueryRefused } from './refused.ts';
import { longestCursor, openCursor, sealCursor, type CursorSeal } from './sql/cursor.ts';
import { dependencyOf } from './sql/pins.ts';
import { statementOf } from './sql/statement.ts';

/** The tables that the asker may read, as the database has them now. */
export type QueryTables = DescribedTables<QueryTable>;

export interface PrepareOptions {
  readonly tables: QueryTables;
  /** Whom the cursors are for: the owner of the key. */
  readonly owner: string;
  /** Signs cursors; the same on all nodes, else a cursor is good only where it was made. */
  readonly cursorSecret: string;
}

/** Either a query to run, or all that is wrong with it. `bad_query` and `bad_cursor` are codes of answers with status 400. */
export type Prepared =
  | { readonly query: PreparedQuery; readonly faults?: never; readonly code?: never }
  | { readonly faults: readonly QueryFault[]; readonly code: 'bad_query' | 'bad_cursor'; readonly query?: never };

/**
 * Checks a query that comes from outside, and makes SQL of it.
 * @param input parsed JSON: `{from, select?, where?, aggregate?, groupBy?, having?, orderBy?, limit?, cursor?}`; `where` and `having` are
 *   trees or texts. Members of the request around it (`minSeq`) are to be taken out first. What a URL holds, `queryFromUrl` makes into this.
 */
export function prepareQuery(input: unknown, options: PrepareOptions): Prepared {
  const checked = checkQuery(input, options.tables);
  if (checked.faults) return { faults: checked.faults, code: 'bad_query' };
  const { query, table, groups, paged, cursor } = checked;
  const seal: CursorSeal = { secret: options.cursorSecret, owner: options.owner, shape: textOf({ ...query, limit: 0 }) };
  const after = cursor === undefined ? undefined : openCursor(cursor, seal);
  if (cursor !== undefined && after?.length !== query.orderBy.length) return { faults: [strangeCursor], code: 'bad_cursor' };
  const { text, values, output } = statementOf({ query, table, groups, paged, after });
  return {
    query: {
      ...{ table, output },
      canonical: after === undefined ? textOf(query) : `${textOf(query)} after ${JSON.stringify(after)}`,
      dependency: dependencyOf(table, query.where),
      sql: { text, values },
      limit: query.limit,
      cursorAfter: paged ? cursorMaker(seal) : undefined,
    },
  };
}

const strangeCursor: QueryFault = {
  field: 'cursor',
  message: 'is of another query, of another owner, or of a table that has been changed since: leave it out to begin anew',
};

/** Members in an order of their own, whatever order they were given in. */
function textOf(query: Query): string {
  const { from, select, where, groupBy, aggregate, having, orderBy, limit } = query;
  return JSON.stringify({ from, select, where, groupBy, aggregate, having, orderBy, limit });
}

/** An answer that is kept is asked for its cursor again and again. */
function cursorMaker(seal: CursorSeal): (keyset: readonly (string | null)[]) => string {
  let last: { readonly keyset: readonly (string | null)[]; readonly cursor: string } | undefined;
  return (keyset) => {
    if (last?.keyset !== keyset) last = { keyset, cursor: cursorOf(keyset, seal) };
    return last.cursor;
  };
}

function cursorOf(keyset: readonly (string | null)[], seal: CursorSeal): string {
  const cursor = sealCursor(keyset, seal);
  if (cursor.length <= longestCursor) return cursor;
  throw new QueryRefused(
    'bad_query',
    'the page ends in a row whose text to sort by is too long for a cursor: sort by another column, or ask for other rows',
    { field: 'orderBy' },
  );
}

/** All faults as one sentence each, for a message: `where: the column … (line 1, column 7)`. */
export function describeFaults(faults: readonly QueryFault[]): string {
  return faults.map(describeFault).join('; ');
}

function describeFault({ field, message, line, column }: QueryFault): string {
  const place = line === undefined ? '' : ` (line ${line}, column ${column})`;
  return `${field}${place} ${message}`;
}
