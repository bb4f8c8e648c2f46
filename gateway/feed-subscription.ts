import type { EventLog, Seq } from '../pipeline/log/event-log.ts';
import { messageOf } from '../pipeline/runtime/errors.ts';
import type { Feed, FeedItem, FeedReceiver } from '../pipeline/runtime/feed.ts';
import type { Logger } from '../pipeline/runtime/logging.ts';
import { FilterError, parseFilter, type Filter } from '../schemas/filter.ts';
import type { From } from './client-frames.ts';
import { RequestFault, type Fault } from './fault.ts';
import type { ReplayTarget } from './replay.ts';
import type { SubscriptionRequest } from './session-state.ts';
import type { Tail } from './tail.ts';
import { decodeToken } from './token.ts';

/** The connection's side of a feed's subscription. */
export interface FeedTarget extends Omit<ReplayTarget, 'positioned' | 'replayed'> {
  positioned(start: Seq, head: Seq, snapshotAsOf: Seq | undefined): void;
  /** Frames whose sequences do not fall, and with them all that changed up to `through`. */
  states(items: readonly FeedItem[], through: Seq): void;
  live(item: FeedItem): void;
}

export interface FeedContext {
  readonly eventLog: EventLog;
  readonly tail: Tail;
  readonly maxFilterValues: number;
  readonly log: Logger;
}

/** A subscription of a channel that a feed serves, from its beginning until it is closed. */
export class FeedSubscription {
  readonly #request: SubscriptionRequest;
  readonly #feed: Feed;
  readonly #target: FeedTarget;
  readonly #context: FeedContext;
  #passed: Seq = 0;
  #closed = false;
  #end: () => void = () => undefined;

  constructor(request: SubscriptionRequest, feed: Feed, target: FeedTarget, context: FeedContext) {
    this.#request = request;
    this.#feed = feed;
    this.#target = target;
    this.#context = context;
  }

  /** All that changed up to here has been sent, once it is live. */
  get passed(): Seq {
    return this.#passed;
  }

  /** Opens it; what goes wrong is told to the target. */
  async open(): Promise<void> {
    try {
      await this.#open();
    } catch (error) {
      this.#fail(this.#faultOf(error));
    }
  }

  close(): void {
    this.#closed = true;
    this.#end();
    this.#end = () => undefined;
  }

  async #open(): Promise<void> {
    const { channel, snapshot } = this.#request;
    const tables = await this.#feed.tables(channel);
    if (!tables) throw new RequestFault({ code: 'unknown_channel', message: `there is no channel ${channel}` });
    const filter: Filter = parseFilter(this.#request.filter, tables, { maxValues: this.#context.maxFilterValues });
    const after = await startOf(this.#request.from, this.#context);
    if (this.#closed) return;
    this.#end = this.#feed.open(channel, filter, { epoch: this.#context.tail.epoch, after, snapshot }, this.#receiver(snapshot));
  }

  #receiver(snapshot: boolean): FeedReceiver {
    const target = this.#target;
    const unlessClosed = (act: () => void): void => (this.#closed ? undefined : act());
    return {
      begun: (after) =>
        unlessClosed(() => target.positioned(after + 1, Math.max(after, this.#context.tail.position), snapshot ? after : undefined)),
      page: (items, more) => unlessClosed(() => target.page(items, more)),
      replayed: (items, through) => unlessClosed(() => target.states(items, through)),
      caughtUp: (seq) =>
        unlessClosed(() => {
          this.#passed = seq;
          target.states([], seq);
          target.caughtUp(seq);
        }),
      live: (item) => unlessClosed(() => target.live(item)),
      passed: (seq) => (this.#passed = Math.max(this.#passed, seq)),
      failed: (fault) => this.#fail(fault),
      drained: () => (this.#closed ? Promise.resolve(false) : target.drained()),
    };
  }

  #fail(fault: Fault): void {
    if (this.#closed) return;
    this.close();
    this.#target.failed(fault);
  }

  #faultOf(error: unknown): Fault {
    if (error instanceof RequestFault) return error.fault;
    if (error instanceof FilterError) return { code: 'bad_filter', message: error.message };
    this.#context.log.warn({ error: messageOf(error), channel: this.#request.channel }, 'a feed cannot be opened');
    return { code: 'overload', message: 'the channel cannot be read now, try again', retryAfterMs: 1_000 };
  }
}

/** After which sequence it begins. States are not kept one by one, so there is no way to begin with a time, or with the last of them. */
async function startOf(from: From, { tail, eventLog }: FeedContext): Promise<Seq> {
  const after = afterOf(from, tail);
  if (after <= tail.position) return after;
  // The feed can be ahead of this node's own reading.
  const { last } = await eventLog.bounds();
  if (after <= last) return after;
  const message = `the log ends at ${last}, before the position asked for`;
  throw new RequestFault({ code: 'position_ahead', message, oldest: tail.oldest, head: last });
}

function afterOf(from: From, { position, epoch }: Tail): Seq {
  switch (from.kind) {
    case 'now':
      return position;
    case 'seq':
      return from.seq - 1;
    case 'after':
      return from.after;
    case 'token': {
      const found = decodeToken(from.token);
      if (!found) throw new RequestFault({ code: 'bad_token', message: 'this is not a token of a subscribed, cursor or caught_up frame' });
      if (found.epoch !== epoch)
        throw new RequestFault({
          code: 'epoch_changed',
          message: 'the log has begun another history since this token was given: start anew',
        });
      return Math.max(found.seq, from.after ?? 0);
    }
    case 'last':
    case 'time':
      throw new RequestFault({
        code: 'bad_request',
        message: `this channel has states, not events: begin with snapshot, now, seq, after or a token`,
      });
  }
}
