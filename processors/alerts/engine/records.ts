import type { Seq } from '../../../pipeline/log/event-log.ts';
import { Entity, type EntitySeries } from './entity.ts';
import type { Episode } from './episode.ts';
import type { EntityChanges, Previous } from './observe.ts';
import { entityKey, sampleKey, type AlertEffects, type SavedEntity, type SavedTable } from './saved.ts';
import type { Stream } from './stream.ts';
import type { TableColumns } from './table-columns.ts';
import type { Timers } from './timers.ts';

/** All that waits for a time. */
export type Waiting = Episode | Entity | EntitySeries;

/** Writes down in the effects what becomes of samples, and when to look again. */
export function recorder(effects: AlertEffects, timers: Timers<Waiting>): EntityChanges {
  return {
    sampled: ({ stream, text }, { field, window }, seq, at, value) => {
      const { table, grouping, key } = stream;
      effects.samples.set(sampleKey(entityKey(key, text), field, window, seq), {
        table,
        grouping,
        entity: text,
        field,
        window,
        seq,
        at,
        value,
      });
    },
    unsampled: ({ stream, text }, { field, window }, seq) =>
      void effects.samples.set(sampleKey(entityKey(stream.key, text), field, window, seq), undefined),
    wakeSeries: (series, due) => timers.set(series, due),
    wakeEntity: (entity, due) => timers.set(entity, due),
  };
}

/** An entity as it was stored. */
export function entityFrom(saved: SavedEntity, stream: Stream): Entity {
  const entity = new Entity(stream, saved.entity, saved.key);
  entity.seq = saved.seq;
  entity.at = saved.at;
  for (const [field, [seq, value]] of Object.entries(saved.values)) {
    const { index } = stream.column(field);
    entity.seqs[index] = seq;
    entity.values[index] = value;
  }
  return entity;
}

/** What is stored of the entity is as good as what it is now: its values are the same, and known to the same rules. */
export function isSaved({ stream, seqs, values }: Entity, previous: Previous): boolean {
  if (stream.absences.length > 0 || previous.seqs.length === 0) return false;
  return seqs.every((seq, i) => {
    const before = previous.seqs[i];
    if (seq === before) return true;
    const known = before !== undefined && before > stream.columns[i]!.since && before >= stream.newestRule;
    return known && values[i] === previous.values[i];
  });
}

/** As it is stored. */
export function savedEntity(entity: Entity): SavedEntity {
  const { stream, text, key, seq, at } = entity;
  const values: [string, readonly [Seq, unknown]][] = [];
  for (const { index, field, rules } of stream.columns) {
    const of = entity.seqs[index];
    if (rules > 0 && of !== undefined) values.push([field, [of, entity.values[index]]]);
  }
  return { table: stream.table, grouping: stream.grouping, entity: text, key, seq, at, values: Object.fromEntries(values) };
}

/** As they are stored. */
export function savedTable(table: string, { types, since }: TableColumns): SavedTable {
  const columns = [...since].map(([name, seq]): [string, readonly [string, Seq]] => [name, [types.get(name) ?? '', seq]]);
  return { table, columns: Object.fromEntries(columns) };
}
