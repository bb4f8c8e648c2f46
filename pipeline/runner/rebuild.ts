import { randomUUID } from 'node:crypto';
import type { Bounds, Seq } from '../log/event-log.ts';
import { pause, untilItWorks } from '../runtime/backoff.ts';
import { HeadwaterError, refused } from '../runtime/errors.ts';
import type { Role, RoleContext } from '../runtime/lifecycle.ts';
import { linked } from '../runtime/tasks.ts';
import type { DeadLetter } from './dead-letters.ts';
import { GatedLog, HeldStore } from './rebuild-gate.ts';
import { startRunner, type RunnerParts } from './runner.ts';
import type { Offset, StateStore } from './state-store.ts';

/**
 * What stands beside the live state of a processor: `filling`: a state that is made anew from the log; `kept`: the one that was live
 * before; `dropping`: what is being removed.
 */
export type BesideState = 'filling' | 'kept' | 'dropping';

export interface BesideStatus {
  readonly name: string;
  readonly state: BesideState;
  /** Since when, ISO 8601. */
  readonly since: string;
  /** How far it has come. */
  readonly offset: Offset | undefined;
  /** How far the live one has come. */
  readonly live: Offset | undefined;
}

/** Something that is not the same in both. Texts are short; undefined: it is not there. */
export interface Difference {
  readonly what: string;
  readonly live: string | undefined;
  readonly beside: string | undefined;
}

const shown = { before: 60, length: 240 };

/** A difference of two texts, which may be long: each from a little before the place where they part. */
export function difference(what: string, live: string | undefined, beside: string | undefined): Difference {
  let same = 0;
  if (live !== undefined && beside !== undefined) while (same < live.length && live[same] === beside[same]) same++;
  const start = same > shown.before * 2 ? same - shown.before : 0;
  const cut = (text: string | undefined): string | undefined =>
    text && `${start > 0 ? '…' : ''}${text.slice(start, start + shown.length)}${text.length > start + shown.length ? '…' : ''}`;
  return { what, live: cut(live), beside: cut(beside) };
}

export interface Comparison {
  /** How many rows, records or keys were compared, each at the same offset. */
  readonly compared: number;
  readonly differences: number;
  /** The first of them. */
  readonly listed: readonly Difference[];
  /** What changed all the while, so that it could not be seen at the same offset. */
  readonly moving: number;
}

/** So many differences are listed. */
export const mostListed = 20;

/** `behind`: the live one is further by now; `compare`: it has changed in a way that asks for another comparison first. */
export type FlipOutcome = 'flipped' | 'behind' | 'compare';

/** What a comparison or a flip may ask of the fold that fills the state beside. */
export interface Steering {
  readonly signal: AbortSignal;
  readonly progress: (text: string) => void;
  /** Lets the fold come to this sequence, and no further. False when it is beyond it, or does not come there in time. */
  reach(seq: Seq): Promise<boolean>;
  /** Runs something while nothing is committed beside. */
  still<T>(work: () => Promise<T>): Promise<T>;
}

/** What stands beside is not what this rebuild has worked on. */
export function overtaken(name: string): HeadwaterError {
  return refused(
    'rebuild_overtaken',
    `what stands beside ${name} has been flipped or removed by another command meanwhile`,
    '`headwater rebuild --status` shows what is there',
  );
}

/** A second state of a processor, in the store where the live one is. */
export interface Beside<Effects> {
  /** What is rebuilt, as messages name it. */
  readonly name: string;
  /** Where the fold commits; its lease says who works on what stands beside. */
  readonly store: StateStore<Effects>;
  /** The fold stays behind the live one, and takes its place at the very same offset: where the live one does more than change its state. */
  readonly follows: boolean;
  /** Undefined: nothing is there. */
  status(): Promise<BesideStatus | undefined>;
  /** Makes room for a state that is made anew. */
  begin(): Promise<void>;
  /** Empties what is being filled, which begins at the log's oldest event again. */
  clear(): Promise<void>;
  compare(steering: Steering): Promise<Comparison>;
  /**
   * Gives what stands beside the place of the live one, and the other way round, in one step of the store.
   * @throws HeadwaterError `rebuild_overtaken` (refused) when it is not in the expected state: somebody else has flipped or removed it
   */
  flip(steering: Steering, expected: 'filling' | 'kept'): Promise<FlipOutcome>;
  /** Removes what stands beside; interrupted, it says `dropping` until it is gone. */
  remove(signal: AbortSignal): Promise<void>;
}

