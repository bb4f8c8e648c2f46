import type { Seq } from '../pipeline/log/event-log.ts';
import type { CachedRow } from '../pipeline/runner/row-source.ts';
import type { Principal } from '../pipeline/runtime/http.ts';
import type { CloseReason } from '../schemas/error-codes.ts';
import type { ClientFrame, Credential, FrameId, From } from './client-frames.ts';
import type { Fault } from './fault.ts';
import type { ConnectionLimits, ControlFrame } from './server-frames.ts';

/*
 * What a session knows, what it is told, and what it asks for. How it gets from one to the other is in session.ts.
 */

type SubscriptionPhase = 'starting' | 'snapshot' | 'replaying' | 'live';

export interface Subscription {
  /** Names this subscription among all of the connection's, also earlier ones of the same name. */
  readonly ref: number;
  readonly sub: string;
  readonly channel: string;
  readonly id: FrameId | undefined;
  readonly phase: SubscriptionPhase;
  readonly asOf: Seq;
  /** Everything up to here has been sent; while it replays. */
  readonly position: Seq;
  /** The last position the client was told. */
  readonly told: Seq;
}

export interface SessionState {
  readonly phase: 'opening' | 'admitting' | 'open' | 'closed';
  readonly connection: string;
  readonly openedAt: number;
  readonly connectId: FrameId | undefined;
  /** Commands that came before the answer to `connect`. */
  readonly waiting: readonly ClientFrame[];
  readonly principal: Principal | undefined;
  readonly limits: ConnectionLimits | undefined;
  readonly epoch: string;
  readonly subscriptions: ReadonlyMap<string, Subscription>;
  readonly nextRef: number;
  /** An `auth` command that waits for its answer. */
  readonly renewing: { readonly id: FrameId | undefined } | undefined;
  readonly toldExpiry: boolean;
  /** The last cursor of the live subscriptions. */
  readonly liveTold: Seq;
}

/** An event as a replay gives it. */
export interface ReplayedEvent {
  readonly seq: Seq;
  readonly bytes: Uint8Array;
}

/** Why a key is not accepted. */
export interface Refusal {
  readonly code: 'unauthorized' | 'overload' | 'connection_limit' | 'rate_limited';
  readonly message: string;
  readonly retryAfterMs?: number;
}

export type Input =
  | { readonly type: 'frame'; readonly frame: ClientFrame }
  | { readonly type: 'limited'; readonly id: FrameId | undefined; readonly retryAfterMs: number }
  | {
      readonly type: 'admitted';
      readonly principal: Principal;
      readonly limits: ConnectionLimits;
      readonly epoch: string;
      readonly head: Seq;
    }
  | ({ readonly type: 'refused' } & Refusal)
  | {
      readonly type: 'positioned';
      readonly ref: number;
      readonly start: Seq;
      readonly oldest: Seq;
      readonly head: Seq;
      readonly snapshotAsOf: Seq | undefined;
    }
  | { readonly type: 'page'; readonly ref: number; readonly items: readonly CachedRow[]; readonly more: boolean }
  | { readonly type: 'replayed'; readonly ref: number; readonly events: readonly ReplayedEvent[]; readonly through: Seq }
  /** Frames of a feed: states, several of which can have the same sequence, and with them everything up to `through`. */
  | { readonly type: 'states'; readonly ref: number; readonly items: readonly CachedRow[]; readonly through: Seq }
  | { readonly type: 'caughtUp'; readonly ref: number; readonly seq: Seq }
  | { readonly type: 'failed'; readonly ref: number; readonly fault: Fault }
  /** All live subscriptions have been sent everything up to `seq`, and it is time to say so. */
  | { readonly type: 'liveCursor'; readonly seq: Seq }
  /** Once a second, `now` in ms since 1970. */
  | { readonly type: 'tick'; readonly now: number }
  | { readonly type: 'end'; readonly reason: CloseReason; readonly message: string }
  | { readonly type: 'gone' };

/** What to read and where to begin, once authorisation has been settled. */
export interface SubscriptionRequest {
  readonly channel: string;
  readonly filter: unknown;
  readonly from: From;
  readonly snapshot: boolean;
}

export type Output =
  | { readonly type: 'send'; readonly frame: ControlFrame }
  | { readonly type: 'sendEvents'; readonly sub: string; readonly channel: string; readonly events: readonly ReplayedEvent[] }
  | { readonly type: 'sendRows'; readonly sub: string; readonly asOf: Seq; readonly items: readonly CachedRow[]; readonly more: boolean }
  | { readonly type: 'authenticate'; readonly credential: Credential }
  | { readonly type: 'begin'; readonly ref: number; readonly request: SubscriptionRequest }
  | { readonly type: 'join'; readonly ref: number }
  | { readonly type: 'leave'; readonly ref: number }
  | { readonly type: 'close'; readonly reason: CloseReason };
