import type { EventLog, LogEvent, Seq } from '../../log/event-log.ts';
import { backoffMs, pause } from '../../runtime/backoff.ts';
import { messageOf } from '../../runtime/errors.ts';
import type { Logger } from '../../runtime/logging.ts';
import type { RedriveOutcome, RedriveRequest, RedriveRequests, RedriveResult, StoredLetter } from '../dead-letters.ts';
import { attempt } from '../poison.ts';
import { idOf } from '../event-head.ts';
import type { Processor } from '../processor.ts';
import { Bell } from './bell.ts';
import { RedriveOrder } from './order.ts';
import { eachOf } from './requests.ts';
import type { RunnerMetrics } from '../runner-metrics.ts';

export interface RedriveParts<Effects> {
  readonly processor: Processor<Effects>;
  readonly eventLog: EventLog;
  readonly requests: RedriveRequests;
  readonly metrics: RunnerMetrics;
  readonly log: Logger;
  /** What the state is of: letters of another epoch are superseded by all of this one. */
  readonly epoch: string;
  /** As stored: `Offset.redriven`. */
  readonly redriven: string | undefined;
}

/** A letter that is looked at, with what is known of its event. */
interface Candidate {
  readonly place: Seq;
  readonly letter: StoredLetter | undefined;
  readonly event: LogEvent | undefined;
}

/** A letter's event as it is to be applied. */
interface Fold {
  readonly letter: StoredLetter;
  readonly event: LogEvent;
}

/** What is to be done at a tick. */
export interface RedrivePlan {
  /** In the order of the log. */
  readonly events: readonly LogEvent[];
  readonly folds: readonly Fold[];
  readonly results: readonly RedriveResult[];
  readonly request: RedriveRequest;
}

interface Prepared {
  readonly request: RedriveRequest;
  readonly candidates: readonly Candidate[];
  readonly order: RedriveOrder;
}

/** Letters from before there was an epoch in each: nobody has noted then what the state lacks, either. */
const unnoted =
  'the letter is older than the note of what the state lacks, so nobody can say whether it lacks this: `headwater rebuild` makes the state anew, ' +
  '`headwater backfill <table> --where …` logs the row as it is now; then `dlq drop` takes out the letter';
/** After something went wrong. */
const againMs = 2_000;
const letters: Readonly<Record<RedriveOutcome, string>> = { applied: 'a', superseded: 's', unneeded: 'u', failed: 'f', gone: 'g' };
const outcomes = new Map(Object.entries(letters).map(([outcome, letter]) => [letter, outcome as RedriveOutcome]));

/**
 * Takes what operators want redriven, one request after the other. What takes long is done beside the session's work: the letters are read, and
 * the log after them. Then, at a tick of the log, the session applies what is left to apply in front of it. Effects, the holes that are mended, and
 * what became of each letter (`Offset.redriven`) are in one commit. Only then the letters are removed, and last the request. So, killed anywhere, a
 * request is either begun again, with nothing of it in the store, or finished with what the store says of it.
 */
export class Redrives<Effects> {
  readonly #parts: RedriveParts<Effects>;
  #prepared: Prepared | undefined;
  #redriven: string | undefined;
  /** Of the last fold, as long as this instance lives: why letters failed again. */
  #results: readonly RedriveResult[] = [];
  #wake: (() => void) | undefined;
  /** Rung when there may be a request. */
  readonly #bell = new Bell();

  constructor(parts: RedriveParts<Effects>) {
    this.#parts = parts;
    this.#redriven = parts.redriven;
  }

  /** Something is to be done at the next tick. */
  get ready(): boolean {
    return this.#prepared !== undefined;
  }

  /** Does what is asked for until the signal fires. Never throws: what cannot be done now is tried again. */
  async run(signal: AbortSignal): Promise<void> {
    const { processor, requests, metrics } = this.#parts;
    signal.addEventListener('abort', () => this.#wake?.(), { once: true });
    const stop = requests.watch(processor.name, {
      asked: () => this.#bell.ring(),
      letters: (count) => metrics.waitingLetters(count),
    });
    await this.#work(signal).finally(stop);
  }

  async #work(signal: AbortSignal): Promise<void> {
    const { processor, requests, log } = this.#parts;
    for (let failures = 0; !signal.aborted;) {
      try {
        const request = await requests.next(processor.name);
        if (request) await this.#handle(request, signal);
        else await this.#bell.wait(signal);
        failures = 0;
      } catch (error) {
        if (signal.aborted) return;
        (failures === 0 ? log.warn.bind(log) : log.debug.bind(log))(
          { error: messageOf(error) },
          `${processor.name}: a redrive of dead letters could not be done yet`,
        );
        await pause(againMs + backoffMs(failures++), signal);
      }
    }
  }

  /**
   * What is to be applied in front of a tick. Everything before the tick must be in the store.
   * @param holes which of these sequences the state lacks
   */
  async plan(tick: LogEvent, holes: (seqs: readonly Seq[]) => Promise<ReadonlySet<Seq>>, signal: AbortSignal): Promise<RedrivePlan> {
    const { request, candidates, order } = this.#prepared!;
    const { redrive = {} } = this.#parts.processor;
    const missing = await holes(candidates.flatMap(({ letter }) => (letter ? [letter.seq] : [])));
    await order.advance(signal);
    const results: RedriveResult[] = [];
    const folds: Fold[] = [];
    const seen = new Set<Seq>();
    for (const { place, letter, event } of candidates) {
      if (!letter) results.push({ place, outcome: 'gone' });
      // Two letters of one event.
      else if (seen.has(letter.seq)) results.push({ place, seq: letter.seq, outcome: 'unneeded' });
      else if (!missing.has(letter.seq))
        results.push({
          place,
          seq: letter.seq,
          ...(letter.epoch === undefined ? { outcome: 'failed', reason: unnoted } : { outcome: 'unneeded' }),
        });
      else {
        seen.add(letter.seq);
        const due = this.#due(letter, event, order);
        if ('apply' in due) folds.push({ letter, event: redrive.under === 'tick' ? { ...due.apply, seq: tick.seq } : due.apply });
        else if ('superseded' in due) results.push({ place, seq: letter.seq, outcome: 'superseded', reason: due.superseded });
        else results.push({ place, seq: letter.seq, outcome: 'failed', reason: due.unknown });
      }
    }
    folds.sort((a, b) => a.letter.seq - b.letter.seq);
    return { request, folds, results, events: folds.map(({ event }) => event) };
  }

