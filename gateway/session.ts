import { mayRead, type Principal } from '../pipeline/runtime/http.ts';
import { isObject, type AuthFrame, type ClientFrame, type SubscribeFrame } from './client-frames.ts';
import type { Seq } from '../pipeline/log/event-log.ts';
import type { ControlFrame } from './server-frames.ts';
import { onProgress } from './session-progress.ts';
import { badRequest, close, drop, idOf, followed, leaveAll, reply, withSubscription, type Step } from './session-step.ts';
import type { Input, Refusal, SessionState, Subscription } from './session-state.ts';
import { encodeToken } from './token.ts';

/*
 * One connection's conversation as a pure state machine: no sockets, no clocks, no reading. SPEC.md has its diagram and
 * its invariants, whose numbers are the names of its tests. What becomes of a subscription is in session-progress.ts.
 *
 * Live events do not pass through here: between a `join` and its `leave` the fan-out may send a subscription's events.
 */

const connectTimeoutMs = 5_000;
export const pingMs = 25_000;
const reconnect = { minMs: 500, maxMs: 20_000 } as const;
const maxWaiting = 32;
const expiryNoticeMs = 30_000;

export function openSession(connection: string, now: number): SessionState {
  const nobody = { connectId: undefined, waiting: [], principal: undefined, limits: undefined, renewing: undefined, toldExpiry: false };
  return { phase: 'opening', connection, openedAt: now, ...nobody, epoch: '', subscriptions: new Map(), nextRef: 1, liveTold: 0 };
}

/** The session's phase as SPEC.md draws it. */
export function phaseOf(state: SessionState): 'opening' | 'replaying' | 'live' | 'closed' {
  if (state.phase === 'closed') return 'closed';
  if (state.phase !== 'open') return 'opening';
  for (const subscription of state.subscriptions.values()) if (subscription.phase !== 'live') return 'replaying';
  return 'live';
}

/** The next state and what is to be done, in this order. */
export function step(state: SessionState, input: Input): Step {
  if (state.phase === 'closed') return { state, out: [] };
  switch (input.type) {
    case 'frame':
      return onFrame(state, input.frame);
    case 'limited':
      return reply(state, {
        type: 'error',
        ...idOf(input),
        code: 'rate_limited',
        message: 'too many commands',
        retryAfterMs: input.retryAfterMs,
      });
    case 'admitted':
      return onAdmitted(state, input);
    case 'refused':
      return onRefused(state, input);
    case 'tick':
      return onTick(state, input.now);
    case 'liveCursor':
      return onLiveCursor(state, input.seq);
    case 'end':
      return close(state, input.reason, input.message);
    case 'gone':
      return { state: { ...state, phase: 'closed', subscriptions: new Map() }, out: leaveAll(state) };
    case 'positioned':
    case 'page':
    case 'replayed':
    case 'states':
    case 'caughtUp':
    case 'failed':
      return onProgress(state, input);
  }
}

function onFrame(state: SessionState, frame: ClientFrame): Step {
  if (state.phase === 'open') return onCommand(state, frame);
  if (frame.type === 'malformed') return close(state, 'bad_request', frame.message, frame.id);
  if (state.phase === 'admitting') {
    if (state.waiting.length >= maxWaiting) return close(state, 'bad_request', 'too many commands before the answer to connect', frame.id);
    return { state: { ...state, waiting: [...state.waiting, frame] }, out: [] };
  }
  if (frame.type !== 'connect') return close(state, 'bad_request', 'the first frame must be connect', frame.id);
  return { state: { ...state, phase: 'admitting', connectId: frame.id }, out: [{ type: 'authenticate', credential: frame.credential }] };
}

function onCommand(state: SessionState, frame: ClientFrame): Step {
  switch (frame.type) {
    case 'malformed':
      return badRequest(state, frame.id, frame.message);
    case 'connect':
      return badRequest(state, frame.id, 'already connected: use auth to change the key');
    case 'ping':
      return reply(state, { type: 'pong', ...idOf(frame) });
    case 'auth':
      return onAuth(state, frame);
    case 'subscribe':
      return onSubscribe(state, frame);
    case 'unsubscribe': {
      const subscription = state.subscriptions.get(frame.sub);
      if (!subscription) return badRequest(state, frame.id, 'there is no such subscription', frame.sub);
      return drop(state, subscription, [{ type: 'send', frame: { type: 'unsubscribed', ...idOf(frame), sub: frame.sub } }]);
    }
  }
}

function onAuth(state: SessionState, frame: AuthFrame): Step {
  if (state.renewing) return badRequest(state, frame.id, 'the auth before this one is still being answered');
  return { state: { ...state, renewing: { id: frame.id } }, out: [{ type: 'authenticate', credential: frame.credential }] };
}

