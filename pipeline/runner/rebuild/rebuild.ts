import { randomUUID } from 'node:crypto';
import type { Bounds, Seq } from '../../log/event-log.ts';
import { backoffMs, pause, untilItWorks } from '../../runtime/backoff.ts';
import { HeadwaterError, messageOf, refused } from '../../runtime/errors.ts';
import type { Role, RoleContext } from '../../runtime/lifecycle.ts';
import { Speed } from '../../runtime/speed.ts';
import { linked } from '../../runtime/tasks.ts';
import { Lease } from '../lease.ts';
import { stopsProcessor } from '../offset-check.ts';
import { startRunner } from '../runner.ts';
import { flipWhenThere } from './flip.ts';
import { GatedLog, HeldStore } from './gate.ts';
import { RebuildLetters } from './letters.ts';
import {
  leaseMs,
  type Beside,
  type BesideStatus,
  type Comparison,
  type Rebuildable,
  type RebuildOptions,
  type RebuildOutcome,
  type RebuildParts,
  type RebuildProgress,
  type Refilled,
} from './model.ts';
import { overtaken, requireCompared, requireWhole, requireWorkable, type Whole } from './refusals.ts';
import { remove } from './remove.ts';
import { steer, type Steered } from './steering.ts';

/** Makes a processor's state rebuildable; the processor must be an instance of its own. */
export function rebuildable<Effects>(context: RoleContext, parts: RebuildParts<Effects>): Rebuildable {
  const { beside } = parts;
  return {
    name: beside.name,
    status: () => beside.status(),
    rebuild: (options) => new Rebuild(context, parts, options).run(),
    remove: (expected, progress) => remove(beside, expected, { ...context, progress }),
  };
}

