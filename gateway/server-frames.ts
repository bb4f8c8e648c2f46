import type { Seq } from '../pipeline/log/event-log.ts';
import type { CloseReason, FaultCode } from '../schemas/error-codes.ts';
import type { FrameId } from './client-frames.ts';

/** What one connection may do, as `connected` tells it. */
export interface ConnectionLimits {
  readonly connections: number;
  readonly subscriptions: number;
  readonly filterValues: number;
  readonly commandsPerSecond: number;
  readonly commandsBurst: number;
  readonly frameBytes: number;
}

export interface ConnectedFrame {
  readonly type: 'connected';
  readonly id?: FrameId;
  readonly connection: string;
  readonly epoch: string;
  readonly head: Seq;
  readonly scopes: readonly string[];
  readonly limits: ConnectionLimits;
  readonly pingMs: number;
  readonly reconnect: { readonly minMs: number; readonly maxMs: number };
}

export interface SubscribedFrame {
  readonly type: 'subscribed';
  readonly id?: FrameId;
  readonly sub: string;
  readonly channel: string;
  readonly epoch: string;
  readonly oldest: Seq;
  readonly head: Seq;
  readonly start: Seq;
  readonly token: string;
}

export interface ErrorFrame {
  readonly type: 'error';
  readonly id?: FrameId;
  readonly sub?: string;
  readonly code: FaultCode | CloseReason;
  readonly message: string;
  readonly retryAfterMs?: number;
  readonly oldest?: Seq;
  readonly head?: Seq;
}

/** Frames that are plain JSON; `event` and `snapshot` carry the log's bytes and are put together in wire.ts. */
export type ControlFrame =
  | ConnectedFrame
  | SubscribedFrame
  | ErrorFrame
  | { readonly type: 'caught_up'; readonly sub: string; readonly seq: Seq; readonly token: string }
  | { readonly type: 'cursor'; readonly sub?: string; readonly seq: Seq; readonly token: string }
  | { readonly type: 'unsubscribed'; readonly id?: FrameId; readonly sub: string; readonly reason?: string }
  | { readonly type: 'pong'; readonly id?: FrameId }
  | { readonly type: 'auth_expiring'; readonly inMs: number };
