import type { CloseReason } from '../schemas/error-codes.ts';
import type { FrameId } from './client-frames.ts';
import type { ControlFrame } from './server-frames.ts';
import type { Output, SessionState, Subscription } from './session-state.ts';

/* The steps of which a session's are made. */

/** The next state and what is to be done, in this order. */
export interface Step {
  readonly state: SessionState;
  readonly out: readonly Output[];
}

export function close(
  state: SessionState,
  reason: CloseReason,
  message: string,
  id?: FrameId,
  retry: { retryAfterMs?: number } = {},
): Step {
  const error: ControlFrame = { type: 'error', ...idOf({ id }), code: reason, message, ...retry };
  return {
    state: { ...state, phase: 'closed', subscriptions: new Map(), waiting: [] },
    out: [...leaveAll(state), { type: 'send', frame: error }, { type: 'close', reason }],
  };
}

export function drop(state: SessionState, { sub, ref }: Subscription, out: readonly Output[]): Step {
  const subscriptions = new Map(state.subscriptions);
  subscriptions.delete(sub);
  return { state: { ...state, subscriptions }, out: [{ type: 'leave', ref }, ...out] };
}

export function leaveAll(state: SessionState): readonly Output[] {
  return [...state.subscriptions.values()].map(({ ref }) => ({ type: 'leave', ref }));
}

export function withSubscription(state: SessionState, subscription: Subscription): SessionState {
  return { ...state, subscriptions: new Map(state.subscriptions).set(subscription.sub, subscription) };
}

export function reply(state: SessionState, frame: ControlFrame): Step {
  return { state, out: [{ type: 'send', frame }] };
}

export function badRequest(state: SessionState, id: FrameId | undefined, message: string, sub?: string): Step {
  return reply(state, { type: 'error', ...idOf({ id }), ...(sub === undefined ? {} : { sub }), code: 'bad_request', message });
}

export function followed(before: Step, next: (state: SessionState) => Step): Step {
  const { state, out } = next(before.state);
  return { state, out: [...before.out, ...out] };
}

export function idOf({ id }: { readonly id?: FrameId | undefined }): { id?: FrameId } {
  return id === undefined ? {} : { id };
}
