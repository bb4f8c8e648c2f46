import type { LogEvent, Seq } from '../../../pipeline/log/event-log.ts';
import { idOf } from '../../../pipeline/runner/event-head.ts';
import type { Micros } from '../model.ts';
import type { Moment } from './clock.ts';
import { Endings, inOrder } from './endings.ts';
import { Entity } from './entity.ts';
import { Episode } from './episode.ts';
import { Judge } from './judge.ts';
import type { LiveRule } from './live-rule.ts';
import { columnsOf, rowRecord, targetOf, textOfEvent, timeOf, type RowOp, type RowRecord, type Target } from './log-record.ts';
import { dueOf, Machine } from './machine.ts';
import { observe, passSilence, passTime, startSeries, type Previous } from './observe.ts';
import { entityFrom, isSaved, recorder, savedEntity, savedTable, type Waiting } from './records.ts';
import { Rules, type RuleChange } from './rules.ts';
import {
  entityKey,
  noEffects,
  type AlertEffects,
  type SavedClock,
  type SavedEntity,
  type SavedEpisode,
  type SavedRule,
  type SavedSample,
  type SavedTable,
} from './saved.ts';
import type { Stream } from './stream.ts';
import { entitiesOf, type EntityEvent } from './streams.ts';
import { TableColumns } from './table-columns.ts';
import { Timers } from './timers.ts';

/** A rule and an entity that have to be looked at. */
interface Pair {
  readonly rule: LiveRule;
  readonly entity: Entity;
  readonly previous: Previous | undefined;
}

const mostSubjects = 20_000;

/**
 * Evaluates rules on the log: pure, deterministic, with no clock but the log's. See SPEC.md.
 *
 * To go on from what is stored: `reset`, then `loadTables`, `loadRules`, `loadEntities`, `loadSamples`, `loadEpisodes`, in this
 * order, each as often as is convenient (in pages); then `apply` events in order. Within a series samples come by sequence.
 */
export class AlertEngine {
  #targets = new Map<string, Target>();
  #tables = new Map<string, TableColumns>();
  readonly #fewRules: number;
  #rules: Rules;
  #timers = new Timers<Waiting>();
  #judge = new Judge((table) => this.#columnsOf(table));
  #machine = new Machine({ judge: this.#judge, timers: this.#timers });
  #endings = new Endings(this.#machine, this.#timers);
  #now: Micros = 0;
  #token = 0;
  /** What was loaded has been made ready. */
  #ready = true;
  /** How often a rule has been evaluated on an entity, since the program began. */
  evaluations = 0;

  /** @param fewRules up to so many rules that concern the same entities are all looked at: an index would cost more */
  constructor({ fewRules = 8 }: { readonly fewRules?: number } = {}) {
    this.#fewRules = fewRules;
    this.#rules = this.#noRules();
  }

  /** Forgets everything. `clock`: as stored, undefined when nothing is. */
  reset(clock?: SavedClock): void {
    this.#tables = new Map();
    this.#rules = this.#noRules();
    this.#timers = new Timers();
    this.#judge = new Judge((table) => this.#columnsOf(table));
    this.#machine = new Machine({ judge: this.#judge, timers: this.#timers });
    this.#endings = new Endings(this.#machine, this.#timers);
    this.#now = clock?.at ?? 0;
    this.#ready = false;
  }

  loadTables(tables: Iterable<SavedTable>): void {
    for (const { table, columns } of tables) {
      const known = this.#columnsOf(table);
      for (const [column, [type, since]] of Object.entries(columns)) {
        if (type !== '') known.types.set(column, type);
        known.since.set(column, since);
      }
    }
  }

  /** In any order. */
  loadRules(rules: Iterable<SavedRule>): void {
    for (const rule of rules) this.#rules.load(rule);
  }

  loadEntities(entities: Iterable<SavedEntity>): void {
    this.#rules.settle();
    for (const saved of entities) {
      const stream = this.#rules.stream(saved.table, saved.grouping);
      if (!stream) continue;
      stream.entities.set(saved.entity, entityFrom(saved, stream));
    }
  }

  loadSamples(samples: Iterable<SavedSample>): void {
    for (const { table, grouping, entity: text, field, window: micros, seq, at, value } of samples) {
      const stream = this.#rules.stream(table, grouping);
      const entity = stream?.entities.get(text);
      const window = stream?.windowOf(field, micros);
      if (!entity || !window) continue;
      const series = entity.series?.[window.index] ?? startSeries(entity, window);
      series.restore({ seq, at, value });
    }
  }

