import type { Micros } from '../model.ts';
import { isoOf } from '../read/items.ts';
import type { SeriesPage } from '../read/pages.ts';
import type { SeriesQuery } from './parameters.ts';

/**
 * A stretch of time in which no window of the answer begins, since nothing is in them (`empty`) or they are kept no longer (`expired`), or
 * one of which commits are missing in the log, so that windows may lack something (`missing`).
 */
export interface Gap {
  readonly start: string;
  readonly end: string;
  readonly reason: 'empty' | 'expired' | 'missing';
}

/** The gaps of a page, from where it was asked to begin to where the next one does. */
export function gapsOf(page: SeriesPage, { from, to, step }: SeriesQuery): readonly Gap[] {
  const { items, next, keptFrom, missing } = page;
  const starts = items.map(({ start }) => start);
  const begin = from === undefined ? starts[0] : aligned(from, step);
  const end = next ?? (to === undefined ? lastEnd(starts, step) : aligned(to, step));
  if (begin === undefined || end === undefined || begin >= end) return [];
  const gaps: Gap[] = [];
  const add = (start: Micros, until: Micros): void => {
    const kept = Math.min(Math.max(start, keptFrom), until);
    if (start < kept) gaps.push({ start: isoOf(start), end: isoOf(kept), reason: 'expired' });
    if (kept < until) gaps.push({ start: isoOf(kept), end: isoOf(until), reason: 'empty' });
  };
  let at = begin;
  for (const start of starts) {
    add(at, start);
    at = start + step;
  }
  add(at, end);
  for (const stretch of missing) {
    if (stretch.start < end && stretch.end > begin)
      gaps.push({ start: isoOf(stretch.start), end: isoOf(Math.ceil(stretch.end / 1_000) * 1_000), reason: 'missing' });
  }
  return gaps;
}

function aligned(at: Micros, step: Micros): Micros {
  return Math.ceil(at / step) * step;
}

function lastEnd(starts: readonly Micros[], step: Micros): Micros | undefined {
  const last = starts.at(-1);
  return last === undefined ? undefined : last + step;
}
