import type { LogEvent, Seq } from '../../pipeline/log/event-log.ts';
import type { Processor } from '../../pipeline/runner/processor.ts';
import { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { entryFor, isCaptured, type Catalog } from '../../schemas/catalog.ts';
import { decodeToken } from '../../schemas/subjects.ts';
import { rowNames } from './row-event.ts';

/** What a row is after a batch: its last event, or none when it was deleted. */
export interface RowChange {
  readonly seq: Seq;
  readonly event: Uint8Array | undefined;
}

/** What a batch does to a table: rows of before `truncated` are gone, then the last change of each row. */
export interface TableChanges {
  truncated: Seq | undefined;
  rows: Map<string, RowChange>;
}

export interface CacheEffects {
  /** By `<schema>.<table>`. */
  readonly tables: Map<string, TableChanges>;
  /**
   * Tables that are not cached from the given event on, for as long as the epoch lasts: they have rows without primary key,
   * or are too large. Whatever the store has of them goes, and changes that come for them change nothing.
   */
  readonly uncached: Map<string, Seq>;
}

/** What a subject says of its events. */
interface Target {
  readonly table: string;
  readonly op: string;
}

const notRows = new Set(['_schema', '_message', '_mark', '_tick']);
const mostSubjects = 20_000;
const backfillMark = '._mark.backfill';

/** Folds row events into the last event of each row. Every other event only moves the offset. */
export function cacheProcessor(catalog: Catalog): Processor<CacheEffects> {
  const targets = new Map<string, Target | undefined>();
  const targetOf = (subject: string): Target | undefined => {
    if (targets.has(subject)) return targets.get(subject);
    if (targets.size >= mostSubjects) targets.clear();
    const target = parseSubject(subject, catalog);
    targets.set(subject, target);
    return target;
  };
  return {
    name: 'cache',
    begin: () => ({ tables: new Map(), uncached: new Map() }),
    apply(event, effects) {
      const target = targetOf(event.subject);
      if (target) applyRow(event, target, effects);
      else if (event.subject.endsWith(backfillMark)) applyMark(event, catalog, effects);
    },
  };
}

/** Is the table kept in the cache, as far as the catalogue goes? */
export function isCached(catalog: Catalog, schema: string, table: string): boolean {
  return isCaptured(catalog, schema, table) && entryFor(catalog, schema, table).cache !== false;
}

/** `<root>.<schema>.<table>.<op>` of a cached table; undefined for all other subjects. */
function parseSubject(subject: string, catalog: Catalog): Target | undefined {
  const tokens = subject.split('.');
  if (tokens.length !== 4 || notRows.has(tokens[1]!)) return undefined;
  const [schema, table] = [decodeToken(tokens[1]!), decodeToken(tokens[2]!)];
  return isCached(catalog, schema, table) ? { table: `${schema}.${table}`, op: tokens[3]! } : undefined;
}

/** Everything that can fail comes before the first change of the effects. */
function applyRow({ seq, data }: LogEvent, { table, op }: Target, effects: CacheEffects): void {
  switch (op) {
    case 'insert':
    case 'read':
    case 'update':
    case 'delete': {
      const { key, oldKey } = rowNames(data, op === 'update');
      if (key === undefined) {
        leaveOut(effects, table, seq);
        return;
      }
      const { rows } = changesOf(effects, table);
      if (oldKey !== undefined && oldKey !== key) rows.set(oldKey, { seq, event: undefined });
      rows.set(key, { seq, event: op === 'delete' ? undefined : data });
      return;
    }
    case 'truncate': {
      const changes = changesOf(effects, table);
      changes.truncated = seq;
      changes.rows = new Map();
      return;
    }
    default:
      throw new HeadwaterError('unknown_op', `the operation ${JSON.stringify(op)} of an event on ${table} is not known`);
  }
}

/** A backfill of a whole table begins: one that capture found to be large is left out, unless the catalogue wants it. */
function applyMark({ seq, data }: LogEvent, catalog: Catalog, effects: CacheEffects): void {
  const { phase, table, large, where } = markOf(data);
  if (phase !== 'begin' || large !== true || where !== undefined || typeof table !== 'string') return;
  if (catalog.tables.get(table)?.cache !== true) leaveOut(effects, table, seq);
}

function markOf(bytes: Uint8Array): Readonly<Record<string, unknown>> {
  try {
    const { data } = JSON.parse(Buffer.from(bytes).toString('utf8')) as { data: Readonly<Record<string, unknown>> };
    if (typeof data === 'object' && data !== null) return data;
  } catch {
    // It is no JSON: said below.
  }
  throw new HeadwaterError('bad_event', 'the bytes are not a mark');
}

function leaveOut({ uncached }: CacheEffects, table: string, seq: Seq): void {
  if (!uncached.has(table)) uncached.set(table, seq);
}

function changesOf(effects: CacheEffects, table: string): TableChanges {
  let changes = effects.tables.get(table);
  if (!changes) effects.tables.set(table, (changes = { truncated: undefined, rows: new Map() }));
  return changes;
}
