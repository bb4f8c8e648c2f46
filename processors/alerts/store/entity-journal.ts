import type { Queryable } from '../../../pipeline/clients/postgres.ts';
import { arraysOf, chunksOf, sizeOf, type Cells } from './cells.ts';

/** Commits after which the journal goes into the table. More would make a start slow, fewer would write hot entities too often. */
const mostCommits = 50;

const append = `
  INSERT INTO headwater.alert_state_journal (processor, table_names, grouping_names, entities, records)
  VALUES ($1, $2::text[], $3::text[], $4::text[], $5::text[])`;

const compact = `
  WITH journal AS (
    DELETE FROM headwater.alert_state_journal WHERE processor = $1 RETURNING *
  ), latest AS MATERIALIZED (
    SELECT DISTINCT ON (table_name, grouping_name, entity) table_name, grouping_name, entity, record
    FROM journal, unnest(table_names, grouping_names, entities, records) WITH ORDINALITY AS r(table_name, grouping_name, entity, record, n)
    ORDER BY table_name, grouping_name, entity, id DESC, n DESC
  ), deleted AS (
    DELETE FROM headwater.alert_state_entities e USING latest l
    WHERE l.record IS NULL AND e.processor = $1 AND (e.table_name, e.grouping_name, e.entity) = (l.table_name, l.grouping_name, l.entity)
  )
  INSERT INTO headwater.alert_state_entities (processor, table_name, grouping_name, entity, record)
  SELECT $1, table_name, grouping_name, entity, record::json FROM latest WHERE record IS NOT NULL
  ON CONFLICT (processor, table_name, grouping_name, entity) DO UPDATE SET record = excluded.record`;

/** Puts what stands in the journal into the table. Changes nothing of what is stored, only where. */
export async function compactJournal(client: Queryable, processor: string): Promise<void> {
  await client.query(compact, [processor]);
}

/** Writes entities' records: one row for all of a commit, unless it is huge, and from time to time each into its own. */
export class EntityJournal {
  readonly #processor: string;
  #commits = 0;

  constructor(processor: string) {
    this.#processor = processor;
  }

  /** @param rows table, grouping, entity and record as JSON text; null: deleted */
  async write(client: Queryable, rows: readonly Cells[]): Promise<void> {
    if (rows.length === 0) return;
    for (const chunk of chunksOf(rows, sizeOf)) await client.query(append, [this.#processor, ...arraysOf(chunk)]);
    if (++this.#commits < mostCommits) return;
    await compactJournal(client, this.#processor);
    this.#commits = 0;
  }
}
