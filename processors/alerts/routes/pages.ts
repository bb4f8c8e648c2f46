import { createHash } from 'node:crypto';
import { badRequest } from '../../../pipeline/runtime/request-fault.ts';
import type { Query } from '../../../pipeline/runtime/request-query.ts';

const mostItems = 200;
const usualItems = 50;

/** What a page begins after: the last row of the page before, in the order of the list. */
export interface Position {
  /** ISO 8601 with microseconds, UTC. */
  readonly at: string;
  readonly id: string;
}

/** Which page of which list is asked for. */
export interface PageRequest {
  readonly limit: number;
  readonly after: Position | undefined;
  /** A cursor for this list, of this owner, with these filters. */
  cursorAt(position: Position): string;
}

export interface Page<T> {
  readonly items: readonly T[];
  /** `cursor` of the next page; null when this is the last. */
  readonly next: string | null;
}

/**
 * Reads `limit` and `cursor`. A cursor holds only where it was given: same list, same owner, same filters.
 * @throws RequestFault `bad_request`
 */
export function pageRequest(query: Query, list: string, owner: string): PageRequest {
  const limit = query.count('limit', 1, mostItems) ?? usualItems;
  const filters = [...query.given].filter(([name]) => name !== 'limit' && name !== 'cursor').sort(([a], [b]) => (a < b ? -1 : 1));
  const seal = createHash('sha256')
    .update(JSON.stringify([list, owner, filters]))
    .digest('base64url')
    .slice(0, 16);
  const cursor = query.text('cursor');
  return {
    limit,
    after: cursor === undefined ? undefined : openCursor(cursor, seal),
    cursorAt: ({ at, id }) => Buffer.from(`${seal} ${at} ${id}`).toString('base64url'),
  };
}

/** A page of rows of which one more than the limit was asked for. */
export function pageOf<Row extends Position, T>(request: PageRequest, rows: readonly Row[], toItem: (row: Row) => T): Page<T> {
  const shown = rows.slice(0, request.limit);
  const last = shown.at(-1);
  return { items: shown.map(toItem), next: rows.length > request.limit && last ? request.cursorAt(last) : null };
}

function openCursor(cursor: string, seal: string): Position {
  const [sealed, at, id] = Buffer.from(cursor, 'base64url').toString('utf8').split(' ');
  const whole = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/.test(at ?? '') && /^[\da-f-]{1,36}$/.test(id ?? '');
  if (!whole) throw badRequest('cursor is not the "next" of a page', 'cursor');
  if (sealed !== seal) throw badRequest('cursor belongs to another list: use it with the same filters and the same owner’s key', 'cursor');
  return { at: at!, id: id! };
}
