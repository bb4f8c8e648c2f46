import type { LogEvent } from '../pipeline/log/event-log.ts';
import type { CachedRow } from '../pipeline/runner/row-source.ts';
import { channelsOf, entryFor, isCaptured, type Catalog, type TableEntry } from '../schemas/catalog.ts';
import type { FilterableEvent } from '../schemas/filter.ts';
import { decodeToken } from '../schemas/subjects.ts';

/** A channel: the tables whose events go to it. Tables can join, so take `tables` when it is needed. */
export interface Channel {
  readonly name: string;
  readonly tables: ReadonlyMap<string, TableEntry>;
}

/** An event on its way to subscribers: the log's bytes, and as much of the content as filters look at. */
export interface ChannelEvent {
  readonly seq: number;
  readonly bytes: Uint8Array;
  /** Undefined for what no channel shows: ticks, marks, schemas, messages, hidden tables. */
  readonly channel: string | undefined;
  /** Only the columns that some filter of the table maps. */
  readonly content: FilterableEvent;
  /** The commit's time, as text. */
  readonly at: string | undefined;
}

interface Route {
  readonly channel: string | undefined;
  readonly columns: readonly string[];
  readonly kind: 'row' | 'schema' | 'other';
}

const other: Route = { channel: undefined, columns: [], kind: 'other' };
const noContent: FilterableEvent = { type: '' };
const maxRoutes = 100_000;

type Row = Readonly<Record<string, unknown>>;

/**
 * Which channels there are, and which one an event goes to. A table of the catalogue has its channel from the start, any
 * other one from its first event or its `ev._schema.…` event on, which is in the log before its first row.
 */
export class Channels {
  readonly #catalog: Catalog;
  readonly #captured = new Map<string, { schema: string; table: string }>();
  readonly #routes = new Map<string, Route>();
  #channels: ReadonlyMap<string, ReadonlyMap<string, TableEntry>>;

  constructor(catalog: Catalog) {
    this.#catalog = catalog;
    this.#channels = channelsOf(catalog);
  }

  get(name: string): Channel | undefined {
    const tables = this.#channels.get(name);
    return tables && { name, tables };
  }

  /** Learns of the table that a schema or row subject names. */
  learn(subject: string): void {
    this.#routeOf(subject);
  }

  /** The channel of events with this subject. */
  channelOf(subject: string): string | undefined {
    return this.#routeOf(subject).channel;
  }

  /** Reads as much of an event as the gateway needs. An event that is no JSON passes, and matches only empty filters. */
  read({ seq, subject, data }: LogEvent): ChannelEvent {
    const { channel, columns, kind } = this.#routeOf(subject);
    const parsed = kind === 'row' || subject.endsWith('._tick') ? parse(data) : undefined;
    const at = typeof parsed?.['at'] === 'string' ? parsed['at'] : undefined;
    const content = parsed && kind === 'row' ? contentOf(parsed, columns) : noContent;
    return { seq, bytes: data, channel, content, at };
  }

  /** Reads a row of the cache, which is the event that wrote it. */
  readRow({ seq, event }: CachedRow, { channel, filters }: TableEntry): ChannelEvent {
    const { type, table, after } = parse(event) ?? {};
    // What the row was before is of no interest here: only current rows count.
    const content = contentOf({ type, table, after }, Object.values(filters));
    return { seq, bytes: event, channel, content, at: undefined };
  }

  #routeOf(subject: string): Route {
    let route = this.#routes.get(subject);
    if (!route) {
      if (this.#routes.size >= maxRoutes) this.#routes.clear();
      route = this.#newRoute(subject);
      this.#routes.set(subject, route);
    }
    return route;
  }

  #newRoute(subject: string): Route {
    const tokens = subject.split('.');
    // `ev.<schema>.<table>.<op>` or `ev._schema.<schema>.<table>`; all others have fewer tokens.
    if (tokens.length !== 4) return other;
    const isSchema = tokens[1] === '_schema';
    const [schema, table] = isSchema
      ? [decodeToken(tokens[2]!), decodeToken(tokens[3]!)]
      : [decodeToken(tokens[1]!), decodeToken(tokens[2]!)];
    if (!isCaptured(this.#catalog, schema, table)) return other;
    const name = `${schema}.${table}`;
    if (!this.#captured.has(name)) {
      this.#captured.set(name, { schema, table });
      this.#channels = channelsOf(this.#catalog, this.#captured.values());
    }
    const { channel, filters } = entryFor(this.#catalog, schema, table);
    return { channel: isSchema ? undefined : channel, columns: [...new Set(Object.values(filters))], kind: isSchema ? 'schema' : 'row' };
  }
}

/** The JSON object in an event's bytes. */
export function parse(data: Uint8Array): Row | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('utf8'));
    return typeof value === 'object' && value !== null ? (value as Row) : undefined;
  } catch {
    return undefined;
  }
}

/** Few columns instead of the whole row, so that the recent window stays small. */
function contentOf(event: Row, columns: readonly string[]): FilterableEvent {
  const { type, op, table, after, before, key } = event;
  return {
    type: typeof type === 'string' ? type : '',
    ...(typeof op === 'string' && { op }),
    ...(typeof table === 'string' && { table }),
    ...pick('after', after, columns),
    ...pick('before', before, columns),
    ...pick('key', key, columns),
  };
}

function pick<Name extends string>(name: Name, row: unknown, columns: readonly string[]): Partial<Record<Name, Row>> {
  if (typeof row !== 'object' || row === null) return {};
  const picked: Record<string, unknown> = {};
  for (const column of columns) if (Object.hasOwn(row, column)) picked[column] = (row as Row)[column];
  return { [name]: picked } as Record<Name, Row>;
}
