import type { Seq } from '../../../pipeline/log/event-log.ts';
import { compareDecimal, isDecimal } from '../../../schemas/decimal.ts';
import { textOf } from '../../../schemas/filter.ts';
import type { Micros } from '../model.ts';
import type { Moment } from './clock.ts';
import { orderKey } from './comparable-key.ts';
import type { Entity, EntitySeries } from './entity.ts';
import type { LiveRule } from './live-rule.ts';
import type { Row } from './log-record.ts';
import { Move } from './move.ts';
import { Series } from './series.ts';
import { keyText, type Column, type Window } from './stream.ts';

type Visit = (rule: LiveRule) => void;

/** An event of an entity: its row, and what the event tells of the row before. */
export interface Observation {
  readonly row: Row;
  readonly before: Row | undefined;
}

/** Values of before an event, for the operators that compare the two. */
export interface Previous {
  readonly seqs: readonly Seq[];
  readonly values: readonly unknown[];
  readonly before: Row | undefined;
}

/** What the state of an entity is told of. */
export interface EntityChanges {
  /** A sample of the series has come (with its number), or is no longer needed. */
  sampled(entity: Entity, window: Window, seq: Seq, at: Micros, value: unknown): void;
  unsampled(entity: Entity, window: Window, seq: Seq): void;
  /** The series has to be looked at again then. */
  wakeSeries(series: EntitySeries, due: Micros): void;
  wakeEntity(entity: Entity, due: Micros): void;
}

/** Applies an event's values to its entity, and visits the rules that this may change. Returns what was before. */
export function observe(entity: Entity, { row, before }: Observation, moment: Moment, changes: EntityChanges, visit: Visit): Previous {
  const { stream } = entity;
  const previous: Previous = { seqs: [...entity.seqs], values: [...entity.values], before };
  const moves: Move[] = [];
  // What was not known before can leave unknown what no move tells of.
  let fresh = false;
  for (const column of stream.columns) {
    if (column.rules === 0) continue;
    const move = Object.hasOwn(row, column.field) ? setValue(entity, column, row, before, moment.seq) : standing(entity, column);
    if (!move) continue;
    fresh ||= move.fresh || stream.newestRule > move.move.knownTo;
    moves.push(move.move);
  }
  entity.seq = moment.seq;
  entity.at = moment.now;
  for (const window of stream.windows) {
    const move = sample(entity, window, row, moment, changes);
    if (!move) continue;
    fresh ||= Number.isNaN(move.from) && !Number.isNaN(move.to);
    moves.push(move);
  }
  if (visitBuckets(entity, moves, previous, visit) || fresh) visitEpisodes(entity, visit);
  else if (entity.timedEpisodes > 0) visitEpisodes(entity, (rule) => rule.timed && visit(rule));
  const absent = nextAbsence(entity, moment.now);
  // Woken too early it will look again: one timer is enough however many events come.
  if (absent < entity.due) changes.wakeEntity(entity, absent);
  return previous;
}

/** A percentage has changed since a sample has become old enough: visits the rules that this may change. */
export function passTime(series: EntitySeries, moment: Moment, changes: EntityChanges, visit: Visit): void {
  const entity = series.owner;
  const window = entity.stream.windows.find(({ index }) => entity.series?.[index] === series);
  if (!window) return;
  const move = percentMove(entity, window, series, moment.now, changes);
  changes.wakeSeries(series, series.next(moment.now));
  if (!move.changed) return;
  const { stream } = entity;
  stream.any.visitMoved([move], Infinity, visit);
  for (const anchor of stream.anchors) stream.bucket(anchor, anchorText(entity, anchor))?.visitMoved([move], Infinity, visit);
  if (Number.isNaN(move.from) || !isPlaced(entity)) visitEpisodes(entity, visit);
}

