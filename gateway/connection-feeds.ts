import type { Seq } from '../pipeline/log/event-log.ts';
import type { Feed, FeedItem } from '../pipeline/runtime/feed.ts';
import { FeedSubscription, type FeedContext } from './feed-subscription.ts';
import type { GatewayMetrics } from './metrics.ts';
import type { Input, SubscriptionRequest } from './session-state.ts';
import { eventFrame } from './wire.ts';

/** The feeds of a gateway, and what connections share of them. */
export class Feeds {
  readonly context: FeedContext;
  readonly metrics: GatewayMetrics;
  /** Live subscriptions. */
  live = 0;
  readonly #feeds: readonly Feed[];
  /** Frames of live items: made once for all. */
  readonly #frames = new WeakMap<FeedItem, Buffer>();

  constructor(feeds: readonly Feed[], context: FeedContext, metrics: GatewayMetrics) {
    this.#feeds = feeds;
    this.context = context;
    this.metrics = metrics;
  }

  /** The feed that serves a channel; undefined when it is the log's. */
  of(channel: string): Feed | undefined {
    return this.#feeds.find(({ prefix }) => channel.startsWith(prefix));
  }

  frameOf(channel: string, item: FeedItem): Buffer {
    let frame = this.#frames.get(item);
    if (!frame) this.#frames.set(item, (frame = eventFrame(item.seq, channel, item.event)));
    return frame;
  }
}

/** What feeds need of the connection they are subscribed on. */
export interface FeedHost {
  dispatch(input: Input): void;
  /** Resolves with true when it is the turn of `who` to write. */
  turn(who: object, signal: AbortSignal): Promise<boolean>;
  pushLive(frame: Buffer): void;
}

interface Entry {
  readonly subscription: FeedSubscription;
  readonly abort: AbortController;
  joined: boolean;
}

/** The subscriptions of feeds on one connection. */
export class ConnectionFeeds {
  readonly #feeds: Feeds;
  readonly #host: FeedHost;
  readonly #entries = new Map<number, Entry>();
  /** Live items that were given: several subscriptions can want the same. */
  readonly #given = new WeakSet<FeedItem>();

  constructor(feeds: Feeds, host: FeedHost) {
    this.#feeds = feeds;
    this.#host = host;
  }

  /** Is there a live one? */
  get live(): boolean {
    for (const { joined } of this.#entries.values()) if (joined) return true;
    return false;
  }

  /** `position`, or less: how far the live ones have come. */
  reached(position: Seq): Seq {
    let seq = position;
    for (const { joined, subscription } of this.#entries.values()) if (joined) seq = Math.min(seq, subscription.passed);
    return seq;
  }

  /** Begins a subscription if a feed serves its channel. */
  begin(ref: number, request: SubscriptionRequest): boolean {
    const feed = this.#feeds.of(request.channel);
    if (!feed) return false;
    const { tail } = this.#feeds.context;
    const host = this.#host;
    const abort = new AbortController();
    const subscription = new FeedSubscription(
      request,
      feed,
      {
        positioned: (start, head, snapshotAsOf) =>
          host.dispatch({ type: 'positioned', ref, start, oldest: Math.min(tail.oldest, start), head, snapshotAsOf }),
        page: (items, more) => host.dispatch({ type: 'page', ref, items, more }),
        states: (items, through) => host.dispatch({ type: 'states', ref, items, through }),
        caughtUp: (seq) => host.dispatch({ type: 'caughtUp', ref, seq }),
        failed: (fault) => host.dispatch({ type: 'failed', ref, fault }),
        drained: () => host.turn(subscription, abort.signal),
        live: (item) => this.#give(request.channel, item),
      },
      this.#feeds.context,
    );
    this.#entries.set(ref, { subscription, abort, joined: false });
    void subscription.open();
    return true;
  }

  /** Marks it as live. */
  join(ref: number): void {
    const entry = this.#entries.get(ref);
    if (!entry || entry.joined) return;
    entry.joined = true;
    this.#feeds.live++;
  }

  leave(ref: number): void {
    const entry = this.#entries.get(ref);
    if (!entry) return;
    this.#entries.delete(ref);
    if (entry.joined) this.#feeds.live--;
    entry.abort.abort();
    entry.subscription.close();
  }

  #give(channel: string, item: FeedItem): void {
    if (this.#given.has(item)) return;
    this.#given.add(item);
    this.#feeds.metrics.deliveries.inc();
    this.#host.pushLive(this.#feeds.frameOf(channel, item));
  }
}
