import type { PgPool, Queryable } from '../../../pipeline/clients/postgres.ts';
import type { SavedClock, SavedEntity, SavedEpisode, SavedRule, SavedSample, SavedTable } from '../engine/saved.ts';
import { compactJournal, type EntityRecord } from './entity-journal.ts';

/** What takes the stored state in, in this order: see `AlertEngine`. */
export interface StateTarget {
  reset(clock?: SavedClock): void;
  loadTables(tables: Iterable<SavedTable>): void;
  loadRules(rules: Iterable<SavedRule>): void;
  loadEntities(entities: Iterable<SavedEntity>): void;
  loadSamples(samples: Iterable<SavedSample>): void;
  loadEpisodes(episodes: Iterable<SavedEpisode>): void;
}

interface Recorded<T> {
  readonly record: T;
}

/** Rows of one page: so many are in memory twice at most, and the process answers in between. */
const pageRows = 5_000;

/**
 * Loads all that is stored in the processor's namespace, as of one moment. Should another instance commit meanwhile, what it puts into
 * the journal is not seen; the offset has then moved, too.
 */
export async function loadState(pool: PgPool, processor: string, target: StateTarget): Promise<void> {
  const client = await pool.connect();
  try {
    await compactJournal(client, (await headOf(client, processor)).namespace);
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    const { namespace, head } = await headOf(client, processor);
    target.reset(head?.clock);
    for await (const page of pages<Recorded<SavedTable>>(client, recordsOf('alert_state_tables'), namespace))
      target.loadTables(page.map(recordOf));
    for await (const page of pages<Recorded<SavedRule>>(client, recordsOf('alert_state_rules'), namespace))
      target.loadRules(page.map(recordOf));
    for await (const page of pages<EntityRow>(client, entities, namespace)) target.loadEntities(page.map(entityOf));
    for await (const page of pages<SampleRow>(client, samples, namespace)) target.loadSamples(page.map(sampleOf));
    for await (const page of pages<Recorded<SavedEpisode>>(client, recordsOf('alert_state_episodes'), namespace))
      target.loadEpisodes(page.map(recordOf));
    await client.query('COMMIT');
    client.release();
  } catch (error) {
    client.release(true);
    throw error;
  }
}

interface Head {
  readonly namespace: string;
  readonly head: { readonly clock?: SavedClock } | null;
}

async function headOf(client: Queryable, processor: string): Promise<Head> {
  const { rows } = await client.query<Head>(
    'SELECT coalesce(namespace, processor) AS namespace, head FROM headwater.processor_offsets WHERE processor = $1',
    [processor],
  );
  return rows[0] ?? { namespace: processor, head: null };
}

const recordsOf = (table: string): string => `SELECT record FROM headwater.${table} WHERE processor = $1`;
const samples = `
  SELECT table_name, grouping_name, entity, field, look_back, seq, at, value FROM headwater.alert_state_samples
  WHERE processor = $1 ORDER BY seq`;

const entities = 'SELECT table_name, grouping_name, entity, record FROM headwater.alert_state_entities WHERE processor = $1';

interface EntityRow extends Recorded<EntityRecord> {
  readonly table_name: string;
  readonly grouping_name: string;
  readonly entity: string;
}

interface SampleRow {
  readonly table_name: string;
  readonly grouping_name: string;
  readonly entity: string;
  readonly field: string;
  readonly look_back: string;
  readonly seq: string;
  readonly at: string;
  readonly value: unknown;
}

function recordOf<T>({ record }: Recorded<T>): T {
  return record;
}

function entityOf({ table_name: table, grouping_name: grouping, entity, record }: EntityRow): SavedEntity {
  return { ...record, table, grouping, entity };
}

function sampleOf({
  table_name: table,
  grouping_name: grouping,
  entity,
  field,
  look_back: window,
  seq,
  at,
  value,
}: SampleRow): SavedSample {
  return { table, grouping, entity, field, window: Number(window), seq: Number(seq), at: Number(at), value };
}

async function* pages<Row extends object>(client: Queryable, sql: string, processor: string): AsyncGenerator<Row[], void, undefined> {
  await client.query(`DECLARE state NO SCROLL CURSOR FOR ${sql}`, [processor]);
  for (;;) {
    const { rows } = await client.query<Row>(`FETCH ${pageRows} FROM state`);
    if (rows.length > 0) yield rows;
    if (rows.length < pageRows) break;
  }
  await client.query('CLOSE state');
}
