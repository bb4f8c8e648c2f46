import type { FaultCode } from '../../schemas/error-codes.ts';
import type { ChannelTables, Filter } from '../../schemas/filter.ts';
import type { Seq } from '../log/event-log.ts';

/** A frame of a feed: something that has changed, as it is now. */
export interface FeedItem {
  /** Whoever goes on after this sequence misses nothing: all that changed up to here has been given. It can be lower than what the state includes. */
  readonly seq: Seq;
  /** JSON, the `event` of the frame. */
  readonly event: Uint8Array;
}

/** Where a subscription of a feed begins. */
export interface FeedStart {
  readonly epoch: string;
  /** Changes up to here are known to the subscriber, or of no interest. */
  readonly after: Seq;
  /** First the current state of everything; `after` does not count. */
  readonly snapshot: boolean;
}

/**
 * One subscriber of a feed. `begun` comes first, then pages of a snapshot, replayed items, `caughtUp`, and from there on live ones.
 * Sequences never fall. After `failed`, or once the subscription was closed, nothing comes any more.
 */
export interface FeedReceiver {
  /** It begins after this sequence. */
  begun(after: Seq): void;
  /** A part of the current state. */
  page(items: readonly FeedItem[], more: boolean): void;
  /** These items, and with them all that changed up to `through`. */
  replayed(items: readonly FeedItem[], through: Seq): void;
  /** All that changed up to `seq` has been given; live from here. */
  caughtUp(seq: Seq): void;
  live(item: FeedItem): void;
  /** All that changed up to this sequence has been given; live. */
  passed(seq: Seq): void;
  failed(fault: { readonly code: FaultCode; readonly message: string; readonly retryAfterMs?: number }): void;
  /** Resolves when more can be taken before it is live; false when it is over. */
  drained(): Promise<boolean>;
}

/**
 * Channels whose frames are not events of the log, but states that follow from it: what changes often is told at intervals, and
 * the last state always is. The composition root gives the gateway the feeds of the processors.
 */
export interface Feed {
  /** What the names of its channels begin with, `aggregates:`. */
  readonly prefix: string;
  /** What filters of a channel can look at, in the form of its one table; undefined when there is no such channel. Rejects when that cannot be known now. */
  tables(channel: string): Promise<ChannelTables | undefined>;
  /** Subscribes, and returns what ends it. */
  open(channel: string, filter: Filter, start: FeedStart, receiver: FeedReceiver): () => void;
}
