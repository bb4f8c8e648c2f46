import type { Micros } from '../model.ts';
import type { Entity } from './entity.ts';
import type { LiveRule } from './live-rule.ts';
import type { SavedEpisode, SavedFiring } from './saved.ts';
import type { Timed } from './timers.ts';

/** How far a rule has come with an entity. In the list of its rule, and known to its entity. */
export class Episode implements Timed {
  readonly rule: LiveRule;
  readonly entity: Entity;
  due: Micros = Infinity;
  since: Micros;
  opener: string;
  falseSince: Micros | undefined = undefined;
  fired: SavedFiring | undefined = undefined;
  #phase: SavedEpisode['phase'];
  #next: Episode | undefined = undefined;
  #previous: Episode | undefined = undefined;

  constructor(rule: LiveRule, entity: Entity, since: Micros, opener: string, phase: SavedEpisode['phase'] = 'pending') {
    this.rule = rule;
    this.entity = entity;
    this.since = since;
    this.opener = opener;
    this.#phase = phase;
    rule.stream.phases[phase]++;
    this.#next = rule.episodes;
    if (this.#next) this.#next.#previous = this;
    rule.episodes = this;
    (entity.episodes ??= new Map()).set(rule, this);
    if (rule.timed) entity.timedEpisodes++;
  }

  /** As it was stored. */
  static from(saved: SavedEpisode, rule: LiveRule, entity: Entity): Episode {
    const episode = new Episode(rule, entity, saved.since, saved.opener, saved.phase);
    episode.falseSince = saved.falseSince;
    episode.fired = saved.fired;
    return episode;
  }

  get phase(): SavedEpisode['phase'] {
    return this.#phase;
  }

  set phase(phase: SavedEpisode['phase']) {
    const { phases } = this.rule.stream;
    phases[this.#phase]--;
    phases[phase]++;
    this.#phase = phase;
  }

  get next(): Episode | undefined {
    return this.#next;
  }

  /** Takes it out of its rule's list and its entity. */
  leave(): void {
    this.rule.stream.phases[this.#phase]--;
    if (this.#previous) this.#previous.#next = this.#next;
    else this.rule.episodes = this.#next;
    if (this.#next) this.#next.#previous = this.#previous;
    this.entity.episodes?.delete(this.rule);
    if (this.rule.timed) this.entity.timedEpisodes--;
  }

  saved(): SavedEpisode {
    const { rule, entity, phase, since, opener, falseSince, fired } = this;
    return {
      rule: rule.definition.id,
      revision: rule.definition.revision,
      table: rule.stream.table,
      grouping: rule.stream.grouping,
      entity: entity.text,
      phase,
      since,
      opener,
      ...(falseSince !== undefined && { falseSince }),
      ...(fired && { fired }),
    };
  }
}
