import type { ResolveReason } from '../model.ts';
import type { Moment } from './clock.ts';
import type { Entity } from './entity.ts';
import type { Episode } from './episode.ts';
import type { LiveRule } from './live-rule.ts';
import type { Machine } from './machine.ts';
import { dropSeries } from './observe.ts';
import { recorder, type Waiting } from './records.ts';
import { entityKey, type AlertEffects } from './saved.ts';
import type { Stream } from './stream.ts';
import type { Timers } from './timers.ts';

interface OfRuleAndEntity {
  readonly rule: LiveRule;
  readonly entity: Entity;
}

/** Ends what is going on, and forgets what nobody asks for any more. */
export class Endings {
  readonly #machine: Machine;
  readonly #timers: Timers<Waiting>;

  constructor(machine: Machine, timers: Timers<Waiting>) {
    this.#machine = machine;
    this.#timers = timers;
  }

  /** A revision is no longer in force. */
  ofRule(rule: LiveRule, reason: ResolveReason, moment: Moment, effects: AlertEffects): void {
    const episodes: Episode[] = [];
    for (let one = rule.episodes; one; one = one.next) episodes.push(one);
    this.#end(episodes, reason, moment, effects);
  }

  /** All rows of a table are gone. */
  ofRows(streams: readonly Stream[], moment: Moment, effects: AlertEffects): void {
    const episodes: Episode[] = [];
    for (const { entities } of streams) {
      for (const entity of entities.values()) if (entity.episodes) for (const episode of entity.episodes.values()) episodes.push(episode);
    }
    this.#end(episodes, 'entity_deleted', moment, effects);
    for (const stream of streams) this.ofStream(stream, effects);
  }

  ofEntities(entities: readonly Entity[], moment: Moment, effects: AlertEffects): void {
    const episodes = entities.flatMap((entity) => [...(entity.episodes?.values() ?? [])]);
    this.#end(episodes, 'entity_deleted', moment, effects);
    const changes = recorder(effects, this.#timers);
    for (const entity of entities) {
      this.#timers.set(entity, Infinity);
      for (const window of entity.stream.windows) dropSeries(entity, window, changes);
      entity.stream.entities.delete(entity.text);
      effects.entities.set(entityKey(entity.stream.key, entity.text), undefined);
    }
  }

  /** All that the stream's rules know is forgotten; none of its entities has anything going on. */
  ofStream(stream: Stream, effects: AlertEffects): void {
    for (const entity of stream.entities.values()) {
      this.#timers.set(entity, Infinity);
      for (const series of entity.series ?? []) if (series) this.#timers.set(series, Infinity);
    }
    stream.entities.clear();
    const prefix = entityKey(stream.key, '');
    for (const map of [effects.entities, effects.samples]) {
      for (const key of map.keys()) if (key.startsWith(prefix)) map.delete(key);
    }
    effects.forgotten.set(stream.key, { table: stream.table, grouping: stream.grouping });
  }

  /** What no rule of the stream looks back at any more. */
  ofWindows(stream: Stream, effects: AlertEffects): void {
    const changes = recorder(effects, this.#timers);
    for (const window of stream.takeUnwanted()) {
      for (const entity of stream.entities.values()) dropSeries(entity, window, changes);
    }
  }

  #end(episodes: Episode[], reason: ResolveReason, moment: Moment, effects: AlertEffects): void {
    episodes.sort(inOrder);
    for (const episode of episodes) this.#machine.end(episode, reason, moment, effects);
  }
}

/** By rule, then by entity: the order of transitions within an event. */
export function inOrder(a: OfRuleAndEntity, b: OfRuleAndEntity): number {
  return compareText(a.rule.definition.id, b.rule.definition.id) || compareText(a.entity.text, b.entity.text);
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
