import { setImmediate } from 'node:timers/promises';
import type { Bounds, EventLog, LogEvent, Seq } from '../log/event-log.ts';
import { pause, untilItWorks } from '../runtime/backoff.ts';
import { messageOf } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logging.ts';
import { CommitLine, ComparisonLost } from './commit-line.ts';
import type { DeadLetters } from './dead-letters.ts';
import { microsOf } from './event-head.ts';
import { GroupCommit, type BatchLimits } from './group-commit.ts';
import { requireContinuity } from './offset-check.ts';
import { Applier } from './poison.ts';
import type { Processor } from './processor.ts';
import type { RunnerMetrics } from './runner-metrics.ts';
import { Redrives } from './redrive/redrives.ts';
import { sameOffset, type Holes, type Offset, type StateStore } from './state-store.ts';

/** What a session works with. */
export interface SessionParts<Effects> {
  readonly eventLog: EventLog;
  readonly processor: Processor<Effects>;
  readonly store: StateStore<Effects>;
  readonly deadLetters: DeadLetters;
  /** Fills the processor's memory from the store; see `RunnerParts`. */
  readonly load?: () => Promise<void>;
  /** Told of what is in the store now, after each commit. */
  readonly onCommitted?: (effects: Effects, offset: Offset) => void;
  /** Subject of the log's ticks, `ev._tick`. */
  readonly tickSubject: string;
  readonly limits: BatchLimits;
  readonly metrics: RunnerMetrics;
  readonly log: Logger;
  /** Says whether the store and the log answer. */
  readonly onHealth: (ok: boolean, detail: string) => void;
}

const watchMs = 2_000;
/**
 * So many full batches may be on their way to a store that keeps their order: it has the next one when it is done with the one before. Not of a processor that reads the store as it
 * goes: when another instance is at work, the second batch could come to its offset, though the first had been made of what that one had put there.
 */
const mostUnderWay = 2;

/** After so long others get a turn, and what is sent to the store goes out while the next events are applied. */
const turnMs = 2;
/** The clock is asked once in so many events. */
const clockEvents = 20;

/**
 * From loading the offset to the end of working from it: the log is read, folded and committed until a signal fires
 * or the store turns out to hold something else. All that is believed of the store is believed for one session only.
 */
export class Session<Effects> {
  readonly #parts: SessionParts<Effects>;
  /** Fires when all work is to end: nothing more is begun. */
  readonly #signal: AbortSignal;
  /** Ends the reading alone. */
  readonly #reading = new AbortController();
  readonly #line: CommitLine<Effects>;
  #failure: Error | undefined;
  /** What operators want redriven. */
  #redrives: Redrives<Effects> | undefined;
  /** Microseconds since 1970 up to which the log's own clock has been folded: the running maximum of `at`. */
  #logTime = 0;

