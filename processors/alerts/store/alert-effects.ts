import type { Queryable } from '../../../pipeline/clients/postgres.ts';
import type { PostgresEffects } from '../../../pipeline/runner/postgres-state-store.ts';
import { parseEpisodeKey, parseSampleKey, type AlertEffects, type SavedEntity, type SavedSample } from '../engine/saved.ts';
import { forJsonb, StateTable, type Cells } from './cells.ts';
import { compactJournal, EntityJournal } from './entity-journal.ts';
import { writeTransitions } from './transitions.ts';

const record = { record: 'json' };
const entityKey = { table_name: 'text', grouping_name: 'text', entity: 'text' };
const sampleKey = { ...entityKey, field: 'text', look_back: 'bigint', seq: 'bigint' };

const state = {
  tables: new StateTable('alert_state_tables', { table_name: 'text' }, record),
  rules: new StateTable('alert_state_rules', { id: 'uuid' }, record),
  episodes: new StateTable('alert_state_episodes', { rule: 'uuid', entity: 'text' }, { phase: 'text', ...record }),
  entities: new StateTable('alert_state_entities', entityKey, record),
  samples: new StateTable('alert_state_samples', sampleKey, { at: 'bigint', value: 'json' }),
};

/**
 * What a batch of alerts changes: state under its namespace, history and outbox. The log time stands beside the offset.
 * @param options `silent`: the state only, since another fold has the history and the outbox
 */
export function alertEffects({ silent = false } = {}): PostgresEffects<AlertEffects> {
  const journal = new EntityJournal();
  return {
    isEmpty: ({ transitions, tables, rules, episodes, forgotten, entities, samples }) =>
      (silent ? 0 : transitions.length) + tables.size + rules.size + episodes.size + forgotten.size + entities.size + samples.size === 0,
    head: ({ clock }) => clock && JSON.stringify({ clock }),
    write: async (client, effects, namespace) => {
      await writeState(client, namespace, effects);
      await journal.write(client, namespace, effects.entities);
      if (!silent) await writeTransitions(client, effects.transitions);
    },
  };
}

async function writeState(client: Queryable, processor: string, effects: AlertEffects): Promise<void> {
  const on = [client, processor] as const;
  const streams = Array.from(effects.forgotten.values(), ({ table, grouping }) => [table, grouping]);
  // What the journal holds of them must not come back.
  if (streams.length > 0) await compactJournal(client, processor);
  await state.entities.remove(...on, streams, 2);
  await state.samples.remove(...on, streams, 2);
  await state.rules.remove(
    ...on,
    goneFrom(effects.rules).map((id) => [id]),
  );
  await state.episodes.remove(
    ...on,
    goneFrom(effects.episodes).map((key) => Object.values(parseEpisodeKey(key))),
  );
  await state.samples.remove(
    ...on,
    goneFrom(effects.samples).map((key) => sampleCells(parseSampleKey(key))),
  );
  await state.tables.save(
    ...on,
    rowsOf(effects.tables, ({ table }) => [table], JSON.stringify),
  );
  await state.rules.save(
    ...on,
    rowsOf(effects.rules, ({ id }) => [id], JSON.stringify),
  );
  await state.episodes.save(
    ...on,
    // Taken apart in SQL when alerts are mended, which refuses what a value of an alert may hold.
    rowsOf(
      effects.episodes,
      ({ rule, entity, phase }) => [rule, entity, phase],
      (episode) => forJsonb(JSON.stringify(episode)),
    ),
  );
  await state.samples.save(
    ...on,
    rowsOf(
      effects.samples,
      (sample) => [...sampleCells(sample), sample.at],
      ({ value }) => JSON.stringify(value),
    ),
  );
}

function goneFrom(records: ReadonlyMap<string, unknown>): string[] {
  return Array.from(records).flatMap(([key, kept]) => (kept === undefined ? [key] : []));
}

/** Rows of the records that are kept, the JSON in the last column. */
function* rowsOf<T>(
  records: ReadonlyMap<string, T | undefined>,
  cells: (record: T) => Cells,
  json: (record: T) => string,
): Generator<Cells, void, undefined> {
  for (const kept of records.values()) if (kept !== undefined) yield [...cells(kept), json(kept)];
}

function entityCells({ table, grouping, entity }: Pick<SavedEntity, 'table' | 'grouping' | 'entity'>): Cells {
  return [table, grouping, entity];
}

function sampleCells(sample: Omit<SavedSample, 'at' | 'value'>): Cells {
  return [...entityCells(sample), sample.field, sample.window, sample.seq];
}