  loadEpisodes(episodes: Iterable<SavedEpisode>): void {
    for (const saved of episodes) {
      const rule = this.#rules.get(saved.rule);
      const entity = rule?.stream.entities.get(saved.entity);
      if (!rule || !entity || rule.definition.revision !== saved.revision) continue;
      const episode = Episode.from(saved, rule, entity);
      this.#timers.set(episode, dueOf(episode));
    }
  }

  begin(): AlertEffects {
    return noEffects();
  }

  /** Rules in force, and what is going on. */
  counts(): { readonly rules: number; readonly pending: number; readonly firing: number; readonly entities: number } {
    let [pending, firing, entities] = [0, 0, 0];
    for (const stream of this.#rules.streams()) {
      entities += stream.entities.size;
      pending += stream.phases.pending;
      firing += stream.phases.firing;
    }
    return { rules: this.#rules.size, pending, firing, entities };
  }

  /**
   * Applies one event, in this engine and in the effects.
   * @throws HeadwaterError `bad_event`, `unknown_op`, `bad_rule`: then neither has changed
   */
  apply(event: LogEvent, effects: AlertEffects): void {
    if (!this.#ready) this.#makeReady();
    // Whatever can fail comes first.
    const change = this.#read(event);
    const now = Math.max(this.#now, timeOf(event));
    const moment: Moment = { seq: event.seq, now, id: () => idOf(event), text: lazy(() => textOfEvent(event)) };
    this.#now = now;
    effects.clock = { seq: event.seq, at: now };
    const pairs: Pair[] = [];
    change?.(moment, effects, pairs);
    this.#passTime(moment, effects, pairs);
    pairs.sort(inOrder);
    for (const [i, { rule, entity, previous }] of pairs.entries()) {
      const last = pairs[i - 1];
      if (last?.rule === rule && last.entity === entity) continue;
      this.evaluations++;
      this.#machine.step(rule, entity, moment, previous, effects);
    }
  }

  /**
   * The entities that are more than a row, and that a row's event is of: by name, for rules as they are now.
   * @throws HeadwaterError `bad_event`, `unknown_op`
   */
  groupsOf(event: LogEvent): readonly string[] {
    const target = this.#targetOf(event.subject);
    if (target.kind !== 'row' || target.op === 'truncate') return [];
    const streams = this.#rules.of(target.table).filter(({ groupBy }) => groupBy);
    if (streams.length === 0) return [];
    const record = rowRecord(event, target.op);
    return streams.flatMap((stream) => {
      const { present } = entitiesOf(stream, target.op, record);
      return present ? [entityKey(stream.key, present.text)] : [];
    });
  }

  #noRules(): Rules {
    return new Rules((table) => this.#columnsOf(table), this.#fewRules);
  }

  #columnsOf(table: string): TableColumns {
    let columns = this.#tables.get(table);
    if (!columns) this.#tables.set(table, (columns = new TableColumns()));
    return columns;
  }

  /** What the event changes; undefined when it only moves the time. */
  #read(event: LogEvent): ((moment: Moment, effects: AlertEffects, pairs: Pair[]) => void) | undefined {
    const target = this.#targetOf(event.subject);
    switch (target.kind) {
      case 'row': {
        const streams = this.#rules.of(target.table);
        if (streams.length === 0) return undefined;
        return this.#readRow(streams, target.op, event);
      }
      case 'rule': {
        const changes = this.#rules.read(event.seq, target.op, rowRecord(event, target.op));
        return (moment, effects) => changes.forEach((change) => this.#changeRule(change, moment, effects));
      }
      case 'schema': {
        const types = columnsOf(event);
        return (moment, effects, pairs) => this.#retype(target.table, types, moment.seq, effects, pairs);
      }
      case 'time':
        return undefined;
    }
  }

  #targetOf(subject: string): Target {
    let target = this.#targets.get(subject);
    if (target) return target;
    target = targetOf(subject);
    if (this.#targets.size >= mostSubjects) this.#targets.clear();
    this.#targets.set(subject, target);
    return target;
  }

  #readRow(streams: readonly Stream[], op: RowOp, event: LogEvent): (moment: Moment, effects: AlertEffects, pairs: Pair[]) => void {
    if (op === 'truncate') return (moment, effects) => this.#endings.ofRows(streams, moment, effects);
    const record: RowRecord = rowRecord(event, op);
    const all = streams.map((stream) => ({ stream, event: entitiesOf(stream, op, record) }));
    return (moment, effects, pairs) => {
      const ended = all.map(({ stream, event: { ended: text } }) => (text === undefined ? undefined : stream.entities.get(text)));
      this.#endings.ofEntities(
        ended.filter((entity) => entity !== undefined),
        moment,
        effects,
      );
      for (const { stream, event: one } of all) this.#observe(stream, one, op, moment, effects, pairs);
    };
  }

