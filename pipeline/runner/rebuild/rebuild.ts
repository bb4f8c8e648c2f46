import { randomUUID } from 'node:crypto';
import type { Bounds, Seq } from '../../log/event-log.ts';
import { pause, untilItWorks } from '../../runtime/backoff.ts';
import { HeadwaterError, messageOf, refused } from '../../runtime/errors.ts';
import type { Role, RoleContext } from '../../runtime/lifecycle.ts';
import { linked } from '../../runtime/tasks.ts';
import { Lease } from '../lease.ts';
import { stopsProcessor } from '../offset-check.ts';
import { startRunner } from '../runner.ts';
import type { Offset } from '../state-store.ts';
import { askToFlip } from './flip.ts';
import { GatedLog, HeldStore } from './gate.ts';
import { RebuildLetters } from './letters.ts';
import {
  leaseMs,
  type Beside,
  type BesideStatus,
  type Comparison,
  type FlipOutcome,
  type Rebuildable,
  type RebuildOptions,
  type RebuildOutcome,
  type RebuildParts,
  type RebuildProgress,
  type Refilled,
  type Steering,
} from './model.ts';
import { Rate } from './rate.ts';
import { overtaken, requireWorkable } from './refusals.ts';
import { remove } from './remove.ts';

/** Makes a processor's state rebuildable; the processor must be an instance of its own. */
export function rebuildable<Effects>(context: RoleContext, parts: RebuildParts<Effects>): Rebuildable {
  const { beside } = parts;
  return {
    name: beside.name,
    status: () => beside.status(),
    rebuild: (options) => new Rebuild(context, parts, options).run(),
    remove: (expected) => remove(beside, expected, context),
  };
}

const lookMs = 200;
const reachMs = 5_000;
const atWork = 'another rebuild is at work, or was a moment ago: waiting for it';

class Rebuild<Effects> {
  readonly #context: RoleContext;
  readonly #parts: RebuildParts<Effects>;
  readonly #options: RebuildOptions;
  readonly #beside: Beside<Effects>;
  readonly #log: GatedLog;
  readonly #store: HeldStore<Effects>;
  readonly #lease: Lease;
  readonly #letters: RebuildLetters;
  readonly #stopping = new AbortController();
  /** Ends the fold alone. */
  readonly #folding = new AbortController();
  readonly #rate = new Rate();
  #fillSeconds = 0;
  #filled = false;
  #bounds!: Bounds;
  /** Which making is worked on. */
  #making: string | undefined;

  constructor(context: RoleContext, parts: RebuildParts<Effects>, options: RebuildOptions) {
    const { beside, eventLog } = parts;
    const owner = `rebuild:${randomUUID()}`;
    this.#context = context;
    this.#parts = parts;
    this.#options = options;
    this.#beside = beside;
    this.#log = new GatedLog(eventLog);
    this.#store = new HeldStore(beside.store, owner, async () => void (await this.#check()));
    this.#lease = new Lease(beside.store, owner, leaseMs, context.log);
    this.#letters = new RebuildLetters({ ...parts, beside }, context.log);
  }

  run(): Promise<RebuildOutcome> {
    const { signal } = this.#stopping;
    return linked(this.#context.signal, this.#stopping, async () => {
      this.#bounds = await this.#parts.eventLog.bounds();
      const seen = await this.#beside.status();
      requireWorkable(this.#beside.name, seen, this.#options);
      await this.#lease.take(signal, () => this.#show('waiting', atWork));
      try {
        await this.#lease.during(() => this.#prepare(seen));
        return await this.#work();
      } finally {
        await this.#lease.release();
      }
    });
  }

