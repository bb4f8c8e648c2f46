import { OffsetExpired } from '../log/errors.ts';
import type { Bounds, EventLog, Seq } from '../log/event-log.ts';
import { microsOf } from '../runner/event-head.ts';
import { usage, type HeadwaterError } from '../runtime/errors.ts';

/** Microseconds since 1970. */
export type Micros = number;

/** Where a replay is to begin, and the last it is to consider (default: the log's end as it is now). */
export interface RangeRequest {
  readonly from: { readonly seq: Seq } | { readonly since: Micros } | 'oldest';
  /** With a time: up to, not including, the first event committed then or later. */
  readonly to?: { readonly seq: Seq } | { readonly time: Micros };
}

/** Sequences, both included. Nothing is in it when `first > last`. */
export interface Range {
  readonly first: Seq;
  readonly last: Seq;
}

/** Commit times go back by microseconds between neighbours; this far back is looked for the first event since a time. */
const slack: Micros = 1_000_000;

/**
 * Finds the sequences that are meant.
 * @throws HeadwaterError `offset_expired` when the log no longer holds the first of them, `position_ahead` or `bad_range` (usage)
 */
export async function resolveRange(
  log: EventLog,
  request: RangeRequest,
  signal: AbortSignal,
): Promise<Range & { readonly bounds: Bounds }> {
  const bounds = await log.bounds();
  const first = await firstOf(log, request.from, bounds, signal);
  const last = await lastOf(log, request.to, bounds, signal);
  if (first > bounds.last + 1)
    throw usage('position_ahead', `the log ends at sequence ${bounds.last}, before ${first}`, 'begin at that or an earlier one');
  if (last > bounds.last)
    throw usage('position_ahead', `the log ends at sequence ${bounds.last}, before ${last}`, 'leave --to out to replay up to its end');
  if (request.to && last < first - 1)
    throw usage('bad_range', `the end, sequence ${last}, is before the beginning, ${first}`, 'begin earlier, or give a later --to');
  return { first, last, bounds };
}

/** The log was trimmed faster than it was read: what is missing is told as it is told of a range that begins too early. */
export function trimmedMeanwhile(error: unknown): unknown {
  return error instanceof OffsetExpired
    ? usage('offset_expired', `the log was trimmed during the replay: ${error.message}`, '`--from oldest` begins with what is left')
    : error;
}

async function firstOf(log: EventLog, from: RangeRequest['from'], bounds: Bounds, signal: AbortSignal): Promise<Seq> {
  if (from === 'oldest') return bounds.first;
  if ('since' in from) return firstSince(log, from.since, bounds, signal);
  // An empty log has nothing to lose: its next event is its oldest.
  if (from.seq < bounds.first) throw expired(`sequence ${from.seq}`, bounds.first);
  return from.seq;
}

async function lastOf(log: EventLog, to: RangeRequest['to'], bounds: Bounds, signal: AbortSignal): Promise<Seq> {
  if (!to) return bounds.last;
  return 'seq' in to ? to.seq : (await firstSince(log, to.time, { ...bounds, epochStart: bounds.first }, signal)) - 1;
}

/** The first event committed at or after a time, or the sequence behind the log's end. */
async function firstSince(log: EventLog, time: Micros, { first, last, epochStart }: Bounds, signal: AbortSignal): Promise<Seq> {
  if (first > last) return last + 1;
  const oldest = await committedAt(log, first);
  if (oldest !== undefined && oldest > time && first > Math.max(1, epochStart)) throw expired(`what was committed at ${iso(time)}`, first);
  const begin = await lowerBound(log, time - slack, first, last, signal);
  for await (const events of log.read(begin, { signal })) {
    for (const event of events) {
      if (event.seq > last) return last + 1;
      if ((microsOf(event) ?? -Infinity) >= time) return event.seq;
    }
    if (events.at(-1)!.seq >= last) return last + 1;
  }
  signal.throwIfAborted();
  return last + 1;
}

/** The first sequence whose commit time is not before `time`, if times only grew: a binary search, some thirty questions. */
async function lowerBound(log: EventLog, time: Micros, first: Seq, last: Seq, signal: AbortSignal): Promise<Seq> {
  let [low, high] = [first, last];
  while (low < high) {
    signal.throwIfAborted();
    const middle = Math.floor((low + high) / 2);
    const at = await committedAt(log, middle);
    if (at === undefined || at < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

async function committedAt(log: EventLog, seq: Seq): Promise<Micros | undefined> {
  const event = await log.get(seq);
  return event && microsOf(event);
}

function expired(what: string, oldest: Seq): HeadwaterError {
  return usage('offset_expired', `the log no longer holds ${what}: its oldest event is ${oldest}`, '`--from oldest` begins there');
}

function iso(time: Micros): string {
  return new Date(time / 1_000).toISOString();
}