function onSubscribe(state: SessionState, frame: SubscribeFrame): Step {
  const { sub, channel, from, snapshot } = frame;
  const principal = state.principal!;
  if (state.subscriptions.has(sub))
    return badRequest(state, frame.id, 'a subscription of this name exists: unsubscribe first, or take another name', sub);
  if (frame.mode === 'latest') return badRequest(state, frame.id, 'mode "latest" is not available yet', sub);
  if (!mayRead(principal, channel))
    return reply(state, { type: 'error', ...idOf(frame), sub, code: 'forbidden', message: 'the key may not read this channel' });
  const most = state.limits!.subscriptions;
  if (state.subscriptions.size >= most) {
    return reply(state, {
      type: 'error',
      ...idOf(frame),
      sub,
      code: 'rate_limited',
      message: `a connection may have ${most} subscriptions`,
      retryAfterMs: 1_000,
    });
  }
  const ref = state.nextRef;
  const subscription: Subscription = { ref, sub, channel, id: frame.id, phase: 'starting', asOf: 0, position: 0, told: 0 };
  return {
    state: { ...withSubscription(state, subscription), nextRef: ref + 1 },
    out: [{ type: 'begin', ref, request: { channel, filter: ownFilter(principal, channel, frame.filter), from, snapshot } }],
  };
}

function ownFilter(principal: Principal, channel: string, filter: unknown): unknown {
  if (!ownerOnly(principal, channel) || (filter !== undefined && !isObject(filter))) return filter;
  return { ...filter, userId: principal.owner };
}

/** Alerts are private: only an administrator sees those of others. */
function ownerOnly(principal: Principal, channel: string): boolean {
  return channel === 'alerts' && !principal.scopes.includes('admin');
}

function onAdmitted(state: SessionState, input: Extract<Input, { type: 'admitted' }>): Step {
  const { principal, limits, epoch, head } = input;
  const first = state.phase === 'admitting';
  if (!first && !state.renewing) return { state, out: [] };
  const id = first ? state.connectId : state.renewing?.id;
  const connected: ControlFrame = {
    type: 'connected',
    ...idOf({ id }),
    connection: state.connection,
    epoch,
    head,
    scopes: principal.scopes,
    limits,
    pingMs,
    reconnect,
  };
  const before = state.principal;
  let next: Step = {
    state: { ...state, phase: 'open', principal, limits, epoch, renewing: undefined, toldExpiry: false, waiting: [] },
    out: [{ type: 'send', frame: connected }],
  };
  for (const subscription of state.subscriptions.values()) {
    const bound = before !== undefined && ownerOnly(before, subscription.channel) && before.owner === principal.owner;
    const othersAlerts = ownerOnly(principal, subscription.channel) && !bound;
    if (mayRead(principal, subscription.channel) && !othersAlerts) continue;
    next = followed(next, (s) =>
      drop(s, subscription, [{ type: 'send', frame: { type: 'unsubscribed', sub: subscription.sub, reason: 'forbidden' } }]),
    );
  }
  for (const frame of state.waiting) next = followed(next, (s) => (s.phase === 'open' ? onCommand(s, frame) : { state: s, out: [] }));
  return next;
}

function onRefused(state: SessionState, { code, message, retryAfterMs }: Refusal): Step {
  const retry = retryAfterMs === undefined ? {} : { retryAfterMs };
  if (state.phase === 'admitting') return close(state, code, message, state.connectId, retry);
  if (!state.renewing) return { state, out: [] };
  const { id } = state.renewing;
  return reply({ ...state, renewing: undefined }, { type: 'error', ...idOf({ id }), code, message, ...retry });
}

function onTick(state: SessionState, now: number): Step {
  if (state.phase === 'opening' && now - state.openedAt >= connectTimeoutMs)
    return close(state, 'connect_timeout', `no connect within ${connectTimeoutMs} ms`);
  const expiresAt = state.principal?.expiresAt;
  let next: Step = { state, out: [] };
  if (expiresAt !== undefined) {
    if (now >= expiresAt) return close(state, 'auth_expired', 'the key has expired');
    if (!state.toldExpiry && expiresAt - now <= expiryNoticeMs)
      next = reply({ ...state, toldExpiry: true }, { type: 'auth_expiring', inMs: expiresAt - now });
  }
  for (const subscription of state.subscriptions.values()) {
    const { phase, sub, position: seq } = subscription;
    if (phase !== 'replaying' || seq <= subscription.told) continue;
    const cursor: ControlFrame = { type: 'cursor', sub, seq, token: encodeToken({ epoch: state.epoch, seq }) };
    next = followed(next, (s) => reply(withSubscription(s, { ...subscription, told: seq }), cursor));
  }
  return next;
}

function onLiveCursor(state: SessionState, seq: Seq): Step {
  if (seq <= state.liveTold || ![...state.subscriptions.values()].some(({ phase }) => phase === 'live')) return { state, out: [] };
  return reply({ ...state, liveTold: seq }, { type: 'cursor', seq, token: encodeToken({ epoch: state.epoch, seq }) });
}
