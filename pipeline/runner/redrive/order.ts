import type { EventLog, LogEvent, Seq } from '../../log/event-log.ts';
import type { RedriveRules } from '../processor.ts';

/** What is left to do for an event that comes late. */
export type Due =
  | { readonly apply: LogEvent }
  | { readonly superseded: string }
  /** Nobody can say: part of what came after is no longer held. */
  | { readonly unknown: string };

type Row = Readonly<Record<string, unknown>>;

interface RowEvent {
  readonly op: string;
  /** Names of the row; absent without primary key. */
  readonly key?: string;
  /** Of before an update that changed it. */
  readonly old?: string;
}

/** A table, or one subject that is no row's, with what came last of all that is asked for. */
interface Watched {
  readonly filter: string;
  readonly latest: Map<string, Seq>;
  /** Everything after the oldest letter up to here has been looked at. */
  covered: Seq;
  truncated: Seq;
  last: Seq;
  /** Of letters before this, part of what came after is no longer held. */
  lost: Seq;
}

const notRows = new Set(['_schema', '_message', '_mark', '_tick']);
const backfill = '`headwater backfill <table> --where …` logs the row as it is now';

/**
 * Finds out, of events that come late, whether the log holds later ones of the same rows. It is asked as often as is wanted, each time up to
 * the end of the log; only what was added since the last time is read.
 */
export class RedriveOrder {
  readonly #log: Pick<EventLog, 'bounds' | 'last' | 'read'>;
  readonly #concerns: RedriveRules['concerns'];
  readonly #watched = new Map<string, Watched>();

  constructor(log: Pick<EventLog, 'bounds' | 'last' | 'read'>, { concerns }: RedriveRules) {
    this.#log = log;
    this.#concerns = concerns;
  }

  /** Before the first `advance`. */
  add(event: LogEvent): void {
    const filter = filterOf(event.subject);
    if (filter === undefined) return;
    const found = this.#watched.get(filter);
    if (found) found.covered = Math.min(found.covered, event.seq);
    else this.#watched.set(filter, { filter, latest: new Map(), covered: event.seq, truncated: 0, last: 0, lost: 0 });
    for (const name of this.#names(event)) this.#watched.get(filter)!.latest.set(name, 0);
  }

  /** Reads on to the end of the log as it is now. */
  async advance(signal: AbortSignal): Promise<void> {
    for (const watched of this.#watched.values()) {
      const { first, last } = await this.#log.bounds();
      if (first > watched.covered + 1) watched.lost = first;
      const final = (await this.#log.last(watched.filter))?.seq ?? 0;
      if (final > watched.covered) await this.#read(watched, Math.max(watched.covered + 1, first), final, signal);
      watched.covered = Math.max(watched.covered, last, final);
    }
  }

  due(event: LogEvent): Due {
    const filter = filterOf(event.subject);
    const watched = filter === undefined ? undefined : this.#watched.get(filter);
    if (!watched) return { apply: event };
    const { seq } = event;
    if (watched.lost > seq + 1)
      return {
        unknown: `the log no longer holds everything that came after event ${seq}: ${backfill}, and \`dlq drop\` takes out the letter`,
      };
    const row = rowEventOf(event);
    if (!row) return watched.last > seq ? { superseded: `event ${watched.last} says the same thing anew` } : { apply: event };
    if (row.op === 'truncate')
      return watched.last > seq
        ? { superseded: 'the table has changed since: make the state anew to be rid of older rows' }
        : { apply: event };
    if (watched.truncated > seq) return { superseded: `the table was emptied by event ${watched.truncated}` };
    const other = this.#others(event).find((name) => watched.latest.get(name)! > seq);
    if (other !== undefined) return { superseded: `event ${watched.latest.get(other)} is newer` };
    return dueOfRow(event, row, (name) => (name === undefined ? 0 : (watched.latest.get(name) ?? 0)));
  }

  async #read(watched: Watched, from: Seq, final: Seq, signal: AbortSignal): Promise<void> {
    const { filter } = watched;
    for await (const events of this.#log.read(from, { subjects: [filter], signal })) {
      for (const event of events) if (filterOf(event.subject) === filter) this.#see(watched, event);
      if (events.at(-1)!.seq >= final) return;
    }
    signal.throwIfAborted();
  }

  #see(watched: Watched, event: LogEvent): void {
    watched.last = event.seq;
    if (event.subject.endsWith('.truncate')) watched.truncated = event.seq;
    for (const name of this.#names(event)) if (watched.latest.has(name)) watched.latest.set(name, event.seq);
  }

  #names(event: LogEvent): readonly string[] {
    const { key, old } = rowEventOf(event) ?? {};
    return [...(key === undefined ? [] : [key]), ...(old === undefined ? [] : [old]), ...this.#others(event)];
  }

  #others(event: LogEvent): readonly string[] {
    try {
      return this.#concerns?.(event).map((name) => `*${name}`) ?? [];
    } catch {
      return [];
    }
  }
}

function dueOfRow(event: LogEvent, { key, old }: RowEvent, latest: (name: string | undefined) => Seq): Due {
  const { seq } = event;
  const [newer, newerOld] = [latest(key), latest(old)];
  if (newer <= seq && newerOld <= seq) return { apply: event };
  // The row has gone on under its new key; under the old one it is still to go.
  if (old !== undefined && newerOld <= seq) return { apply: departure(event) };
  if (newer <= seq) return { superseded: `event ${newerOld} is newer, of the key that the row had before: ${backfill}` };
  return { superseded: `event ${newer} is a newer one of the same row` };
}

/** The subjects on which a later event can supersede this one; undefined when none can. */
function filterOf(subject: string): string | undefined {
  const [, kind = '', , ...rest] = subject.split('.');
  if (kind === '_schema') return subject;
  return notRows.has(kind) || rest.length !== 1 ? undefined : `${subject.slice(0, subject.lastIndexOf('.'))}.*`;
}

/** Undefined when it is no row's; without names when it cannot be read, which nothing supersedes but a truncate. */
function rowEventOf({ subject, data }: LogEvent): RowEvent | undefined {
  const [, kind = '', , op = ''] = subject.split('.');
  if (notRows.has(kind)) return undefined;
  try {
    const { key, before } = JSON.parse(Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('utf8')) as Record<string, Row>;
    if (typeof key !== 'object') return { op };
    const name = nameOf(key, Object.keys(key));
    const moved = op === 'update' && before !== undefined && Object.keys(key).every((column) => Object.hasOwn(before, column));
    const old = moved ? nameOf(before, Object.keys(key)) : name;
    return { op, key: name, ...(old !== name && { old }) };
  } catch {
    return { op };
  }
}

function nameOf(row: Row, columns: readonly string[]): string {
  return JSON.stringify(columns.map((column) => row[column]));
}

/** The row is no longer under its old key: what the event says, without what it says of the new one. Values of keys are read and written as they are. */
function departure({ seq, subject, data }: LogEvent): LogEvent {
  const { v, id, type, table, key, before, tx, at } = JSON.parse(Buffer.from(data).toString('utf8')) as Record<string, Row>;
  const old = Object.fromEntries(Object.keys(key!).map((column) => [column, before![column]]));
  const event = { v, id, type, op: 'delete', table, key: old, before: old, tx, at };
  return { seq, subject: subject.replace(/[^.]*$/, 'delete'), data: Buffer.from(JSON.stringify(event)) };
}
