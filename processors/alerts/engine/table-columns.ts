import type { Seq } from '../../../pipeline/log/event-log.ts';

/** The columns of a table, as schema events told them; empty before the first. Changed in place. */
export class TableColumns {
  /** Column → type, as Postgres prints it. */
  readonly types = new Map<string, string>();
  /** Column → sequence of the event since which it has been of this type. */
  readonly since = new Map<string, Seq>();
}