  async #work(): Promise<RebuildOutcome> {
    const { beside: _, ...parts } = this.#parts;
    const context = { ...this.#context, signal: AbortSignal.any([this.#stopping.signal, this.#folding.signal]) };
    const runner = startRunner(context, {
      ...parts,
      eventLog: this.#log,
      store: this.#store,
      deadLetters: this.#letters,
      leaseMs,
      mend: () => this.#mend(),
    });
    const begun = performance.now();
    try {
      const comparison = await this.#whileFolding(runner, async () => {
        await this.#fill();
        this.#filled = true;
        this.#fillSeconds = (performance.now() - begun) / 1_000;
        return this.#compareAndFlip();
      });
      const offset = this.#store.at!;
      const events = offset.seq - this.#store.from!.seq;
      const { name } = this.#beside;
      const seconds = (performance.now() - begun) / 1_000;
      return { name, flipped: this.#options.flip, comparison, offset, events, seconds, fillSeconds: this.#fillSeconds };
    } finally {
      // A fold that nobody steers any more must not change what stands beside.
      if (this.#options.flip) this.#end();
      await runner.stop();
      // Nor may anybody go on steering what has ended.
      this.#stopping.abort();
    }
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

  /** With the lease: finishes what was interrupted, and sees to it that what is to be worked on is there. `seen`: what was there before the lease was. */
  async #prepare(seen: BesideStatus | undefined): Promise<void> {
    let status = await this.#beside.status();
    // It may have waited for long.
    if (seen && seen.state !== 'dropping' && (status?.state !== seen.state || status.since !== seen.since))
      throw overtaken(this.#beside.name);
    if (status?.state === 'dropping') {
      await this.#beside.claim(status);
      await this.#beside.remove(this.#stopping.signal);
      status = undefined;
    }
    requireWorkable(this.#beside.name, status, this.#options);
    if (status) this.#making = await this.#beside.claim(status);
    if (!this.#options.back && !status?.offset) {
      const refilled = await this.#refill();
      if (!status) this.#making = await this.#beside.begin(refilled);
      // Whatever may be left there of others, or of a beginning that was interrupted.
      await this.#beside.clear(refilled);
    }
  }

  /** Sees to it that the log holds what it has lost. */
  async #refill(): Promise<Refilled | undefined> {
    const { first, epoch, epochStart: from } = this.#bounds;
    const by = first > from ? await this.#options.onTrimmed?.(this.#bounds) : undefined;
    this.#stopping.signal.throwIfAborted();
    return by === undefined ? undefined : { epoch, from, by };
  }

  /** The log is not the one any more that the fold has come so far in. */
  async #mend(): Promise<boolean> {
    // What has been compared is not emptied while it is waited for the flip.
    if (this.#options.back || this.#filled) return false;
    this.#bounds = await this.#parts.eventLog.bounds();
    const refilled = await this.#refill().catch((error: unknown) => {
      if (this.#stopping.signal.aborted || stopsProcessor(error)) throw error;
      // It is not the store that is away, and is not tried for ever.
      throw refused(
        'rebuild_refill',
        `the log no longer holds all, and what is missing could not be asked for: ${messageOf(error)}`,
        'give the same command again',
      );
    });
    await this.#beside.clear(refilled);
    this.#store.restart();
    return true;
  }

  /** @throws HeadwaterError `rebuild_overtaken` when what stands beside is not what this one works on */
  async #check(): Promise<BesideStatus> {
    const status = await this.#beside.status();
    if (status?.making !== this.#making || !status) throw overtaken(this.#beside.name);
    return status;
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
    const status = await untilItWorks('state store', () => this.#check(), { ...this.#context, signal });
    const live = status.live?.epoch === this.#bounds.epoch ? status.live : undefined;
    this.#log.limit = live?.seq ?? Infinity;
    return live;
  }

  /** False when another comparison is due. */
  async #flip(steering: Steering): Promise<boolean> {
    const { signal } = this.#stopping;
    this.#show('flipping');
    await untilItWorks('dead letters', () => this.#letters.complete(), { ...this.#context, signal });
    let outcome: FlipOutcome = 'behind';
    const attempt = async (): Promise<void> => {
      if (outcome !== 'behind') return;
      outcome = await askToFlip(this.#beside, steering);
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
      reach: async (seq, withinMs = reachMs) => {
        const until = performance.now() + withinMs;
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
    const rate = this.#rate.at(seq);
    const said = detail ?? (standingBy ? atWork : undefined);
    this.#options.onProgress?.({ name, phase, seq, first, last, rate, ...(said !== undefined && { detail: said }) });
  }
}
