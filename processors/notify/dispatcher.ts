import { messageOf } from '../../pipeline/runtime/errors.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import type { ClaimedJob } from './job-store.ts';
import { Lane } from './lane.ts';
import type { ChannelName, NotifyOptions } from './options.ts';

export interface DispatcherParts {
  readonly options: NotifyOptions;
  /** The next due job of an endpoint, or the one named; undefined when there is none to be had. */
  readonly claim: (endpoint: string, jobId?: string) => Promise<ClaimedJob | undefined>;
  /** Makes the attempt and keeps its outcome. True: the endpoint works, and may be asked for more. */
  readonly attempt: (job: ClaimedJob) => Promise<boolean>;
  readonly log: Logger;
}

/**
 * Decides when an attempt begins, so that no endpoint takes what the others need: each has a lane with bounds of its own, and lanes
 * share the slots of their channel in turns. What has no room now is not kept in memory: PostgreSQL knows it, and the lane goes and
 * gets it when it has room again.
 */
export class Dispatcher {
  readonly #parts: DispatcherParts;
  readonly #lanes = new Map<string, Lane>();
  /** Lanes that have work and room, but no slot; the first has waited longest. */
  readonly #hungry = new Map<ChannelName, Set<Lane>>();
  readonly #inFlight = new Map<ChannelName, number>();
  readonly #running = new Set<Promise<void>>();
  #stopped = false;

  constructor(parts: DispatcherParts) {
    this.#parts = parts;
  }

  /** A job that is due. Settles when its attempt has ended, or at once when the endpoint has no room for it now. */
  async offer(endpoint: string, jobId: string): Promise<void> {
    if (this.#stopped) return;
    const lane = this.#lane(endpoint);
    if (!this.#roomFor(lane)) {
      lane.more = true;
      this.#pump(lane);
      return;
    }
    await this.#track(this.#run(lane, jobId));
  }

  /** Something of the endpoint may be due. */
  wake(endpoint: string): void {
    if (this.#stopped) return;
    const lane = this.#lane(endpoint);
    lane.more = true;
    this.#pump(lane);
  }

  get inFlight(): number {
    return [...this.#inFlight.values()].reduce((sum, n) => sum + n, 0);
  }

  /** Begins nothing more, and waits until everything begun has ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const lane of this.#lanes.values()) clearTimeout(lane.timer);
    await Promise.allSettled(this.#running);
  }

  #lane(endpoint: string): Lane {
    const known = this.#lanes.get(endpoint);
    if (known) return known;
    const now = performance.now();
    if (this.#lanes.size >= 1_000) for (const lane of this.#lanes.values()) if (lane.idle(now)) this.#lanes.delete(lane.endpoint);
    const lane = new Lane(endpoint, this.#parts.options.endpoints[channelOf(endpoint)], now);
    this.#lanes.set(endpoint, lane);
    return lane;
  }

  #hasSlot(channel: ChannelName): boolean {
    return (this.#inFlight.get(channel) ?? 0) < this.#parts.options.concurrency;
  }

  #roomFor(lane: Lane): boolean {
    return this.#hasSlot(channelOf(lane.endpoint)) && lane.hasRoom(performance.now());
  }

  /** Goes on with a lane that may have more to do, as far as there is room; otherwise sees to it that it goes on later. */
  #pump(lane: Lane): void {
    if (this.#stopped || !lane.more || lane.claiming || lane.timer !== undefined) return;
    const channel = channelOf(lane.endpoint);
    const waitMs = lane.waitMs(performance.now());
    if (waitMs > 0) {
      lane.timer = setTimeout(() => {
        lane.timer = undefined;
        this.#pump(lane);
      }, waitMs);
    } else if (!this.#hasSlot(channel)) {
      this.#hungryOf(channel).add(lane);
    } else if (this.#roomFor(lane)) {
      lane.claiming = true;
      void this.#track(this.#run(lane));
    }
    // With too much under way, the end of an attempt goes on.
  }

  #hungryOf(channel: ChannelName): Set<Lane> {
    const known = this.#hungry.get(channel);
    if (known) return known;
    const lanes = new Set<Lane>();
    this.#hungry.set(channel, lanes);
    return lanes;
  }

  /** One job from its claim to its outcome. Never rejects. */
  async #run(lane: Lane, jobId?: string): Promise<void> {
    const channel = channelOf(lane.endpoint);
    lane.begin();
    this.#inFlight.set(channel, (this.#inFlight.get(channel) ?? 0) + 1);
    let job: ClaimedJob | undefined;
    try {
      job = await this.#parts.claim(lane.endpoint, jobId);
      if (jobId === undefined) {
        lane.claiming = false;
        if (job) this.#pump(lane);
        else lane.more = false;
      }
      if (job && (await this.#parts.attempt(job)) && job.probe) lane.more = true;
    } catch (error) {
      // PostgreSQL is away, say. What is due is found again by the sweep, what was claimed when its lease has lapsed.
      if (jobId === undefined && !job) lane.more = lane.claiming = false;
      this.#parts.log.debug({ error: messageOf(error) }, `notify: ${job?.jobId ?? lane.endpoint} has to wait`);
    } finally {
      lane.end(job === undefined);
      this.#inFlight.set(channel, this.#inFlight.get(channel)! - 1);
      this.#next(channel);
      this.#pump(lane);
    }
  }

  /** A slot is free: lanes that wait have their turns, the longest waiting first, until one of them takes it. */
  #next(channel: ChannelName): void {
    const lanes = this.#hungryOf(channel);
    for (const lane of lanes) {
      if (!this.#hasSlot(channel)) return;
      lanes.delete(lane);
      this.#pump(lane);
    }
  }

  #track(run: Promise<void>): Promise<void> {
    this.#running.add(run);
    return run.finally(() => this.#running.delete(run));
  }
}

function channelOf(endpoint: string): ChannelName {
  return endpoint.slice(0, endpoint.indexOf(' ')) as ChannelName;
}