  constructor(parts: SessionParts<Effects>, signal: AbortSignal) {
    this.#parts = parts;
    this.#signal = signal;
    this.#line = new CommitLine(
      parts.store,
      (question) => this.#untilItWorks('state store', question),
      parts.processor.prepare !== undefined,
    );
  }

  /**
   * Works until the signal fires (`stopped`: everything applied is committed) or the comparison is lost (`lost`).
   * @throws HeadwaterError what stops a processor: see `requireContinuity`, `Applier`
   */
  async run(): Promise<'stopped' | 'lost'> {
    this.#parts.processor.reset?.();
    const stored = await this.#start();
    if (!(await this.#loaded(stored))) return 'lost';
    this.#parts.log.info(`${this.#parts.processor.name}: going on after sequence ${stored.seq}`);
    const commits = this.#groupCommit(stored);
    const end = (): void => this.#reading.abort();
    this.#signal.addEventListener('abort', end, { once: true });
    if (this.#signal.aborted) end();
    const watching = Promise.all([this.#watch(commits), this.#watchRedrives(stored)]);
    try {
      await this.#fold(stored.seq + 1, commits);
      await commits.flush();
      if (this.#failure) throw this.#failure;
      return 'stopped';
    } catch (error) {
      if (error instanceof ComparisonLost) return 'lost';
      throw error;
    } finally {
      this.#signal.removeEventListener('abort', end);
      end();
      await watching;
      await commits.settled();
    }
  }

  #groupCommit(stored: Offset): GroupCommit<Effects> {
    return new GroupCommit<Effects>({
      begin: () => this.#parts.processor.begin(),
      commit: (effects, expected, next, holes) => this.#commit(effects, expected, next, holes),
      stored,
      limits: this.#parts.limits,
      mostUnderWay: this.#parts.store.ordered && !this.#parts.processor.prepare ? mostUnderWay : 1,
      onFailure: () => this.#reading.abort(),
    });
  }

  /** The offset to go on from; the first one is set before the first event, so that it is always there to compare. */
  async #start(): Promise<Offset> {
    const { store, eventLog, processor } = this.#parts;
    const stored = await this.#untilItWorks('state store', () => store.offset());
    const bounds = await this.#untilItWorks('log', () => eventLog.bounds());
    if (stored) {
      requireContinuity(processor.name, stored, bounds);
      return stored;
    }
    const start = { seq: Math.max(bounds.first, bounds.epochStart) - 1, epoch: bounds.epoch };
    if (bounds.first > bounds.epochStart)
      this.#parts.log.warn(`${processor.name}: starts at sequence ${bounds.first}, since the log no longer holds what was before`);
    const outcome = await this.#untilItWorks('state store', () => store.commit(processor.begin(), undefined, start));
    if (outcome === 'lost') return this.#start();
    // The store alone knows where the state of a rebuild is.
    return (await this.#untilItWorks('state store', () => store.offset())) ?? start;
  }

  /** False when the offset has moved in the meantime: then nobody can say which one it is that the memory belongs to. */
  async #loaded(stored: Offset): Promise<boolean> {
    const { load, processor, store } = this.#parts;
    if (!load) return true;
    await this.#untilItWorks('state store', async () => {
      processor.reset?.();
      await load();
    });
    const now = await this.#untilItWorks('state store', () => store.offset());
    return sameOffset(now, stored);
  }

  async #fold(from: Seq, commits: GroupCommit<Effects>): Promise<void> {
    const { eventLog, processor, tickSubject, limits } = this.#parts;
    // The ticks come with every filter, so that the offset moves on over events that concern nobody.
    const subjects = processor.subjects ? { subjects: [...new Set([...processor.subjects, tickSubject])] } : {};
    const applier = new Applier(processor);
    for await (const events of eventLog.read(from, { ...subjects, signal: this.#reading.signal })) {
      for (let start = 0; start < events.length && !this.#reading.signal.aborted; start += limits.events) {
        const some = events.length <= limits.events ? events : events.slice(start, start + limits.events);
        const tick = this.#redrives?.ready ? some.findIndex(({ subject }) => subject === tickSubject) : -1;
        if (tick >= 0) {
          await this.#take(some.slice(0, tick), applier, commits);
          await this.#redrive(some[tick]!, applier, commits);
        }
        await this.#take(tick < 0 ? some : some.slice(tick + 1), applier, commits);
      }
      this.#noteTime(events.at(-1));
      commits.send();
      if (this.#reading.signal.aborted) break;
    }
  }

  async #take(events: readonly LogEvent[], applier: Applier<Effects>, commits: GroupCommit<Effects>): Promise<void> {
    const { processor } = this.#parts;
    if (events.length === 0 || this.#reading.signal.aborted) return;
    if (processor.prepare) await this.#untilItWorks('state store', () => processor.prepare!(events));
    await this.#apply(events, applier, commits);
  }

  /** Applies redriven events in front of a tick, so that they are in the same commit as it is, and in none before. */
  async #redrive(tick: LogEvent, applier: Applier<Effects>, commits: GroupCommit<Effects>): Promise<void> {
    const { processor, store, log } = this.#parts;
    const redrives = this.#redrives!;
    if (this.#reading.signal.aborted) return;
    await commits.flush();
    const holes = (seqs: readonly Seq[]): Promise<ReadonlySet<Seq>> => this.#untilItWorks('state store', () => store.holes(seqs));
    const plan = await redrives.plan(tick, holes, this.#reading.signal).catch((error: unknown) => {
      log.debug({ error: messageOf(error) }, `${processor.name}: a redrive could not be planned`);
      redrives.giveUp();
    });
    if (!plan) return this.#take([tick], applier, commits);
    if (this.#reading.signal.aborted) return;
    if (processor.prepare) await this.#untilItWorks('state store', () => processor.prepare!([...plan.events, tick]));
    const { name, mended } = redrives.fold(plan, commits.effects);
    commits.redrive(name, mended);
    await this.#apply([tick], applier, commits);
  }

  async #apply(events: readonly LogEvent[], applier: Applier<Effects>, commits: GroupCommit<Effects>): Promise<void> {
    let turn = performance.now();
    for (const [n, event] of events.entries()) {
      if (commits.full) await commits.room();
      if (n % clockEvents === clockEvents - 1 && performance.now() - turn > turnMs) {
        await setImmediate();
        turn = performance.now();
      }
      const letter = applier.apply(event, commits.effects);
      if (letter) await this.#bury({ ...letter, epoch: commits.stored.epoch });
      commits.add(event, letter !== undefined);
      if (this.#reading.signal.aborted) break;
    }
  }

  async #bury(letter: Parameters<DeadLetters['publish']>[0]): Promise<void> {
    const { deadLetters, metrics, log } = this.#parts;
    await this.#untilItWorks('dead letters', () => deadLetters.publish(letter));
    metrics.deadLetter();
    log.warn(
      { seq: letter.seq, code: letter.code, reason: letter.reason },
      `${letter.processor}: an event could not be applied and went to the dead letters`,
    );
  }

  async #commit(effects: Effects, expected: Offset, next: Offset, holes: Holes | undefined): Promise<void> {
    const { metrics, onCommitted } = this.#parts;
    const began = performance.now();
    await this.#line.commit(effects, expected, next, holes);
    onCommitted?.(effects, next);
    this.#redrives?.committed(next.redriven);
    metrics.committed((performance.now() - began) / 1_000);
    metrics.events(next.seq - expected.seq);
  }

  async #watchRedrives({ epoch, redriven }: Offset): Promise<void> {
    const { deadLetters, processor, eventLog, metrics, log } = this.#parts;
    if (!deadLetters.redrives) return;
    this.#redrives = new Redrives({ processor, eventLog, requests: deadLetters.redrives, metrics, log, epoch, redriven });
    await this.#redrives.run(this.#reading.signal);
  }

  /** Compares the log with the position while working: the lag, and whether it is still the same history. */
  async #watch(commits: GroupCommit<Effects>): Promise<void> {
    const { eventLog, metrics } = this.#parts;
    while (!this.#reading.signal.aborted) {
      const { stored } = commits;
      const bounds = await eventLog.bounds().catch(() => undefined);
      // No answer: the log is away, and the reader waits for it.
      if (bounds) {
        const behind = Math.max(0, bounds.last - stored.seq);
        metrics.lag(behind, behind > 0 && this.#logTime > 0 ? Math.max(0, Date.now() - this.#logTime / 1_000) / 1_000 : 0);
        this.#requireSameLog(stored, bounds);
      }
      await pause(watchMs, this.#reading.signal);
    }
  }

  /** Trimming is left to the reader: events it has read are not lost to it. */
  #requireSameLog(stored: Offset, bounds: Bounds): void {
    try {
      requireContinuity(this.#parts.processor.name, stored, { ...bounds, first: 1 });
    } catch (error) {
      this.#failure ??= error as Error;
      this.#reading.abort();
    }
  }

  #noteTime(event: LogEvent | undefined): void {
    this.#logTime = Math.max(this.#logTime, (event && microsOf(event)) ?? 0);
  }

  async #untilItWorks<T>(what: string, attempt: () => Promise<T>): Promise<T> {
    const { log, onHealth } = this.#parts;
    const reported = (): Promise<T> =>
      attempt().catch((error: unknown) => {
        onHealth(false, `${what} is not available`);
        throw error;
      });
    // Told to stop: what is begun gets one more try, not an endless one.
    const value = this.#signal.aborted ? await reported() : await untilItWorks(what, reported, { signal: this.#signal, log });
    onHealth(true, 'working');
    return value;
  }
}