/** Nothing has come for some time: visits the rules that ask for that. */
export function passSilence(entity: Entity, moment: Moment, changes: EntityChanges, visit: Visit): void {
  const { stream } = entity;
  if (entity.at + (stream.absences[0]?.duration ?? Infinity) <= moment.now) {
    stream.any.visitTimed(visit);
    for (const anchor of stream.anchors) stream.bucket(anchor, anchorText(entity, anchor))?.visitTimed(visit);
    if (!isPlaced(entity)) visitEpisodes(entity, visit);
  }
  changes.wakeEntity(entity, nextAbsence(entity, moment.now));
}

/** When the entity will have been absent for as long as some rule asks. */
function nextAbsence(entity: Entity, now: Micros): Micros {
  const { absences } = entity.stream;
  for (const { duration, wanted } of absences) {
    if (entity.at + duration > now && wanted.of((column) => keyText(entity.key, column))) return entity.at + duration;
  }
  return Infinity;
}

/** Is the value of this column known, apart from when a rule came? */
export function isKnown(seqs: readonly Seq[], column: Column): boolean {
  return (seqs[column.index] ?? -1) > column.since;
}

function setValue(entity: Entity, column: Column, row: Row, before: Row | undefined, seq: Seq): { move: Move; fresh: boolean } {
  const { index, type, field } = column;
  const known = isKnown(entity.seqs, column);
  const from = known ? entity.values[index] : undefined;
  const to = row[field];
  const knownTo = known ? entity.seqs[index]! : -1;
  entity.seqs[index] = seq;
  entity.values[index] = to;
  const changed = !known || !same(from, to);
  const fromKey = known ? orderKey(type, from) : NaN;
  const toKey = changed || !known ? orderKey(type, to) : fromKey;
  const told = before && Object.hasOwn(before, field) ? before[field] : undefined;
  const beforeKey = told === undefined || (known && same(told, from)) ? fromKey : orderKey(type, told);
  // The event may tell of a change where we knew of none.
  const differs = told !== undefined && !same(told, to);
  const move = new Move({
    source: column,
    knownTo,
    changed: changed || differs,
    from: fromKey,
    before: beforeKey,
    to: toKey,
    margin: 0,
    values: { type, from, to },
  });
  const fresh = to !== null && (from === undefined || from === null || (Number.isNaN(fromKey) && !Number.isNaN(toKey)));
  return { move, fresh };
}

/** A value that the event has not: for rules to which the entity is new. */
function standing(entity: Entity, column: Column): { move: Move; fresh: boolean } | undefined {
  if (!isKnown(entity.seqs, column)) return undefined;
  const value = entity.values[column.index];
  const key = orderKey(column.type, value);
  const parts = { source: column, knownTo: Infinity, changed: false, from: key, before: NaN, to: key, margin: 0 };
  return { move: new Move({ ...parts, values: { type: column.type, from: value, to: value } }), fresh: false };
}

/** Visits the rules of the entity's buckets; true when the entity has come to others, and all that is going on has to be looked at. */
function visitBuckets(entity: Entity, moves: readonly Move[], previous: Previous, visit: Visit): boolean {
  const { stream } = entity;
  stream.any.visitAlways(visit);
  stream.any.visitMoved(moves, Infinity, visit);
  let moved = false;
  for (const anchor of stream.anchors) {
    const column = stream.knownColumn(anchor)!;
    const known = isKnown(previous.seqs, column);
    const [from, to] = [known ? textOf(previous.values[column.index]) : undefined, anchorText(entity, anchor)];
    // Not known where it belongs: the column has got another type.
    moved ||= from !== to || !isKnown(entity.seqs, column);
    const bucket = stream.bucket(anchor, to);
    if (!bucket) continue;
    bucket.visitAlways(visit);
    bucket.visitMoved(moves, from === to ? previous.seqs[column.index]! : -1, visit);
  }
  return moved;
}

/** Is it known of all columns by which rules are found what the entity has there? Not after one has got another type. */
function isPlaced({ stream, seqs }: Entity): boolean {
  for (const anchor of stream.anchors) if (!isKnown(seqs, stream.column(anchor))) return false;
  return true;
}

