import type { Bounds, EventLog, LogEvent, Seq } from '../../pipeline/log/event-log.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import { cacheKey, type CachedAnswer, type QueryCache } from './cache.ts';
import { Follower, type Seen, type Standing, type TailPosition } from './follower.ts';
import type { PreparedQuery, QueryAnswer, QueryAsker, QueryExecutor, QueryRows, QueryTable } from './model.ts';
import { QueryRefused, TableChanged } from './refused.ts';
import { Flights } from './service-flights.ts';
import { within } from './service-patience.ts';
import type { QueryMetrics } from './service-metrics.ts';
import { SharedQuestion } from './shared-question.ts';

export interface QueryServiceParts {
  readonly executor: QueryExecutor;
  /** `readStanding` on any connection to the database. */
  readonly standing: (signal: AbortSignal) => Promise<Standing>;
  readonly eventLog: Pick<EventLog, 'bounds'>;
  readonly tail: TailPosition;
  /** Is a table, at some moment after the call, as it is described? Undefined when that cannot be known. */
  readonly isCurrent: (table: QueryTable) => Promise<boolean | undefined>;
  /** Without one every query asks the database. */
  readonly cache: QueryCache | undefined;
  readonly metrics: QueryMetrics;
  readonly log: Logger;
  /** How long a request waits for the sequence it asks for (ms; default 5,000). */
  readonly visibleWithinMs?: number;
  /** How long a request waits for this node to have read the log to its end before it asks the database instead (ms; default 500). */
  readonly readWithinMs?: number;
}

/** Who asks, and how new the answer has to be. */
export interface Asker extends QueryAsker {
  /** Every event up to this sequence has to be in the answer. */
  readonly minSeq?: Seq | undefined;
  /** Fires when nobody waits for the answer any more. */
  readonly signal: AbortSignal;
}

/** Where the log ends, and which history it is. */
type Head = Pick<Bounds, 'last' | 'epoch'>;

/** A reading of the database, and what it is known to hold. */
interface Outcome {
  readonly rows: QueryRows;
  readonly seen: Seen | undefined;
}

/** A request on its way. */
interface Request extends Asker {
  readonly query: PreparedQuery;
  readonly key: string;
  /** When it came, in the order of arrivals and flights: what began later is as new as it could be. */
  arrived: number;
  /** Where the log ended after it had come, if that is known, this node has read up to there, and the table is as described. */
  head: Head | undefined;
}

/** How long the first queries of a node wait for what it has to know. */
const prepareWithinMs = 250;

/**
 * Answers checked queries, from the cache where that is provably the same.
 *
 * A kept answer is given only if this node has read the log up to where it ended after the request came, and has found no event behind
 * the answer's own `asOf` that could change what it depends on; and if the database has said, after the request came, that the table's
 * definition is that of the answer. What the cache says of itself, or whether it can be asked, does not matter to that. The result of a
 * reading that began before the request came is judged in the same way.
 */
export class QueryService {
  readonly #parts: QueryServiceParts;
  readonly #follower: Follower;
  readonly #probe: SharedQuestion<Head>;
  readonly #flights = new Flights<Outcome>();
  readonly #keys = new WeakMap<PreparedQuery, string>();
  /** The last question of where the log ends. */
  #head: { readonly asked: Promise<Head | undefined>; readonly read: Promise<Head | undefined> } | undefined;
  #clock = 0;

  constructor(parts: QueryServiceParts) {
    const { executor, tail, standing, log } = parts;
    this.#parts = parts;
    this.#follower = new Follower({ tail, standing, log, snapshot: (signal) => executor.snapshot(signal) });
    this.#probe = new SharedQuestion(() => parts.eventLog.bounds());
  }

  /** The log's next events, right after the tail's position has moved behind them. */
  observe(events: readonly LogEvent[]): void {
    this.#follower.observe(events);
  }

  /** The tail has lost its position. */
  lost(): void {
    this.#follower.lost();
  }

  close(): void {
    this.#follower.close();
  }

  /**
   * @throws QueryRefused `not_visible` when the sequence asked for is not visible in time; TableChanged; whatever the executor throws; the
   * signal's reason when that fires first
   */
  async answer(query: PreparedQuery, asker: Asker): Promise<QueryAnswer> {
    const request: Request = { ...asker, query, key: this.#keyOf(query), arrived: ++this.#clock, head: undefined };
    const { minSeq, signal } = request;
    signal.throwIfAborted();
    if (minSeq === undefined) return this.#answer(request);
    const patience = new AbortController();
    const give = (): void => patience.abort();
    const timer = setTimeout(give, this.#parts.visibleWithinMs ?? 5_000);
    signal.addEventListener('abort', give, { once: true });
    try {
      return await this.#answerAt(request, minSeq, patience.signal);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', give);
    }
  }

  #keyOf(query: PreparedQuery): string {
    let key = this.#keys.get(query);
    if (key === undefined) this.#keys.set(query, (key = cacheKey(query)));
    return key;
  }

  /** An answer that holds everything up to `minSeq`. */
  async #answerAt(request: Request, minSeq: Seq, patience: AbortSignal): Promise<QueryAnswer> {
    const { tail } = this.#parts;
    await tail.reached(minSeq, patience);
    for (;;) {
      request.signal.throwIfAborted();
      if (patience.aborted) throw notVisible(minSeq, tail.position);
      const answer = await this.#answer(request);
      if (answer.asOf !== undefined && answer.asOf >= minSeq) return answer;
      await this.#follower.visible(minSeq, patience);
      request.arrived = ++this.#clock;
    }
  }