/** How far a rebuild is. */
export interface RebuildProgress {
  readonly name: string;
  readonly phase: 'waiting' | 'filling' | 'comparing' | 'flipping';
  readonly seq: Seq;
  /** Where it began, and where the log ends. */
  readonly first: Seq;
  readonly last: Seq;
  /** Events a second. */
  readonly rate: number;
  readonly detail?: string;
}

export interface RebuildOptions {
  /** False: what has been filled and compared stays beside. */
  readonly flip: boolean;
  /** What was kept after a flip takes its place again. */
  readonly back?: boolean;
  readonly onProgress?: (progress: RebuildProgress) => void;
  readonly onCompared?: (comparison: Comparison) => void;
  /** The log no longer holds what was before its oldest event: called before anything is filled. */
  readonly onTrimmed?: (bounds: Bounds) => Promise<void>;
}

export interface RebuildOutcome {
  readonly name: string;
  readonly flipped: boolean;
  readonly comparison: Comparison;
  /** How far it had come. */
  readonly offset: Offset;
  /** Events that it has folded now, and in how long. */
  readonly events: number;
  readonly seconds: number;
  /** Of these seconds, how many until it had come to the end of the log. */
  readonly fillSeconds: number;
}

/** A processor's state that can be made anew beside the live one. */
export interface Rebuildable {
  readonly name: string;
  status(): Promise<BesideStatus | undefined>;
  /**
   * Fills, compares and flips; goes on where another one was interrupted. The live state changes in the flip only.
   * @throws HeadwaterError `rebuild_kept`, `rebuild_missing` (refused)
   */
  rebuild(options: RebuildOptions): Promise<RebuildOutcome>;
  /**
   * Removes what stands beside, when it is in the expected state.
   * @throws HeadwaterError `rebuild_busy`, `rebuild_kept`, `rebuild_filling` (refused)
   */
  remove(expected: 'filling' | 'kept'): Promise<boolean>;
}

/** What a rebuild stands on: the parts of the processor's runner, with a store beside the live one. */
export interface RebuildParts<Effects> extends Omit<RunnerParts<Effects>, 'store' | 'mend'> {
  readonly beside: Beside<Effects>;
}

/** Makes a processor's state rebuildable; the processor must be an instance of its own. */
export function rebuildable<Effects>(context: RoleContext, parts: RebuildParts<Effects>): Rebuildable {
  const { beside } = parts;
  return {
    name: beside.name,
    status: () => beside.status(),
    rebuild: (options) => new Rebuild(context, parts, options).run(),
    remove: (expected) => remove(beside, expected, context.signal),
  };
}

const lookMs = 200;
const reachMs = 5_000;
const leaseMs = 10_000;
const mostLetters = 10_000;

class Rebuild<Effects> {
  readonly #context: RoleContext;
  readonly #parts: RebuildParts<Effects>;
  readonly #options: RebuildOptions;
  readonly #beside: Beside<Effects>;
  readonly #log: GatedLog;
  readonly #store: HeldStore<Effects>;
  readonly #stopping = new AbortController();
  /** Ends the fold alone. */
  readonly #folding = new AbortController();
  readonly #rates: { readonly at: number; readonly seq: Seq }[] = [];
  #fillSeconds = 0;
  readonly #letters: DeadLetter[] = [];
  #bounds!: Bounds;
  #begun: Seq | undefined;

  constructor(context: RoleContext, parts: RebuildParts<Effects>, options: RebuildOptions) {
    this.#context = context;
    this.#parts = parts;
    this.#options = options;
    this.#beside = parts.beside;
    this.#log = new GatedLog(parts.eventLog);
    this.#store = new HeldStore(parts.beside.store);
  }

