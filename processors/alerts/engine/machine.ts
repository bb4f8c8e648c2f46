import type { Alert, Micros, ResolveReason } from '../model.ts';
import { alertId } from './alert-id.ts';
import type { Moment } from './clock.ts';
import type { Entity } from './entity.ts';
import { Episode } from './episode.ts';
import type { Judge, Verdict } from './judge.ts';
import type { LiveRule } from './live-rule.ts';
import type { Previous } from './observe.ts';
import { episodeKey, type AlertEffects, type SavedFiring } from './saved.ts';
import type { Timers } from './timers.ts';

/** What the machine works with. */
export interface MachineParts {
  readonly judge: Judge;
  readonly timers: Pick<Timers<Episode>, 'set'>;
}

/** Moves a rule on with an entity: inactive, pending, firing. See SPEC.md, 5. */
export class Machine {
  readonly #judge: Judge;
  readonly #timers: MachineParts['timers'];

  constructor({ judge, timers }: MachineParts) {
    this.#judge = judge;
    this.#timers = timers;
  }

  /** @param previous as for `Judge.judge`: present only when an event of the entity is being applied that can be an edge */
  step(rule: LiveRule, entity: Entity, moment: Moment, previous: Previous | undefined, effects: AlertEffects): void {
    if (rule.gone) return;
    if (rule.definition.edge) {
      if (previous && this.#judge.judge(rule, entity, moment.now, previous).when === true) this.#fireOnce(rule, entity, moment, effects);
      return;
    }
    const verdict = this.#judge.judge(rule, entity, moment.now, previous);
    const episode = entity.episodes?.get(rule);
    if (!episode) {
      if (verdict.when === true) this.#open(new Episode(rule, entity, moment.now, moment.id()), verdict, moment, effects);
    } else if (episode.phase === 'idle') {
      if (verdict.when === true) this.#reopen(episode, verdict, moment, effects);
      else this.#drop(episode, effects);
    } else if (episode.phase === 'pending') this.#wait(episode, verdict, moment, effects);
    else this.#keep(episode, verdict, moment, effects);
  }

  /** Ends what is going on, whatever the condition says. */
  end(episode: Episode, reason: ResolveReason, moment: Moment, effects: AlertEffects): void {
    if (episode.fired && episode.phase === 'firing') this.#tellResolved(episode, reason, moment, effects);
    this.#drop(episode, effects);
  }

  #reopen(episode: Episode, verdict: Verdict, moment: Moment, effects: AlertEffects): void {
    episode.phase = 'pending';
    episode.since = moment.now;
    episode.opener = moment.id();
    episode.fired = undefined;
    episode.falseSince = undefined;
    this.#open(episode, verdict, moment, effects);
  }

  #open(episode: Episode, verdict: Verdict, moment: Moment, effects: AlertEffects): void {
    if (episode.rule.definition.forMicros === 0) {
      this.#fire(episode, verdict, moment, effects);
      return;
    }
    this.#note(episode, episode.since + episode.rule.definition.forMicros, effects);
  }

  #wait(episode: Episode, verdict: Verdict, moment: Moment, effects: AlertEffects): void {
    if (verdict.when === false) this.#drop(episode, effects);
    else if (verdict.when && moment.now - episode.since >= episode.rule.definition.forMicros) this.#fire(episode, verdict, moment, effects);
  }

  #fire(episode: Episode, verdict: Verdict, moment: Moment, effects: AlertEffects): void {
    const { rule, entity } = episode;
    episode.phase = 'firing';
    episode.fired = {
      alert: alertId(rule.definition.id, rule.definition.revision, entity.text, episode.opener),
      at: moment.now,
      seq: moment.seq,
      value: this.#judge.firstValue(rule, entity),
    };
    effects.transitions.push({ alert: alertOf(rule, entity, episode.fired), rule: rule.definition, event: moment.text() });
    // What would resolve it already does so from the next event on.
    this.#note(episode, verdict.clear === true ? moment.now : Infinity, effects);
  }

  #keep(episode: Episode, { when, clear, out }: Verdict, moment: Moment, effects: AlertEffects): void {
    const { definition } = episode.rule;
    const over = out || !definition.clear ? negate(when) : clear;
    if (over === undefined) return;
    if (!over) {
      if (episode.falseSince === undefined) return;
      episode.falseSince = undefined;
      this.#note(episode, Infinity, effects);
      return;
    }
    const since = episode.falseSince ?? moment.now;
    if (moment.now - since < definition.keepFiringForMicros) {
      if (episode.falseSince !== undefined) return;
      episode.falseSince = since;
      this.#note(episode, since + definition.keepFiringForMicros, effects);
      return;
    }
    this.#tellResolved(episode, 'condition', moment, effects);
    if (when === true) {
      episode.phase = 'idle';
      episode.fired = undefined;
      episode.falseSince = undefined;
      this.#note(episode, moment.now, effects);
    } else this.#drop(episode, effects);
  }

  #tellResolved(episode: Episode, reason: ResolveReason, moment: Moment, effects: AlertEffects): void {
    const fired = alertOf(episode.rule, episode.entity, episode.fired!);
    const alert: Alert = { ...fired, state: 'resolved', resolvedAt: moment.now, resolvedSeq: moment.seq, reason };
    effects.transitions.push({ alert, rule: episode.rule.definition, event: moment.text() });
  }

  #fireOnce(rule: LiveRule, entity: Entity, moment: Moment, effects: AlertEffects): void {
    const { definition } = rule;
    const id = alertId(definition.id, definition.revision, entity.text, moment.id());
    const fired = { alert: id, at: moment.now, seq: moment.seq, value: this.#judge.firstValue(rule, entity) };
    const alert = alertOf(rule, entity, fired);
    effects.transitions.push({ alert, rule: definition, event: moment.text() });
  }

  #note(episode: Episode, due: Micros, effects: AlertEffects): void {
    this.#timers.set(episode, due);
    effects.episodes.set(keyOf(episode), episode.saved());
  }

  #drop(episode: Episode, effects: AlertEffects): void {
    episode.leave();
    this.#timers.set(episode, Infinity);
    effects.episodes.set(keyOf(episode), undefined);
  }
}

/** When an episode that was stored has to be looked at: 0 is at the next event. */
export function dueOf({ phase, since, falseSince, rule: { definition } }: Episode): Micros {
  if (phase === 'pending') return since + definition.forMicros;
  if (phase === 'idle') return 0;
  if (falseSince !== undefined) return falseSince + definition.keepFiringForMicros;
  return definition.clear ? 0 : Infinity;
}

function keyOf({ rule, entity }: Episode): string {
  return episodeKey(rule.definition.id, entity.text);
}

function alertOf({ definition }: LiveRule, entity: Entity, fired: SavedFiring): Alert {
  return {
    id: fired.alert,
    ruleId: definition.id,
    revision: definition.revision,
    userId: definition.userId,
    entity: entity.key,
    severity: definition.severity,
    state: 'firing',
    value: fired.value,
    firedAt: fired.at,
    firedSeq: fired.seq,
  };
}

function negate(truth: boolean | undefined): boolean | undefined {
  return truth === undefined ? undefined : !truth;
}