  async #answer(request: Request): Promise<QueryAnswer> {
    const { query, key, minSeq, signal } = request;
    const { cache, tail, isCurrent } = this.#parts;
    if (!query.table.cacheable) return this.#miss(query, await this.#read(query, request, signal), 'never_kept');
    // From now on the changes of these rows are taken note of.
    this.#follower.lastChange(query.dependency);
    const near = cache?.near(key);
    const [read, far, current] = await Promise.all([this.#headRead(), near ? undefined : cache?.get(key), isCurrent(query.table)]);
    if (current === false) throw new TableChanged(query.table.name);
    const head = current ? read : undefined;
    request.head = head;
    let kept = near ?? far;
    if (near && head && !this.#holds(request, near)) kept = await cache!.get(key);
    if (kept && this.#holds(request, kept)) return this.#hit(query, kept, tail.position, 'kept');
    const outcome = await this.#shared(request);
    if ('hit' in outcome) return outcome.hit;
    const reason = kept === undefined ? 'not_kept' : head === undefined ? 'unsure' : 'changed';
    const { seen } = outcome;
    // Not all of that can be seen yet, but what can not is of no concern here.
    const enough = seen === undefined || minSeq === undefined || seen.asOf >= minSeq || !this.#unchanged(query, seen);
    return this.#miss(query, enough ? outcome : { ...outcome, seen: { ...seen, asOf: tail.position } }, reason);
  }

  /** The result of a reading that several share: one that began earlier if it can be shown to be as good, else one that begins now. */
  async #shared(request: Request): Promise<Outcome | { readonly hit: QueryAnswer }> {
    const { query, key, signal } = request;
    const early = this.#flights.get(key);
    if (early && early.began < request.arrived && request.head) {
      const { rows, seen } = await early.join(signal);
      if (seen && this.#holds(request, seen)) return { hit: this.#hit(query, rows, this.#parts.tail.position, 'shared') };
    }
    const late = this.#flights.get(key);
    const flight =
      late && late.began > request.arrived ? late : this.#flights.start(key, ++this.#clock, (ending) => this.#readAndKeep(request, ending));
    return flight.join(signal);
  }

  async #readAndKeep({ query, key, owner, keyId }: Request, signal: AbortSignal): Promise<Outcome> {
    const readAt = Date.now();
    const outcome = await this.#read(query, { owner, keyId }, signal);
    const { rows, seen } = outcome;
    if (seen && this.#unchanged(query, seen)) this.#parts.cache?.put(key, { ...seen, items: rows.items, more: rows.more, readAt });
    return outcome;
  }

  async #read(query: PreparedQuery, asker: QueryAsker, signal: AbortSignal): Promise<Outcome> {
    await this.#follower.prepared(prepareWithinMs);
    const reading = this.#follower.begin();
    let snapshot: string | undefined;
    let rows: QueryRows;
    try {
      rows = await this.#parts.executor.run(query, asker, signal);
      snapshot = rows.snapshot;
    } catch (error) {
      this.#follower.end(reading, undefined);
      throw error;
    }
    return { rows, seen: this.#follower.end(reading, snapshot) };
  }

  /** Where the log ends now, once this node has read up to there; undefined when that cannot be had soon. One answer for all who share a question. */
  #headRead(): Promise<Head | undefined> {
    const asked = this.#probe.ask();
    if (this.#head?.asked !== asked) this.#head = { asked, read: this.#untilRead(asked) };
    return this.#head.read;
  }

  async #untilRead(asked: Promise<Head | undefined>): Promise<Head | undefined> {
    const { tail, readWithinMs = 500 } = this.#parts;
    const head = await asked;
    if (!head || head.epoch !== tail.epoch) return undefined;
    if (tail.position >= head.last) return head;
    const patience = new AbortController();
    await within(readWithinMs, tail.reached(head.last, patience.signal));
    patience.abort();
    return tail.position >= head.last ? head : undefined;
  }

  /** Is this as good as what the database would say now? */
  #holds({ head, query }: Request, seen: Seen): boolean {
    const { tail } = this.#parts;
    return head !== undefined && head.epoch === tail.epoch && tail.position >= head.last && this.#unchanged(query, seen);
  }

  /** Nothing that this node has read has changed what the answer depends on. */
  #unchanged({ dependency }: PreparedQuery, { asOf, epoch }: Seen): boolean {
    const { tail } = this.#parts;
    return epoch === tail.epoch && asOf <= tail.position && asOf >= this.#follower.lastChange(dependency);
  }

  #hit(query: PreparedQuery, rows: Pick<CachedAnswer, 'items' | 'more'>, asOf: Seq, reason: 'kept' | 'shared'): QueryAnswer {
    this.#parts.metrics.answers.inc({ cache: 'hit', reason });
    return answerOf(query, rows, asOf, 'hit');
  }

  #miss(query: PreparedQuery, { rows, seen }: Outcome, reason: string): QueryAnswer {
    this.#parts.metrics.answers.inc({ cache: 'miss', reason });
    return answerOf(query, rows, seen?.asOf, 'miss');
  }
}

function answerOf(
  { cursorAfter }: PreparedQuery,
  { items, more }: Pick<QueryRows, 'items' | 'more'>,
  asOf: Seq | undefined,
  cache: QueryAnswer['cache'],
): QueryAnswer {
  return { items, next: more && cursorAfter?.(more), asOf, cache };
}

function notVisible(minSeq: Seq, position: Seq): QueryRefused {
  const why =
    position < minSeq
      ? `the log has been read up to ${position} only`
      : 'its transaction is in the log, but the database does not show it yet';
  return new QueryRefused('not_visible', `sequence ${minSeq} could not be seen in time: ${why}`, { field: 'minSeq', retryAfterS: 1 });
}
