import type { Seq } from '../../pipeline/log/event-log.ts';

/** A table as queries see it: captured, with the columns that reach the log, read from the catalogue of PostgreSQL. */
export interface QueryTable {
  /** `<schema>.<table>`, unquoted. */
  readonly name: string;
  readonly schema: string;
  readonly table: string;
  /** Who may read this channel may query the table. */
  readonly channel: string;
  /** Column → type, as PostgreSQL prints it: `numeric(20,8)`. */
  readonly columns: ReadonlyMap<string, string>;
  /** The primary key's columns, in its order; empty without one. */
  readonly key: readonly string[];
  /** A partitioned table: its rows are those of its partitions. Others are read with `FROM ONLY`: tables that inherit from them are tables of their own in the log. */
  readonly partitioned: boolean;
  /** Columns that are never null; those of the key among them. */
  readonly notNull: ReadonlySet<string>;
  /** Columns of text whose collation takes different texts for equal (`pg_collation.collisdeterministic` is false). */
  readonly looseText: ReadonlySet<string>;
  /** Columns whose old values the log always shows; empty without a replica identity. */
  readonly identity: readonly string[];
  /** Whether every change of it is in the log, and seen only by who may see all of it: ordinary, not insert-only, no row security. */
  readonly cacheable: boolean;
  /** Another one after each change of the table's definition, and never one of before. */
  readonly version: string;
}

/** What an answer depends on: the whole table, or its rows in which the pinned columns have one of these combinations of values. */
export interface Dependency {
  readonly table: string;
  readonly pins?: {
    /** Columns of the replica identity, sorted by name. */
    readonly columns: readonly string[];
    /** One value for each column, as events spell it; several combinations. */
    readonly values: readonly (readonly string[])[];
  };
}

/** A query that has been checked, ready to run. */
export interface PreparedQuery {
  readonly table: QueryTable;
  /** The same text for all queries that mean the same; without owner and schema. */
  readonly canonical: string;
  readonly dependency: Dependency;
  /**
   * Asks for one row more than `limit`, to see whether there is one. All columns of the answer have types of PostgreSQL, to be encoded as
   * the text of each in events is. To be run under the settings `textForms`, as events are read: names in it rely on the `search_path`,
   * and texts that it compares, groups or puts into a keyset on the others.
   */
  readonly sql: {
    readonly text: string;
    readonly values: readonly unknown[];
  };
  /** Names of the columns in an answer's items. The statement's further columns are the keyset's. */
  readonly output: readonly string[];
  readonly limit: number;
  /** The cursor behind a row, from the texts of the statement's further columns; undefined when there are no pages. */
  readonly cursorAfter: ((keyset: readonly (string | null)[]) => string) | undefined;
}

/** What the database says to a query: read in one transaction with its snapshot. */
export interface QueryRows {
  /** Each a JSON object, values as events spell them. At most `limit`. */
  readonly items: readonly string[];
  /** The keyset of the last item, when there is more behind it. */
  readonly more: readonly (string | null)[] | undefined;
  /** `pg_current_snapshot()` of the transaction, as text. */
  readonly snapshot: string;
}

/** For whom a query runs. */
export interface QueryAsker {
  /** Whose rows it sees, where a table has row security. */
  readonly owner: string;
  /** Of the API key: keys share the connections. */
  readonly keyId: string;
}

/**
 * Runs checked queries. Rejects with `QueryRefused` for what the asker can mend, and with `TableChanged` unless the rows are of the table
 * that the query was checked for.
 */
export interface QueryExecutor {
  run(query: PreparedQuery, asker: QueryAsker, signal: AbortSignal): Promise<QueryRows>;
  /** `pg_current_snapshot()` now, as text. */
  snapshot(signal: AbortSignal): Promise<string>;
}

/** An answer, but for the cursor's encoding and the HTTP around it. */
export interface QueryAnswer {
  readonly items: readonly string[];
  readonly next: string | undefined;
  /** Every event up to this sequence is in it, whatever else. Undefined while that cannot be known. */
  readonly asOf: Seq | undefined;
  readonly cache: 'hit' | 'miss';
}