function anchorText(entity: Entity, anchor: string): string | undefined {
  const column = entity.stream.knownColumn(anchor);
  return column && isKnown(entity.seqs, column) ? textOf(entity.values[column.index]) : undefined;
}

function visitEpisodes(entity: Entity, visit: Visit): void {
  if (entity.episodes) for (const rule of entity.episodes.keys()) visit(rule);
}

/** Takes the event's value into the series, or drops it when no rule wants it any more. */
function sample(entity: Entity, window: Window, row: Row, { seq, now }: Moment, changes: EntityChanges): Move | undefined {
  const { index, column } = window;
  let series = entity.series?.[index];
  if (!window.wanted.of((name) => keyText(entity.key, name))) {
    dropSeries(entity, window, changes);
    return undefined;
  }
  if (Object.hasOwn(row, column.field)) {
    series ??= startSeries(entity, window);
    const value = row[column.field];
    series.push({ seq, at: now, value }, (one) => changes.unsampled(entity, window, one.seq));
    changes.sampled(entity, window, seq, now, value);
  }
  if (!series) return undefined;
  const move = percentMove(entity, window, series, now, changes);
  changes.wakeSeries(series, series.next(now));
  return move;
}

/** Forgets a series, if the entity has it. */
export function dropSeries(entity: Entity, window: Window, changes: EntityChanges): void {
  const series = entity.series?.[window.index];
  if (!series) return;
  for (const { seq } of series.samples()) changes.unsampled(entity, window, seq);
  changes.wakeSeries(series, Infinity);
  entity.series![window.index] = undefined;
}

/** An empty series of the entity. */
export function startSeries(entity: Entity, window: Window): EntitySeries {
  const series: EntitySeries = new Series(entity, window.window);
  (entity.series ??= [])[window.index] = series;
  return series;
}

/** By what the percentage has moved since rules were last told. */
function percentMove(entity: Entity, window: Window, series: EntitySeries, now: Micros, changes: EntityChanges): Move {
  const { column } = window;
  series.advance(now, (one) => changes.unsampled(entity, window, one.seq));
  const then = series.asOf(now);
  const usable = then && then.seq > column.since && isKnown(entity.seqs, column);
  const seqNow = entity.seqs[column.index] ?? -1;
  const { told } = series;
  if (told.seq === (usable ? then.seq : -1) && told.seqNow === seqNow) {
    const parts = { source: window, knownTo: Infinity, changed: false, from: told.percent, before: NaN, to: told.percent };
    return new Move({ ...parts, margin: told.margin });
  }
  const { percent, margin } = usable ? percentOf(column, entity.values[column.index], then.value) : { percent: NaN, margin: 0 };
  series.told = { percent, margin, seq: usable ? then.seq : -1, seqNow };
  return new Move({
    source: window,
    knownTo: told.seq,
    changed: true,
    from: told.percent,
    before: NaN,
    to: percent,
    margin: Math.max(margin, told.margin),
  });
}

/** The change in percent, as near as doubles come, and by how much it may be off. NaN when there is none. */
function percentOf({ type }: Column, now: unknown, then: unknown): { readonly percent: number; readonly margin: number } {
  const [a, b] = [orderKey(type, now), orderKey(type, then)];
  const zero = String(type.read(then));
  if (Number.isNaN(a) || Number.isNaN(b) || (isDecimal(zero) && compareDecimal(zero, '0') === 0)) return { percent: NaN, margin: 0 };
  const percent = ((a - b) / Math.abs(b)) * 100;
  // Beyond what doubles hold: it can be anywhere.
  if (!Number.isFinite(percent)) return { percent: 0, margin: Infinity };
  return { percent, margin: 1e-9 * (100 + Math.abs(percent)) };
}

function same(a: unknown, b: unknown): boolean {
  return a === b || (typeof a === 'object' && typeof b === 'object' && JSON.stringify(a) === JSON.stringify(b));
}