const lookMs = 200;
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
  readonly #speed = new Speed();
  /** How long it took to come to the end of the log. */
  #fillSeconds: number | undefined;
  #bounds!: Bounds;
  /** Which making is worked on. */
  #making: string | undefined;
  /** Where a fold has to begin. */
  #whole: Whole | undefined;
  #phase: RebuildProgress['phase'] = 'waiting';

  constructor(context: RoleContext, parts: RebuildParts<Effects>, options: RebuildOptions) {
    const { beside, eventLog } = parts;
    const owner = `rebuild:${randomUUID()}`;
    this.#context = context;
    this.#parts = parts;
    this.#options = options;
    this.#beside = beside;
    this.#log = new GatedLog(eventLog);
    this.#store = new HeldStore(beside.store, {
      owner,
      check: async () => void (await this.#check()),
      requireBeginning: (offset) => requireWhole(beside.name, offset, this.#whole),
    });
    this.#lease = new Lease(beside.store, owner, leaseMs, context.log);
    this.#letters = new RebuildLetters({ ...parts, holes: () => beside.holes() }, context.log);
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
    const steering = this.#steering();
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
    const seconds = (): number => (performance.now() - begun) / 1_000;
    try {
      const comparison = await this.#whileFolding(runner, async () => {
        await this.#fill(steering);
        this.#fillSeconds = seconds();
        return this.#compareAndFlip(steering);
      });
      const offset = this.#store.at!;
      const events = offset.seq - this.#store.from!.seq;
      const { name } = this.#beside;
      const fillSeconds = this.#fillSeconds ?? 0;
      return { name, flipped: this.#options.flip, comparison, offset, events, seconds: seconds(), fillSeconds };
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
      await this.#beside.remove(this.#stopping.signal, (text) => this.#show('waiting', text));
      status = undefined;
    }
    requireWorkable(this.#beside.name, status, this.#options);
    if (status) this.#making = await this.#beside.claim(status);
    if (!this.#options.back && !status?.offset) {
      const refilled = await this.#refill();
      if (!status) this.#making = await this.#beside.begin(refilled);
      // Whatever may be left there of others, or of a beginning that was interrupted.
      await this.#beside.clear(refilled, (text) => this.#show('waiting', text));
    }
  }

  /** Sees to it that the log holds what it has lost. */
  async #refill(): Promise<Refilled | undefined> {
    const bounds = await this.#parts.eventLog.bounds();
    this.#bounds = bounds;
    const { first, epoch, epochStart: from } = bounds;
    const by = first > from ? await this.#options.onTrimmed?.(bounds) : undefined;
    this.#stopping.signal.throwIfAborted();
    this.#whole = first > from && by === undefined ? undefined : { epoch, by: by ?? from };
    return by === undefined ? undefined : { epoch, from, by };
  }

  /** The log is not the one any more that the fold has come so far in. */
  async #mend(): Promise<boolean> {
    // What has been compared is not emptied while it is waited for the flip.
    if (this.#options.back || this.#fillSeconds !== undefined) return false;
    const refilled = await this.#refill().catch((error: unknown) => {
      if (this.#stopping.signal.aborted || stopsProcessor(error)) throw error;
      // It is not the store that is away, and is not tried for ever.
      throw refused(
        'rebuild_refill',
        `the log no longer holds all, and what is missing could not be asked for: ${messageOf(error)}`,
        'give the same command again',
      );
    });
    await this.#beside.clear(refilled, (text) => this.#show('waiting', text));
    this.#store.restart();
    return true;
  }

  /** @throws HeadwaterError `rebuild_overtaken` when what stands beside is not what this one works on */
  async #check(): Promise<BesideStatus> {
    const status = await this.#beside.status();
    if (status?.making !== this.#making || !status) throw overtaken(this.#beside.name);
    return status;
  }

  async #compareAndFlip(steering: Steered): Promise<Comparison> {
    for (let n = 0; ; n++) {
      this.#stopping.signal.throwIfAborted();
      this.#show('comparing');
      const comparison = await this.#beside.compare(steering);
      this.#options.onCompared?.(comparison);
      if (!this.#options.flip) return comparison;
      requireCompared(this.#beside.name, comparison, this.#options);
      if (await this.#flip(steering)) return comparison;
      await pause(backoffMs(n), this.#stopping.signal);
    }
  }

  /** Until it has come to where the log ended a moment ago, or the live state was. */
  async #fill(steering: Steered): Promise<void> {
    const { signal } = this.#stopping;
    for (let goal: Seq | undefined; ;) {
      signal.throwIfAborted();
      const live = await steering.follow(this.#bounds);
      const at = this.#store.at;
      if (goal !== undefined && at?.epoch === this.#bounds.epoch && at.seq >= goal) return;
      this.#show(at ? 'filling' : 'waiting');
      this.#bounds = await steering.bounds();
      goal = Math.min(live?.seq ?? Infinity, this.#bounds.last);
      await pause(lookMs, signal);
    }
  }

  /** False when another comparison is due. */
  async #flip(steering: Steered): Promise<boolean> {
    const { signal } = this.#stopping;
    this.#show('flipping');
    await untilItWorks('dead letters', () => this.#letters.complete(), { ...this.#context, signal });
    return flipWhenThere({
      beside: this.#beside,
      store: this.#store,
      steering,
      onFlipped: () => this.#end(),
      onWaiting: () => this.#show('flipping'),
    });
  }

  #steering(): Steered {
    return steer({
      gate: this.#log,
      store: this.#store,
      eventLog: this.#parts.eventLog,
      follows: this.#beside.follows,
      status: () => this.#check(),
      progress: (detail) => this.#show(this.#phase, detail),
      pausing: (long) => this.#options.onPause?.(long),
      signal: this.#stopping.signal,
      log: this.#context.log,
    });
  }

  #show(phase: RebuildProgress['phase'], detail?: string): void {
    this.#phase = phase;
    const { name } = this.#beside;
    const { last, first } = this.#bounds;
    const { at } = this.#store;
    const standingBy = this.#context.health.checks.some(
      (check) => check.name === this.#parts.processor.name && /standing by/.test(check.detail),
    );
    const rate = at && this.#speed.at(at.seq);
    const said = detail ?? (standingBy ? atWork : undefined);
    this.#options.onProgress?.({ name, phase, seq: at?.seq ?? 0, first, last, rate, ...(said !== undefined && { detail: said }) });
  }
}
