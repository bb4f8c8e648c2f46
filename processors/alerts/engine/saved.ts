import type { Seq } from '../../../pipeline/log/event-log.ts';
import type { Micros, Transition } from '../model.ts';

/** A row of `headwater.alert_rules` as an event of the log has it (`channels` and the time stamps are not needed). */
export interface RuleRow {
  readonly id: string;
  readonly user_id: string;
  readonly revision: number;
  readonly name: string;
  /** `<schema>.<table>` */
  readonly table_name: string;
  readonly match: unknown;
  readonly group_by: readonly string[] | null;
  readonly condition: unknown;
  readonly clear_condition: unknown;
  readonly for_seconds: number;
  readonly keep_firing_for_seconds: number;
  readonly cooldown_seconds: number;
  readonly severity: string;
  readonly enabled: boolean;
}

/** A rule, enabled or not, and the sequence at which this revision took effect. Key: `id`. */
export interface SavedRule {
  readonly id: string;
  readonly seq: Seq;
  readonly row: RuleRow;
}

/**
 * How far a rule has come with an entity. Key: `rule`, `entity`; there is no record while nothing is going on.
 * `idle`: resolved by `clear` although `when` still holds; looked at again at the next event. JSON throughout.
 */
export interface SavedEpisode {
  readonly rule: string;
  readonly revision: number;
  /** `<schema>.<table>` and grouping of the stream that the entity belongs to: together with `entity`, the key of its `SavedEntity`. */
  readonly table: string;
  readonly grouping: string;
  /** Text of the entity's values, see `schemas/row-key.ts`. */
  readonly entity: string;
  readonly phase: 'pending' | 'firing' | 'idle';
  /** Log time from which `when` has held. */
  readonly since: Micros;
  /** Id of the event that opened the episode. */
  readonly opener: string;
  /** Of a firing one: log time since which it would be resolved, were it not kept firing. */
  readonly falseSince?: Micros;
  /** Of a firing one. */
  readonly fired?: SavedFiring;
}

export interface SavedFiring {
  readonly alert: string;
  readonly at: Micros;
  readonly seq: Seq;
  readonly value: string | null;
}

/** What the rules of a stream know of an entity. Key: `table`, `grouping`, `entity`. */
export interface SavedEntity {
  /** `<schema>.<table>` */
  readonly table: string;
  /** Names the stream of events within the table: empty for the primary key, else JSON text of the columns and the match. */
  readonly grouping: string;
  readonly entity: string;
  /** Column → value. */
  readonly key: Readonly<Record<string, unknown>>;
  /** The entity's last event. */
  readonly seq: Seq;
  readonly at: Micros;
  /** Column → sequence of the last event that had it, and its value there. Only columns that some rule looks at. */
  readonly values: Readonly<Record<string, readonly [Seq, unknown]>>;
}

/** A value that a percentage change may look back at. Key: all but `at` and `value`. */
export interface SavedSample {
  readonly table: string;
  readonly grouping: string;
  readonly entity: string;
  readonly field: string;
  /** Microseconds that the rule looks back. */
  readonly window: Micros;
  readonly seq: Seq;
  readonly at: Micros;
  readonly value: unknown;
}

/** The columns of a table as its last schema event told them. Key: `table`. Kept for every table of the log. */
export interface SavedTable {
  /** `<schema>.<table>` */
  readonly table: string;
  /** Column → type, as Postgres prints it, and the sequence of the event since which it has been of this type. */
  readonly columns: Readonly<Record<string, readonly [type: string, since: Seq]>>;
}

/** The running maximum of the events' `at`, and the sequence it was taken at. */
export interface SavedClock {
  readonly seq: Seq;
  readonly at: Micros;
}

/** A stream of which everything is forgotten. */
export interface SavedStream {
  readonly table: string;
  readonly grouping: string;
}

/**
 * What a batch of events does. To store it, in one transaction with the offset: delete entities and samples of the streams in `forgotten`;
 * then, for each map, delete the records whose value is `undefined`, of which `…Key` helpers take the key apart, and upsert the others.
 * The keys of the maps are only names: use the functions below to read them.
 */
export interface AlertEffects {
  /** In the order in which they happened. */
  readonly transitions: Transition[];
  /** As of the batch's last event; undefined when the batch is empty. */
  clock: SavedClock | undefined;
  readonly tables: Map<string, SavedTable>;
  readonly rules: Map<string, SavedRule | undefined>;
  readonly episodes: Map<string, SavedEpisode | undefined>;
  readonly forgotten: Map<string, SavedStream>;
  readonly entities: Map<string, SavedEntity | undefined>;
  readonly samples: Map<string, SavedSample | undefined>;
}

/** No effects. */
export function noEffects(): AlertEffects {
  return {
    transitions: [],
    clock: undefined,
    tables: new Map(),
    rules: new Map(),
    episodes: new Map(),
    forgotten: new Map(),
    entities: new Map(),
    samples: new Map(),
  };
}

// A table's name and a column's may hold any character but NUL.
const separator = '\0';

export function episodeKey(rule: string, entity: string): string {
  return rule + separator + entity;
}

export function parseEpisodeKey(key: string): Pick<SavedEpisode, 'rule' | 'entity'> {
  const [rule = '', entity = ''] = key.split(separator);
  return { rule, entity };
}

export function streamKey(table: string, grouping: string): string {
  return table + separator + grouping;
}

export function entityKey(stream: string, entity: string): string {
  return stream + separator + entity;
}

export function parseEntityKey(key: string): Pick<SavedEntity, 'table' | 'grouping' | 'entity'> {
  const [table = '', grouping = '', entity = ''] = key.split(separator);
  return { table, grouping, entity };
}

export function sampleKey(entity: string, field: string, window: Micros, seq: Seq): string {
  return [entity, field, window, seq].join(separator);
}

export function parseSampleKey(key: string): Omit<SavedSample, 'at' | 'value'> {
  const [table = '', grouping = '', entity = '', field = '', window, seq] = key.split(separator);
  return { table, grouping, entity, field, window: Number(window), seq: Number(seq) };
}
