import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import type { EventLog } from '../log/event-log.ts';
import { backoffMs, pause } from '../runtime/backoff.ts';
import { messageOf, type HeadwaterError } from '../runtime/errors.ts';
import type { Role, RoleContext } from '../runtime/lifecycle.ts';
import { startWork, type Work } from '../runtime/tasks.ts';
import type { DeadLetters } from './dead-letters.ts';
import type { BatchLimits } from './group-commit.ts';
import { Lease } from './lease.ts';
import { stopsProcessor } from './offset-check.ts';
import type { Processor } from './processor.ts';
import { runnerMetrics } from './runner-metrics.ts';
import { Session, type SessionParts } from './session.ts';
import type { Offset, StateStore } from './state-store.ts';

export interface RunnerParts<Effects> {
  readonly eventLog: EventLog;
  readonly processor: Processor<Effects>;
  readonly store: StateStore<Effects>;
  readonly deadLetters: DeadLetters;
  /** What it is called to metrics and health, where two of the same name are at work (default: its processor's name). */
  readonly label?: string;
  /**
   * Fills the processor's memory with what the store holds, after its `reset` and before its first event; as often as it takes
   * to have it at one offset. Without it a processor keeps nothing in memory, or finds it as it goes.
   */
  readonly load?: () => Promise<void>;
  /** Told of what is in the store now, after each commit. */
  readonly onCommitted?: (effects: Effects, offset: Offset) => void;
  /** How long an instance that died keeps the others waiting (default 10 s). */
  readonly leaseMs?: number;
  /** Most of one commit (default 1,000 events, 4 MiB of them). */
  readonly limits?: Partial<BatchLimits>;
  /**
   * Asked when the processor would stop since its offset says nothing about the log any more (`offset_expired`,
   * `log_regressed`, `epoch_changed`): true when the state has been mended or made anew, and is to be loaded again.
   */
  readonly mend?: (reason: HeadwaterError) => Promise<boolean>;
}

const mendable = new Set(['offset_expired', 'log_regressed', 'epoch_changed']);

/**
 * Runs a processor: reads the log from the processor's own durable offset, applies events in order, and commits effects
 * and offset in one step. Of several instances one works, the others wait for its lease.
 */
export function startRunner<Effects>(context: RoleContext, parts: RunnerParts<Effects>): Role {
  return { name: labelOf(parts), ...new Runner(context, parts).work };
}

function labelOf<Effects>({ label, processor }: RunnerParts<Effects>): string {
  return label ?? processor.name;
}

class Runner<Effects> {
  readonly work: Work;
  readonly #context: RoleContext;
  readonly #parts: RunnerParts<Effects>;
  readonly #session: SessionParts<Effects>;
  readonly #lease: Lease;
  readonly #stopping = new AbortController();

  constructor(context: RoleContext, parts: RunnerParts<Effects>) {
    const label = labelOf(parts);
    this.#context = context;
    this.#parts = parts;
    this.#lease = new Lease(parts.store, `${hostname()}:${process.pid}:${randomUUID()}`, parts.leaseMs ?? 10_000, context.log);
    this.#session = {
      ...parts,
      tickSubject: `${context.config.subject}._tick`,
      limits: { events: 1_000, bytes: 4 * 1024 ** 2, ...parts.limits },
      metrics: runnerMetrics(context.metrics, label),
      log: context.log,
      onHealth: (ok, detail) => context.health.report(label, ok, detail),
    };
    this.work = startWork(context.signal, this.#stopping, () => this.#run());
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    try {
      for (let attempt = 0; !signal.aborted;) {
        attempt = (await this.#turn()) ? 0 : attempt + 1;
        if (attempt > 0) await pause(backoffMs(attempt), signal);
      }
    } catch (error) {
      this.#context.health.report(labelOf(this.#parts), false, messageOf(error));
      throw error;
    } finally {
      this.#session.metrics.working(false);
      await this.#lease.release();
    }
  }

  /** Waits for the lease and works while it lasts. False when something was away and a pause is due. */
  async #turn(): Promise<boolean> {
    const { name } = this.#parts.processor;
    try {
      await this.#lease.take(this.#stopping.signal, () => this.#standBy());
    } catch (error) {
      if (this.#stopping.signal.aborted) return true;
      throw error;
    }
    const ending = new AbortController();
    const signal = AbortSignal.any([this.#stopping.signal, ending.signal]);
    const leased = this.#lease.keep(signal).then((kept) => {
      if (kept) return;
      this.#context.log.warn(`${name}: another instance has taken over, standing by`);
      ending.abort();
    });
    this.#session.metrics.working(true);
    this.#context.health.report(labelOf(this.#parts), true, 'working');
    try {
      if ((await new Session(this.#session, signal).run()) === 'lost')
        this.#context.log.warn(`${name}: the stored offset is not the expected one, loading again`);
      return true;
    } catch (error) {
      return await this.#judge(error, signal);
    } finally {
      ending.abort();
      await leased;
    }
  }

  /** What an error of a session asks for: an end, another session at once (true), or one after a pause (false). */
  async #judge(error: unknown, signal: AbortSignal): Promise<boolean> {
    if (signal.aborted && !stopsProcessor(error)) return true;
    if (stopsProcessor(error)) {
      if (!mendable.has(error.code) || !this.#parts.mend) throw error;
      return this.#mended(error, this.#parts.mend);
    }
    this.#context.log.warn(
      { error: messageOf(error) },
      `${this.#parts.processor.name}: interrupted, starting again from the stored offset`,
    );
    return false;
  }

  async #mended(reason: HeadwaterError, mend: (reason: HeadwaterError) => Promise<boolean>): Promise<boolean> {
    try {
      if (await mend(reason)) return true;
    } catch (error) {
      if (stopsProcessor(error)) throw error;
      // A store that is away is waited for: the offset is still the one that asks for mending.
      this.#context.log.warn({ error: messageOf(error) }, `${this.#parts.processor.name}: its state could not be made anew yet`);
      return false;
    }
    throw reason;
  }

  #standBy(): void {
    const { name } = this.#parts.processor;
    // What it knows is of no use to anybody until it works again.
    this.#parts.processor.reset?.();
    this.#session.metrics.working(false);
    this.#context.health.report(labelOf(this.#parts), true, 'standing by: another instance works');
    this.#context.log.info(`${name}: another instance works, standing by`);
  }
}
