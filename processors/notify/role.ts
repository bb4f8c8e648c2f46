import { setMaxListeners } from 'node:events';
import type { PgPool } from '../../pipeline/clients/postgres.ts';
import { pause, untilItWorks } from '../../pipeline/runtime/backoff.ts';
import { messageOf } from '../../pipeline/runtime/errors.ts';
import type { Role, RoleContext } from '../../pipeline/runtime/lifecycle.ts';
import { aborted, startWork, type Work } from '../../pipeline/runtime/tasks.ts';
import type { RuleCondition } from '../../schemas/condition/condition.ts';
import { attemptOf, type Channels } from './delivery.ts';
import { Dispatcher } from './dispatcher.ts';
import { JobStore, type ClaimedJob, type Verdict } from './job-store.ts';
import { Bell, listenToOutbox } from './listener.ts';
import { notifyMetrics, type NotifyMetrics } from './metrics.ts';
import { channelNames, type NotifyOptions } from './options.ts';
import { planNext, type PlannerParts } from './planner.ts';
import type { ReadyJob } from './plan-store.ts';
import { Queues } from './queues.ts';
import { prune } from './retention.ts';

export interface NotifyParts {
  readonly pool: PgPool;
  /** For the connection that listens, which no pool should hold. */
  readonly databaseUrl: string;
  readonly redisUrl: string;
  /** Of all keys in Redis, `{hw}:bull`. */
  readonly prefix: string;
  /** Closed with the role. */
  readonly channels: Channels;
  /** A condition as text, for people. */
  readonly text: (condition: RuleCondition) => string;
  readonly options: NotifyOptions;
}

const metricsMs = 5_000;
const expireMs = 60_000;
const pruneMs = 3_600_000;
/** How long a stop waits for PostgreSQL to take the outcomes of the last attempts. */
const keepMs = 3_000;

/**
 * Plans and delivers notifications. Any number of instances may run: one at a time plans, all deliver. PostgreSQL is waited for,
 * Redis is done without while it is away.
 */
export class Notify implements Role {
  readonly name = 'notify';
  readonly #work: Work;
  readonly #context: RoleContext;
  readonly #parts: NotifyParts;
  readonly #planner: PlannerParts;
  readonly #store: JobStore;
  readonly #dispatcher: Dispatcher;
  readonly #queues: Queues;
  readonly #metrics: NotifyMetrics;
  readonly #bell = new Bell();
  /** Nothing new is begun. */
  readonly #stopping = new AbortController();
  /** What is under way is cut off. */
  readonly #ending = new AbortController();