  run(): Promise<RebuildOutcome> {
    return linked(this.#context.signal, this.#stopping, async () => {
      this.#bounds = await this.#parts.eventLog.bounds();
      await this.#prepare();
      const { beside: _, ...parts } = this.#parts;
      const context = { ...this.#context, signal: AbortSignal.any([this.#stopping.signal, this.#folding.signal]) };
      const runner = startRunner(context, {
        ...parts,
        eventLog: this.#log,
        store: this.#store,
        deadLetters: { publish: (letter) => this.#bury(letter) },
        leaseMs,
        mend: async () => {
          if (this.#options.back) return false;
          await this.#beside.clear();
          return true;
        },
      });
      const begun = performance.now();
      try {
        const comparison = await this.#whileFolding(runner, async () => {
          await this.#fill();
          this.#fillSeconds = (performance.now() - begun) / 1_000;
          return this.#compareAndFlip();
        });
        const offset = this.#store.at!;
        const events = offset.seq - (this.#begun ?? offset.seq);
        const { name } = this.#beside;
        const seconds = (performance.now() - begun) / 1_000;
        return { name, flipped: this.#options.flip, comparison, offset, events, seconds, fillSeconds: this.#fillSeconds };
      } finally {
        // A fold that nobody steers any more must not change what stands beside.
        if (this.#options.flip) this.#end();
        await runner.stop();
      }
    });
  }

  #end(): void {
    this.#folding.abort();
    this.#store.close();
  }

  /** The work's outcome, or the reason for which the fold has ended by itself. */
  #whileFolding<T>(runner: Role, work: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      work().then(resolve, reject);
      runner.done
        .then(() => {
          this.#stopping.signal.throwIfAborted();
          if (!this.#folding.signal.aborted) throw new HeadwaterError('rebuild_ended', 'the fold has ended before it was done');
        })
        .catch(reject);
    });
  }

  /** Finishes what was interrupted, and sees to it that what is to be worked on is there. */
  async #prepare(): Promise<void> {
    const { name } = this.#beside;
    const { back, onTrimmed } = this.#options;
    let status = await this.#beside.status();
    if (status?.state === 'dropping') {
      await this.#beside.remove(this.#stopping.signal);
      status = undefined;
    }
    if (back) {
      if (status?.state === 'kept') return;
      throw refused(
        'rebuild_missing',
        `there is no former state of ${name} to go back to`,
        `\`headwater rebuild ${name}\` makes a new one`,
      );
    }
    if (status?.state === 'kept')
      throw refused(
        'rebuild_kept',
        `the former state of ${name} is still kept, since ${status.since}`,
        `remove it with \`headwater rebuild ${name} --drop\`, or go back to it with --flip`,
      );
    if (status) return;
    if (this.#bounds.first > this.#bounds.epochStart) await onTrimmed?.(this.#bounds);
    this.#stopping.signal.throwIfAborted();
    await this.#beside.begin();
  }

  async #compareAndFlip(): Promise<Comparison> {
    const steering = this.#steering();
    for (;;) {
      this.#show('comparing');
      const comparison = await this.#beside.compare(steering);
      this.#options.onCompared?.(comparison);
      if (!this.#options.flip || (await this.#flip(steering))) return comparison;
    }
  }

