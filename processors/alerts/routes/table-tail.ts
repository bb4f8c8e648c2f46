import type { EventLog, LogEvent, Seq } from '../../../pipeline/log/event-log.ts';
import { microsOf } from '../../../pipeline/runner/event-head.ts';
import { unavailable } from '../../../pipeline/runtime/request-fault.ts';
import { tableToken } from '../../../schemas/subjects.ts';
import type { Micros } from '../model.ts';

/** The newest part of the log that has enough events of one table in it. */
export interface TableTail {
  /** Events of the table, and the ticks that matter to it, in sequence order; the first is one of the table. */
  readonly events: readonly LogEvent[];
  /** How many of them are the table's. */
  readonly count: number;
  /** False when a limit cut it short: the log has more events of the table, and they were asked for. */
  readonly complete: boolean;
}

export interface TailLimits {
  /** Events of the table. */
  readonly count: number;
  readonly bytes: number;
  /** How long after an event of the table time still matters; 0: ticks are left out. */
  readonly horizon: Micros;
  readonly signal: AbortSignal;
}

/** Where to read: the subjects of the table and of ticks. */
interface Place {
  readonly eventLog: EventLog;
  readonly rows: string;
  readonly tick: string;
  readonly limits: TailLimits;
}

/** Sequences that are looked through at first; each further span is so many times as long as all before it. */
const firstSpan = 4_000;
const growth = 4;

/**
 * Reads backwards from the table's last event, in ever longer spans, until there are enough. When the signal fires, what is whole
 * by then counts.
 * @param subject first token of the log's subjects
 * @throws RequestFault `unavailable` when not even the first span could be read in time
 */
export async function tailOfTable(
  eventLog: EventLog,
  subject: string,
  { schema, table }: { readonly schema: string; readonly table: string },
  limits: TailLimits,
): Promise<TableTail> {
  const place: Place = { eventLog, rows: `${subject}.${tableToken(schema, table)}.*`, tick: `${subject}._tick`, limits };
  const [bounds, last] = await Promise.all([eventLog.bounds(), eventLog.last(place.rows)]);
  const oldest = Math.max(bounds.first, bounds.epochStart, 1);
  if (!last || last.seq < oldest) return { events: [], count: 0, complete: true };
  const parts: Part[] = [];
  const total = (of: 'count' | 'bytes'): number => parts.reduce((sum, part) => sum + part[of], 0);
  let whole = true;
  let from = Math.max(oldest, last.seq + 1 - Math.max(firstSpan, limits.count));
  for (let to = last.seq + 1; ;) {
    const part = new Part(place, limits.count - total('count'), limits.bytes - total('bytes'));
    whole = await readSpan(place, from, to, part);
    if (whole) parts.unshift(part);
    if (!whole || part.cut || total('count') >= limits.count || from === oldest) break;
    [from, to] = [Math.max(oldest, from - growth * (last.seq + 1 - from)), from];
  }
  if (parts.length === 0) throw unavailable('the log could not be read in time, try again');
  const rows = parts.flatMap((part) => part.events);
  const events = [...rows.slice(rows.findIndex((event) => event.subject !== place.tick)), ...(await ticksAfter(place, last))];
  return { events, count: total('count'), complete: whole && !parts[0]!.cut };
}

/** Fills the part from `[from, to)`. False when the end was not reached in time. */
async function readSpan({ eventLog, rows, tick, limits }: Place, from: Seq, to: Seq, part: Part): Promise<boolean> {
  const subjects = limits.horizon > 0 ? [rows, tick] : [rows];
  // An event of the table stands at the end of the first span, so each reading gets behind its own.
  for await (const events of eventLog.read(from, { subjects, signal: limits.signal })) {
    for (const event of events) if (event.seq < to) part.add(event);
    if (events.at(-1)!.seq >= to - 1) return true;
  }
  return false;
}

/** The ticks behind the table's last event for as long as they matter, as far as they can be had in time. */
async function ticksAfter({ eventLog, tick, limits }: Place, last: LogEvent): Promise<readonly LogEvent[]> {
  const end = limits.horizon === 0 ? undefined : await eventLog.last(tick);
  if (!end || end.seq < last.seq) return [];
  const until = (microsOf(last) ?? 0) + limits.horizon;
  const ticks: LogEvent[] = [];
  for await (const events of eventLog.read(last.seq + 1, { subjects: [tick], signal: limits.signal })) {
    for (const event of events) {
      ticks.push(event);
      if ((microsOf(event) ?? 0) >= until || event.seq >= end.seq) return ticks;
    }
  }
  return ticks;
}

/** Keeps the newest of the events that are added in order, within its bounds, and of the ticks those that matter. */
class Part {
  count = 0;
  bytes = 0;
  /** Bytes did not suffice. */
  cut = false;
  readonly #place: Place;
  readonly #mostRows: number;
  readonly #mostBytes: number;
  readonly #events: LogEvent[] = [];
  #begin = 0;
  /** From this log time on nothing can happen before the next event of the table. */
  #until = Infinity;

  constructor(place: Place, mostRows: number, mostBytes: number) {
    this.#place = place;
    this.#mostRows = mostRows;
    this.#mostBytes = mostBytes;
  }

  get events(): readonly LogEvent[] {
    return this.#events.slice(this.#begin);
  }

  add(event: LogEvent): void {
    const { tick, limits } = this.#place;
    if (event.subject === tick) {
      if (this.#until === -Infinity) return;
      // The first one at that time or behind it still counts.
      if ((microsOf(event) ?? 0) >= this.#until) this.#until = -Infinity;
    } else {
      this.count++;
      if (limits.horizon > 0) this.#until = (microsOf(event) ?? 0) + limits.horizon;
    }
    this.#events.push(event);
    this.bytes += event.data.length;
    while (this.bytes > this.#mostBytes && this.#begin < this.#events.length) {
      this.cut = true;
      this.#drop();
    }
    while (this.count > this.#mostRows) this.#drop();
    if (this.#begin < 10_000) return;
    this.#events.splice(0, this.#begin);
    this.#begin = 0;
  }

  #drop(): void {
    const event = this.#events[this.#begin++]!;
    this.bytes -= event.data.length;
    if (event.subject !== this.#place.tick) this.count--;
  }
}