  #observe(stream: Stream, event: EntityEvent, op: RowOp, moment: Moment, effects: AlertEffects, pairs: Pair[]): void {
    if (!event.present || !stream.concerns(event.present.key)) return;
    const { text, key, row, before } = event.present;
    let entity = stream.entities.get(text);
    if (!entity) stream.entities.set(text, (entity = new Entity(stream, text, key)));
    const token = ++this.#token;
    const found: LiveRule[] = [];
    const visit = (rule: LiveRule): void => {
      if (rule.gone || rule.mark === token) return;
      rule.mark = token;
      found.push(rule);
    };
    const previous = observe(entity, { row, before }, moment, recorder(effects, this.#timers), visit);
    const edges = op === 'read' ? undefined : previous;
    for (const rule of found) pairs.push({ rule, entity, previous: edges });
    if (!isSaved(entity, previous)) effects.entities.set(entityKey(stream.key, text), savedEntity(entity));
  }

  /** What the passing of time alone asks to look at. */
  #passTime(moment: Moment, effects: AlertEffects, pairs: Pair[]): void {
    const changes = recorder(effects, this.#timers);
    const woken: Waiting[] = [];
    for (let one = this.#timers.take(moment.now); one; one = this.#timers.take(moment.now)) woken.push(one);
    for (const one of woken) {
      const token = ++this.#token;
      const entity = one instanceof Entity ? one : one instanceof Episode ? one.entity : one.owner;
      const visit = (rule: LiveRule): void => {
        if (rule.gone || rule.mark === token) return;
        rule.mark = token;
        pairs.push({ rule, entity, previous: undefined });
      };
      if (one instanceof Episode) visit(one.rule);
      else if (one instanceof Entity) passSilence(one, moment, changes, visit);
      else passTime(one, moment, changes, visit);
    }
  }

  #changeRule({ id, old, reason, apply, saved }: RuleChange, moment: Moment, effects: AlertEffects): void {
    if (old) this.#endings.ofRule(old, reason, moment, effects);
    const forgotten = apply();
    effects.rules.set(id, saved);
    if (forgotten) this.#endings.ofStream(forgotten, effects);
    else if (old) this.#endings.ofWindows(old.stream, effects);
  }

  #retype(table: string, types: ReadonlyMap<string, string>, seq: Seq, effects: AlertEffects, pairs: Pair[]): void {
    const columns = this.#columnsOf(table);
    const names = new Set([...columns.types.keys(), ...types.keys()]);
    const different = [...names].filter((name) => columns.types.get(name) !== types.get(name));
    if (different.length === 0) return;
    for (const name of different) {
      const type = types.get(name);
      if (type === undefined) columns.types.delete(name);
      else columns.types.set(name, type);
      columns.since.set(name, seq);
    }
    effects.tables.set(table, savedTable(table, columns));
    this.#judge.forgetCompiled();
    for (const stream of this.#rules.of(table)) {
      stream.retype();
      // Whether the row is one that a rule is for may have become unknown.
      for (const entity of stream.entities.values()) {
        for (const rule of entity.episodes?.keys() ?? []) pairs.push({ rule, entity, previous: undefined });
      }
    }
  }

  /** All that waits for a time is looked at with the next event: whether it is due is seen then. */
  #makeReady(): void {
    this.#ready = true;
    this.#rules.settle();
    for (const stream of this.#rules.streams()) {
      for (const entity of stream.entities.values()) {
        if (stream.absences.length > 0) this.#timers.set(entity, 0);
        for (const series of entity.series ?? []) if (series) this.#timers.set(series, 0);
      }
    }
  }
}

function lazy(make: () => string): () => string {
  let made: string | undefined;
  return () => (made ??= make());
}