  constructor(context: RoleContext, parts: NotifyParts) {
    const { options, pool, redisUrl, prefix, channels, text } = parts;
    const { log } = context;
    this.#context = context;
    this.#parts = parts;
    this.#metrics = notifyMetrics(context.metrics);
    this.#store = new JobStore(pool, options);
    this.#planner = { pool, options, text, log, configured: new Set(channelNames.filter((name) => channels[name])) };
    this.#dispatcher = new Dispatcher({
      options,
      log,
      claim: (endpoint, jobId) => this.#store.claim(endpoint, jobId),
      attempt: (job) => this.#attempt(job),
    });
    const work = (endpoint: string, jobId: string): Promise<void> => this.#dispatcher.offer(endpoint, jobId);
    this.#queues = new Queues({ redisUrl, prefix, concurrency: options.concurrency, log, work });
    // Each attempt under way listens: there is no leak to warn of.
    setMaxListeners(0, this.#ending.signal);
    this.#work = startWork(context.signal, this.#stopping, () => this.#run());
  }

  get done(): Promise<void> {
    return this.#work.done;
  }

  stop(): Promise<void> {
    return this.#work.stop();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    const { log } = this.#context;
    const { sweepMs } = this.#parts.options;
    // At once with the stop, whatever the others still wait for.
    const finished = aborted(signal).then(() => this.#finish());
    try {
      await Promise.all([
        this.#plan(),
        listenToOutbox(this.#parts.databaseUrl, this.#bell, { signal, log }),
        this.#each(sweepMs, () => this.#sweep()),
        this.#each(expireMs, async () => (await this.#store.expire()).forEach((channel) => this.#metrics.delivery(channel, 'expired'))),
        this.#each(pruneMs, () => prune(this.#parts.pool, this.#parts.options.keepMs, signal)),
        this.#each(metricsMs, async () => this.#metrics.queues(await this.#store.depths(), await this.#store.openBreakers())),
      ]);
    } finally {
      this.#stopping.abort();
      await finished;
    }
  }

  async #plan(): Promise<void> {
    const { signal } = this.#stopping;
    const { health, log } = this.#context;
    while (!signal.aborted) {
      try {
        const { ready, more } = await untilItWorks('notify: planning', () => this.#planOnce(), { signal, log });
        await this.#handOver(ready);
        health.report(this.name, true, 'working');
        // The poll is a second net, and closes digests when nothing rings.
        if (!more) await this.#bell.wait(this.#parts.options.sweepMs, signal);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    }
  }

  async #planOnce(): ReturnType<typeof planNext> {
    try {
      return await planNext(this.#planner);
    } catch (error) {
      this.#context.health.report(this.name, false, messageOf(error));
      throw error;
    }
  }

  /** To the queues; without Redis straight to this process. */
  async #handOver(ready: readonly ReadyJob[]): Promise<void> {
    if (ready.length === 0) return;
    this.#metrics.planned(ready.length);
    const { health, log } = this.#context;
    try {
      await this.#queues.add(ready);
      health.report('notify queues', true, '', false);
    } catch (error) {
      log.debug({ error: messageOf(error) }, 'notify: going on without Redis');
      health.report('notify queues', false, 'Redis is away: notifications are delivered from PostgreSQL', false);
      for (const endpoint of new Set(ready.map((job) => job.endpoint))) this.#dispatcher.wake(endpoint);
    }
  }

  /** Whatever is due and nobody works on: retries, what Redis has lost, what processes that died have left. */
  async #sweep(): Promise<void> {
    await this.#store.reap();
    await this.#store.release();
    for (const endpoint of await this.#store.due()) this.#dispatcher.wake(endpoint);
  }

  async #attempt(job: ClaimedJob): Promise<boolean> {
    const { channels, options } = this.#parts;
    const verdict = await attemptOf(job, channels, options, this.#ending.signal);
    const became = await this.#keep(job, verdict);
    const { outcome } = verdict.attempt;
    this.#metrics.delivery(job.channel, outcome);
    if (became === 'dead') this.#context.log.warn({ job: job.jobId, outcome, answer: verdict.attempt.answer }, 'notify: given up');
    return verdict.endpoint !== 'failing';
  }

  /** The outcome is all there is of an attempt: PostgreSQL is waited for until nobody else would believe it any more. */
  async #keep(job: ClaimedJob, verdict: Verdict): Promise<string | undefined> {
    const { signal } = this.#ending;
    const until = performance.now() + this.#parts.options.leaseMs;
    for (let n = 0; ; n++) {
      try {
        return await this.#store.finish(job, verdict, shown(job));
      } catch (error) {
        if (performance.now() > until || (signal.aborted && n > 2)) throw error;
        this.#context.log.debug({ job: job.jobId, error: messageOf(error) }, 'notify: the outcome cannot be kept yet');
        await pause(50 * 2 ** Math.min(n, 5));
      }
    }
  }

  /** Now and again until the stop; PostgreSQL being away is said by the planner. */
  async #each(ms: number, task: () => Promise<void>): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      await task().catch((error: unknown) => this.#context.log.debug({ error: messageOf(error) }, 'notify: has to wait'));
      await pause(ms * (0.75 + Math.random() / 2), signal);
    }
  }

  /** Attempts under way have some time; then they are cut off, and what cannot even be kept of them is left to others. */
  async #finish(): Promise<void> {
    const waited = new AbortController();
    const stopped = this.#dispatcher.stop().then(() => waited.abort());
    await pause(this.#parts.options.stopMs, waited.signal);
    this.#ending.abort(new Error('the program stops'));
    await pause(keepMs, waited.signal);
    await Promise.all([this.#queues.close(), ...Object.values(this.#parts.channels).map((channel) => channel?.close())]);
    if (waited.signal.aborted) await stopped;
  }
}

/** The target as the log of attempts shows it: parts of a URL can be secrets. */
function shown({ channel, address, endpoint }: ClaimedJob): string {
  if (channel === 'webhook') return endpoint.slice('webhook '.length) || '(not a URL)';
  return address.to ?? address.deviceId ?? '';
}