  /** Until it has come to where the log ended a moment ago, or the live state is. */
  async #fill(): Promise<void> {
    const { signal } = this.#stopping;
    for (let before: Seq | undefined; ;) {
      signal.throwIfAborted();
      const live = await this.#follow();
      const at = this.#store.at;
      if (at) this.#begun ??= at.seq;
      const known = before !== undefined && at?.epoch === this.#bounds.epoch;
      if (known && at.seq >= (live ? Math.min(live.seq, before!) : before!)) return;
      this.#show(at ? 'filling' : 'waiting');
      this.#bounds = await untilItWorks('log', () => this.#parts.eventLog.bounds(), { ...this.#context, signal });
      before = this.#bounds.last;
      await pause(lookMs, signal);
    }
  }

  /** Keeps the fold behind the live one, where it must not overtake. Undefined when there is nothing to stay behind. */
  async #follow(): Promise<Offset | undefined> {
    if (!this.#beside.follows) return undefined;
    const { signal } = this.#stopping;
    const status = await untilItWorks('state store', () => this.#beside.status(), { ...this.#context, signal });
    const live = status?.live?.epoch === this.#bounds.epoch ? status.live : undefined;
    this.#log.limit = live?.seq ?? Infinity;
    return live;
  }

  /** What is missing in this state, too, has its letter; what operators want redriven is for the live state alone. */
  async #bury(letter: DeadLetter): Promise<void> {
    await this.#parts.deadLetters.publish(letter);
    if (this.#letters.length < mostLetters) this.#letters.push(letter);
  }

  /** False when another comparison is due. */
  async #flip(steering: Steering): Promise<boolean> {
    const { signal } = this.#stopping;
    this.#show('flipping');
    // Redriven into the live state meanwhile, a letter is gone that this state still needs.
    for (const letter of this.#letters.splice(0)) await this.#parts.deadLetters.publish(letter);
    let outcome: FlipOutcome = 'behind';
    const attempt = async (): Promise<void> => {
      if (outcome !== 'behind') return;
      outcome = await this.#beside.flip(steering, this.#options.back ? 'kept' : 'filling');
      if (outcome === 'flipped') this.#end();
    };
    if (this.#beside.follows) {
      // It steers the fold itself, so the fold must not wait for it.
      while (outcome === 'behind') await attempt().then(() => pause(10, signal));
      signal.throwIfAborted();
      return outcome === 'flipped';
    }
    await this.#store.still(attempt);
    let failure: Error | undefined;
    // Right behind a commit it is ahead of the live one, as often as not.
    this.#store.afterCommit = () => attempt().catch((error: unknown) => void (failure ??= error as Error));
    try {
      while (outcome === 'behind' && failure === undefined) {
        signal.throwIfAborted();
        this.#show('flipping');
        await pause(20, signal);
      }
    } finally {
      this.#store.afterCommit = undefined;
    }
    if (failure !== undefined) throw failure;
    return (outcome as FlipOutcome) === 'flipped';
  }

  #steering(): Steering {
    const { signal } = this.#stopping;
    return {
      signal,
      progress: (detail) => this.#show('comparing', detail),
      still: (work) => this.#store.still(work),
      reach: async (seq) => {
        const until = performance.now() + reachMs;
        this.#log.limit = seq;
        while ((this.#store.at?.seq ?? 0) < seq && performance.now() < until) {
          signal.throwIfAborted();
          await pause(2, signal);
        }
        return this.#store.at?.seq === seq;
      },
    };
  }

  #show(phase: RebuildProgress['phase'], detail?: string): void {
    const { name } = this.#beside;
    const { last, first } = this.#bounds;
    const seq = this.#store.at?.seq ?? 0;
    const standingBy = this.#context.health.checks.some(
      (check) => check.name === this.#parts.processor.name && /standing by/.test(check.detail),
    );
    this.#rates.push({ at: performance.now(), seq });
    if (this.#rates.length > 25) this.#rates.shift();
    const [oldest] = this.#rates;
    const rate = ((seq - oldest!.seq) * 1_000) / Math.max(1, performance.now() - oldest!.at);
    const said = detail ?? (standingBy ? 'another rebuild is at work, or was a moment ago: waiting for it' : undefined);
    this.#options.onProgress?.({ name, phase, seq, first, last, rate, ...(said !== undefined && { detail: said }) });
  }
}

async function remove<Effects>(beside: Beside<Effects>, expected: 'filling' | 'kept', signal: AbortSignal): Promise<boolean> {
  const { name } = beside;
  const status = await beside.status();
  if (!status) return false;
  if (status.state === 'kept' && expected === 'filling')
    throw refused(
      'rebuild_kept',
      `the rebuild of ${name} has been flipped; what stands beside is the former state`,
      '--drop removes it, --flip goes back to it',
    );
  if (status.state === 'filling' && expected === 'kept')
    throw refused('rebuild_filling', `what stands beside ${name} has not been flipped yet`, '--flip flips it, --abort removes it');
  const owner = `remove:${randomUUID()}`;
  const until = performance.now() + leaseMs + 2_000;
  // Whoever was killed has it until it lapses.
  while (!(await beside.store.lease(owner, 60_000))) {
    if (performance.now() > until)
      throw refused('rebuild_busy', `a rebuild of ${name} is at work`, 'end it first (Ctrl-C): it can go on later, or be aborted then');
    await pause(500, signal);
    signal.throwIfAborted();
  }
  try {
    await beside.remove(signal);
  } finally {
    await beside.store.release(owner);
  }
  return true;
}
