import type { CatalogAggregate } from './generated/catalog.ts';

/** The filter fields of the gateway that a table can map to its columns. */
export const filterFields = ['protocolIds', 'tokenIds', 'chains', 'userId', 'value'] as const;
export type FilterField = (typeof filterFields)[number];

/** What the catalogue says of one table; every default is filled in. */
export interface TableEntry {
  /** The `type` of its events. */
  readonly type: string;
  /** The channel its events go to; undefined for Headwater's own tables that no channel shows. */
  readonly channel: string | undefined;
  /** Filter field → column. */
  readonly filters: Readonly<Partial<Record<FilterField, string>>>;
  /** Columns that never reach the log. */
  readonly exclude: readonly string[];
  /** Captured although it has no usable replica identity: inserts and truncates only. */
  readonly appendOnly: boolean;
  /** Whether the cache holds it; undefined: yes, unless capture finds it larger than the snapshot limit when it copies its rows. */
  readonly cache: boolean | undefined;
}

/** The catalogue, validated. Table names are `<schema>.<table>`, as Postgres spells them, unquoted. */
export interface Catalog {
  readonly tables: ReadonlyMap<string, TableEntry>;
  readonly aggregates: Readonly<Record<string, CatalogAggregate>>;
  /** Tables that are not named are captured too. */
  readonly others: boolean;
  /** Patterns `<schema>.<table>` with `*`, never captured. */
  readonly exclude: readonly string[];
}

/** A catalogue that cannot be used; `faults` has all that is wrong with it, each with its place. */
export class CatalogError extends Error {
  readonly code = 'bad_catalog';
  readonly faults: readonly string[];

  constructor(fileName: string, faults: readonly string[]) {
    super(`the catalogue ${fileName} cannot be used:\n${faults.join('\n')}`);
    this.name = 'CatalogError';
    this.faults = faults;
  }
}

/** The schema of Headwater's own tables. */
export const ownSchema = 'headwater';

/** The channel of the alert history; no other table can go there. */
export const alertsChannel = 'alerts';

/** What is said of a table when nothing is said of it. */
export const unnamedEntry: Omit<TableEntry, 'channel'> = {
  type: 'row',
  filters: {},
  exclude: [],
  appendOnly: false,
  cache: undefined,
};

/** Captured for the parts of Headwater that live on them, shown on no channel and kept out of the cache. */
const hiddenEntry: TableEntry = { ...unnamedEntry, channel: undefined, cache: false };

/** Headwater's own tables that are captured; a processor must not read what it writes, so no others ever are. */
const ownTables: ReadonlyMap<string, TableEntry> = new Map([
  ['api_keys', { ...hiddenEntry, exclude: ['hash'] }],
  // Where a rule notifies are addresses and secrets.
  ['alert_rules', { ...hiddenEntry, exclude: ['channels'] }],
  ['silences', hiddenEntry],
  ['alert_history', { ...unnamedEntry, type: 'alert', channel: alertsChannel, filters: { userId: 'user_id' } }],
]);

/** The catalogue when none is given: every table, under its own name. */
export function defaultCatalog(): Catalog {
  return { tables: new Map(), aggregates: {}, others: true, exclude: [] };
}

/** What holds for a table, named in the catalogue or not. Whether it is captured at all, `isCaptured` says. */
export function entryFor(catalog: Catalog, schema: string, table: string): TableEntry {
  const name = `${schema}.${table}`;
  if (schema === ownSchema) return ownTables.get(table) ?? hiddenEntry;
  return catalog.tables.get(name) ?? { ...unnamedEntry, channel: name };
}

/**
 * May the table be in the log, as far as the catalogue goes? (Whether it has a replica identity is another matter.)
 * Tables of the system never are, and of Headwater's own only the few that others live on.
 */
export function isCaptured(catalog: Catalog, schema: string, table: string): boolean {
  if (schema === ownSchema) return ownTables.has(table);
  if (isSystemSchema(schema)) return false;
  const name = `${schema}.${table}`;
  return (catalog.others || catalog.tables.has(name)) && !isExcluded(catalog.exclude, name);
}

/** Does a pattern of the list, in which `*` stands for any text, cover the table? */
export function isExcluded(patterns: readonly string[], name: string): boolean {
  return patterns.some((pattern) => globToRegExp(pattern).test(name));
}

/** Schemas of Postgres itself; it lets nobody else create one that begins with `pg_`. */
export function isSystemSchema(schema: string): boolean {
  return schema === 'information_schema' || schema.startsWith('pg_');
}

/**
 * The channels and the tables of each, by table name.
 * @param captured further tables that are known to be captured: those that the catalogue does not name have channels, too
 */
export function channelsOf(
  catalog: Catalog,
  captured: Iterable<{ readonly schema: string; readonly table: string }> = [],
): ReadonlyMap<string, ReadonlyMap<string, TableEntry>> {
  const channels = new Map<string, Map<string, TableEntry>>();
  const add = (name: string, entry: TableEntry): void => {
    if (entry.channel === undefined) return;
    const tables = channels.get(entry.channel) ?? new Map<string, TableEntry>();
    channels.set(entry.channel, tables.set(name, entry));
  };
  for (const [name, entry] of catalog.tables) add(name, entry);
  for (const [table, entry] of ownTables) add(`${ownSchema}.${table}`, entry);
  for (const { schema, table } of captured) {
    if (isCaptured(catalog, schema, table)) add(`${schema}.${table}`, entryFor(catalog, schema, table));
  }
  return channels;
}

function globToRegExp(pattern: string): RegExp {
  const parts = pattern.split(/\*+/u).map((part) => part.replace(/[\\^$.|?+()[\]{}]/gu, '\\$&'));
  return new RegExp(`^${parts.join('.*')}$`, 'su');
}