  /** Applies what was planned. Without a pause from here to the commit's end. */
  fold({ request, folds, results }: RedrivePlan, effects: Effects): { readonly name: string; readonly mended: readonly Seq[] } {
    const all = [...results];
    for (const { letter, event } of folds) {
      const failed = attempt(this.#parts.processor, event, effects);
      const { place, seq } = letter;
      if (!failed) all.push({ place, seq, outcome: 'applied' });
      else {
        const { event: data, attempts, place: _, firstAt = letter.at, ...rest } = letter;
        const again = { ...rest, ...failed, firstAt, attempts: attempts + failed.attempts, at: new Date().toISOString() };
        all.push({ place, seq, outcome: 'failed', reason: failed.reason, ...(data && { letter: { ...again, event: data } }) });
      }
    }
    this.#prepared = undefined;
    this.#results = all;
    const byPlace = new Map(all.map(({ place, outcome }) => [place, letters[outcome]]));
    return {
      name: `${request.id}:${request.letters.map((place) => byPlace.get(place)).join('')}`,
      mended: all.flatMap(({ seq, outcome }) => (seq !== undefined && (outcome === 'applied' || outcome === 'superseded') ? [seq] : [])),
    };
  }

  /** This is stored. */
  committed(redriven: string | undefined): void {
    if (redriven === this.#redriven) return;
    this.#redriven = redriven;
    this.#wake?.();
  }

  /** The plan could not be made or applied: the request is begun again, after a while. */
  giveUp(): void {
    this.#prepared = undefined;
    this.#wake?.();
  }

  async #handle(request: RedriveRequest, signal: AbortSignal): Promise<void> {
    const { processor, requests, metrics, log } = this.#parts;
    if (!this.#isFolded(request)) {
      const prepared = await this.#prepare(request, signal);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        this.#prepared = prepared;
        if (signal.aborted) resolve();
      });
      this.#wake = undefined;
      this.#prepared = undefined;
      if (signal.aborted) return;
      if (!this.#isFolded(request)) throw new Error('it could not be planned');
    }
    const results = this.#resultsOf(request);
    await requests.finish(processor.name, request, results);
    for (const { outcome } of results) metrics.redriven(outcome);
    log.info(
      Object.fromEntries(Object.keys(letters).map((outcome) => [outcome, results.filter((result) => result.outcome === outcome).length])),
      `${processor.name}: dead letters were redriven`,
    );
  }

  #isFolded({ id }: RedriveRequest): boolean {
    return this.#redriven?.startsWith(`${id}:`) ?? false;
  }

  /** With the reasons, if it was this instance that has folded it. */
  #resultsOf({ id, letters: places }: RedriveRequest): readonly RedriveResult[] {
    const codes = this.#redriven!.slice(id.length + 1);
    const known = new Map(this.#results.map((result) => [result.place, result]));
    return places.map((place, n) => known.get(place) ?? { place, outcome: outcomes.get(codes[n] ?? '') ?? 'failed' });
  }

  async #prepare(request: RedriveRequest, signal: AbortSignal): Promise<Prepared> {
    const { processor, eventLog, requests, epoch } = this.#parts;
    const order = new RedriveOrder(eventLog, processor.redrive ?? {});
    const candidates: Candidate[] = [];
    const found = await eachOf(request.letters, (place) => requests.letter(place));
    for (const [n, place] of request.letters.entries()) {
      signal.throwIfAborted();
      const letter = found[n]?.processor === processor.name ? found[n] : undefined;
      const event = letter && (await this.#eventOf(letter));
      candidates.push({ place, letter, event });
      if (event && (letter.epoch ?? epoch) === epoch && processor.redrive?.of !== 'events') order.add(event);
    }
    await order.advance(signal);
    return { request, candidates, order };
  }

  /** The event itself: out of the letter, or of the log where it was too large for one. */
  async #eventOf({ seq, id, epoch, subject, event }: StoredLetter): Promise<LogEvent | undefined> {
    if (event && subject !== undefined) return { seq, subject, data: event };
    if ((epoch ?? this.#parts.epoch) !== this.#parts.epoch) return undefined;
    const logged = await this.#parts.eventLog.get(seq);
    // Of an epoch that is not known: it is the same event if it has the same id.
    return epoch !== undefined || (logged && idOf(logged) === id) ? logged : undefined;
  }

  #due(letter: StoredLetter, event: LogEvent | undefined, order: RedriveOrder): ReturnType<RedriveOrder['due']> {
    const { processor, epoch } = this.#parts;
    if (processor.redrive?.of !== 'events' && (letter.epoch ?? epoch) !== epoch)
      return { superseded: 'a new epoch of the log has begun since, with a copy of all rows' };
    if (!event) return { unknown: `the letter does not hold the event, and the log does not any more` };
    return processor.redrive?.of === 'events' ? { apply: event } : order.due(event);
  }
}
