import type { Queryable } from '../../../pipeline/clients/postgres.ts';
import type { AlertEffects, SavedEntity } from '../engine/saved.ts';
import { parseEntityKey } from '../engine/saved.ts';
import { chunksOf } from './cells.ts';

/** Commits after which the journal goes into the table. More would make a start slow, fewer would write hot entities too often. */
const mostCommits = 50;

/** What is stored of an entity beside its key. */
export type EntityRecord = Omit<SavedEntity, 'table' | 'grouping' | 'entity'>;

/**
 * An entity in the journal: table, grouping, entity, and its record as JSON text; null: deleted. A text within the JSON, since functions
 * that take JSON apart refuse U+0000 anywhere in it, which a column of type json may well hold.
 */
interface Entry {
  readonly t: string;
  readonly g: string;
  readonly e: string;
  readonly r: string | null;
}

const append = 'INSERT INTO headwater.alert_state_journal (processor, entries) VALUES ($1, $2)';

const compact = `
  WITH journal AS (
    DELETE FROM headwater.alert_state_journal WHERE processor = $1 RETURNING *
  ), latest AS MATERIALIZED (
    SELECT DISTINCT ON (t, g, e) t, g, e, r
    FROM journal, ROWS FROM (json_to_recordset(entries::json) AS (t text, g text, e text, r text)) WITH ORDINALITY AS entry(t, g, e, r, n)
    ORDER BY t, g, e, id DESC, n DESC
  ), deleted AS (
    DELETE FROM headwater.alert_state_entities s USING latest l
    WHERE l.r IS NULL AND s.processor = $1 AND (s.table_name, s.grouping_name, s.entity) = (l.t, l.g, l.e)
  )
  INSERT INTO headwater.alert_state_entities (processor, table_name, grouping_name, entity, record)
  SELECT $1, t, g, e, r::json FROM latest WHERE r IS NOT NULL
  ON CONFLICT (processor, table_name, grouping_name, entity) DO UPDATE SET record = excluded.record`;

/** Every entity of a namespace, in the table or in the journal: `what` names it, `content` is its record. */
export const entitiesQuery = (namespace: string): string => `
  WITH latest AS MATERIALIZED (
    SELECT DISTINCT ON (t, g, e) t, g, e, r
    FROM headwater.alert_state_journal,
      ROWS FROM (json_to_recordset(entries::json) AS (t text, g text, e text, r text)) WITH ORDINALITY AS entry(t, g, e, r, n)
    WHERE processor = ${namespace} ORDER BY t, g, e, id DESC, n DESC
  )
  SELECT ROW(t, g, e)::text AS what, r AS content FROM latest WHERE r IS NOT NULL
  UNION ALL
  SELECT ROW(table_name, grouping_name, entity)::text, record::text FROM headwater.alert_state_entities s
  WHERE processor = ${namespace} AND NOT EXISTS (SELECT FROM latest l WHERE (l.t, l.g, l.e) = (s.table_name, s.grouping_name, s.entity))`;

/** Puts what stands in the journal into the table. Changes nothing of what is stored, only where. */
export async function compactJournal(client: Queryable, processor: string): Promise<void> {
  await client.query(compact, [processor]);
}

/** Writes entities' records: one row for all of a commit, unless it is huge, and from time to time each into its own. */
export class EntityJournal {
  #commits = 0;

  async write(client: Queryable, processor: string, entities: AlertEffects['entities']): Promise<void> {
    if (entities.size === 0) return;
    const entries = Array.from(entities, ([key, kept]) => entryOf(key, kept));
    for (const chunk of chunksOf(entries, ({ r }) => r?.length ?? 0)) await client.query(append, [processor, JSON.stringify(chunk)]);
    if (++this.#commits < mostCommits) return;
    await compactJournal(client, processor);
    this.#commits = 0;
  }
}

function entryOf(name: string, kept: SavedEntity | undefined): Entry {
  if (!kept) {
    const { table, grouping, entity } = parseEntityKey(name);
    return { t: table, g: grouping, e: entity, r: null };
  }
  const { table, grouping, entity, ...record } = kept;
  return { t: table, g: grouping, e: entity, r: JSON.stringify(record satisfies EntityRecord) };
}
