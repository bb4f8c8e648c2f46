import type { EventLog, LogEvent, Seq } from '../pipeline/log/event-log.ts';
import { matches, type Filter } from '../schemas/filter.ts';
import { parse, type ChannelEvent, type Channels } from './channels.ts';
import type { From } from './client-frames.ts';
import { RequestFault } from './fault.ts';
import type { Lease, ReaderPool } from './reader-pool.ts';
import type { Tail } from './tail.ts';
import { decodeToken } from './token.ts';

/** What is needed to find and read events for one subscription. */
export interface LogAccess {
  readonly eventLog: EventLog;
  readonly tail: Tail;
  readonly channels: Channels;
  readonly readers: ReaderPool;
}

/** What a subscription wants to see. */
export interface Selection {
  readonly channel: string;
  readonly filter: Filter;
}

/** Where a subscription begins, and what the log held when that was decided. */
export interface StartPosition {
  readonly start: Seq;
  readonly oldest: Seq;
  readonly head: Seq;
}

const busyRetryMs = 1_000;
const firstStep = 2_000;
const largestStep = 200_000;
/** Commit times go back by microseconds between neighbours; this far back is looked for the first event since a time. */
const slackMs = 1_000;

/** Does the subscription get this event? */
export function selects({ channel, filter }: Selection, event: ChannelEvent): boolean {
  return event.channel === channel && matches(filter, event.content);
}

/** A place to read the log, or the fault `replay_busy`. */
export function takeReader(readers: ReaderPool): Lease {
  const lease = readers.tryTake();
  if (!lease)
    throw new RequestFault({
      code: 'replay_busy',
      message: 'too many replays of older events at once',
      retryAfterMs: busyRetryMs + Math.round(Math.random() * busyRetryMs),
    });
  return lease;
}

/**
 * The first sequence that a subscription considers.
 * @throws RequestFault `bad_token`, `epoch_changed`, `resume_expired`, `position_ahead`, `replay_busy`
 */
export async function startPosition(from: From, selection: Selection, access: LogAccess, signal: AbortSignal): Promise<StartPosition> {
  const { tail } = access;
  switch (from.kind) {
    case 'now':
      return checked(tail.position + 1, access);
    case 'seq':
      return checked(from.seq, access);
    case 'after':
      return checked(from.after + 1, access);
    case 'token': {
      const position = decodeToken(from.token);
      if (!position)
        throw new RequestFault({ code: 'bad_token', message: 'this is not a token of a subscribed, cursor or caught_up frame' });
      if (position.epoch !== tail.epoch)
        throw new RequestFault({
          code: 'epoch_changed',
          message: 'the log has begun another history since this token was given: start anew, with a snapshot or from now',
        });
      return checked(Math.max(position.seq, from.after ?? 0) + 1, access);
    }
    case 'last':
      return checked(await newestMatching(from.count, selection, access, signal), access);
    case 'time':
      return checked(await firstSince(from.ms, access, signal), access);
  }
}

/** Is `start` held by the log, or directly behind its end? The recent window answers for itself; otherwise the log is asked. */
async function checked(start: Seq, { tail, eventLog }: LogAccess): Promise<StartPosition> {
  if (tail.window.covers(start) || start === tail.position + 1) return { start, oldest: Math.min(tail.oldest, start), head: tail.position };
  const { first: oldest, last, epoch } = await eventLog.bounds();
  const head = Math.max(last, tail.position);
  if (epoch !== tail.epoch) throw new RequestFault({ code: 'epoch_changed', message: 'the log has begun another history' });
  if (start > head + 1)
    throw new RequestFault({ code: 'position_ahead', message: `the log ends at ${head}, before the position asked for`, oldest, head });
  if (start < oldest)
    throw new RequestFault({
      code: 'resume_expired',
      message: `the log no longer holds ${start}: its oldest event is ${oldest}`,
      oldest,
      head,
    });
  return { start, oldest, head };
}

/** Where to begin so that the `count` newest matching events come: backwards through the window, then the log in growing steps. */
async function newestMatching(count: number, selection: Selection, access: LogAccess, signal: AbortSignal): Promise<Seq> {
  const { tail, readers, eventLog } = access;
  let left = count;
  const oldestInMemory = tail.window.first ?? tail.position + 1;
  for (let seq = tail.position; seq >= oldestInMemory; seq--) {
    const event = tail.window.at(seq);
    if (event && selects(selection, event) && --left === 0) return seq;
  }
  const oldest = (await eventLog.bounds()).first;
  if (oldestInMemory <= oldest) return oldestInMemory;
  const lease = takeReader(readers);
  try {
    let upTo = oldestInMemory;
    for (let size = firstStep; upTo > oldest; size = Math.min(size * 4, largestStep)) {
      const begin = Math.max(oldest, upTo - size);
      const found = await matchingIn(begin, upTo, selection, access, signal);
      if (found.length >= left) return found.at(-left)!;
      left -= found.length;
      upTo = begin;
    }
    return oldest;
  } finally {
    lease.release();
  }
}

/** Sequences of the matching events from `begin` up to, not including, `end`. */
async function matchingIn(
  begin: Seq,
  end: Seq,
  selection: Selection,
  { eventLog, channels }: LogAccess,
  signal: AbortSignal,
): Promise<readonly Seq[]> {
  const found: Seq[] = [];
  for await (const events of eventLog.read(begin, { signal })) {
    for (const event of events) {
      if (event.seq >= end) return found;
      if (channels.channelOf(event.subject) === selection.channel && selects(selection, channels.read(event))) found.push(event.seq);
    }
    if (events.at(-1)!.seq >= end - 1) return found;
  }
  signal.throwIfAborted();
  return found;
}

/** The first event committed at or after a time, or the one behind the log's end. */
async function firstSince(ms: number, access: LogAccess, signal: AbortSignal): Promise<Seq> {
  const { eventLog, tail, readers } = access;
  const { first, last } = await eventLog.bounds();
  if (first > last) return last + 1;
  const lease = takeReader(readers);
  try {
    const oldest = await committedAt(first, eventLog);
    if (oldest !== undefined && oldest >= ms) {
      if (first === 1) return first;
      throw new RequestFault({
        code: 'resume_expired',
        message: `the log's oldest event is younger than the time asked for`,
        oldest: first,
        head: last,
      });
    }
    const begin = await lowerBound(ms - slackMs, first, last, eventLog, signal);
    for await (const events of eventLog.read(begin, { signal })) {
      for (const event of events) {
        const at = timeOf(event);
        if (at !== undefined && at >= ms) return event.seq;
        if (event.seq >= last) return Math.max(last, tail.position) + 1;
      }
    }
    signal.throwIfAborted();
    return last + 1;
  } finally {
    lease.release();
  }
}

/** The first sequence whose commit time is not before `ms`, if times only grew: a binary search, some thirty questions. */
async function lowerBound(ms: number, first: Seq, last: Seq, eventLog: EventLog, signal: AbortSignal): Promise<Seq> {
  let low = first;
  let high = last;
  while (low < high) {
    signal.throwIfAborted();
    const middle = Math.floor((low + high) / 2);
    const at = await committedAt(middle, eventLog);
    if (at === undefined || at < ms) low = middle + 1;
    else high = middle;
  }
  return low;
}

async function committedAt(seq: Seq, eventLog: EventLog): Promise<number | undefined> {
  const event = await eventLog.get(seq);
  return event && timeOf(event);
}

function timeOf({ data }: LogEvent): number | undefined {
  const at = parse(data)?.['at'];
  const ms = typeof at === 'string' ? Date.parse(at) : NaN;
  return Number.isNaN(ms) ? undefined : ms;
}
