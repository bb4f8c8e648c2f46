import type { Seq } from '../pipeline/log/event-log.ts';
import type { CachedRow } from '../pipeline/runner/row-source.ts';
import type { ControlFrame } from './server-frames.ts';
import { drop, idOf, reply, withSubscription, type Step } from './session-step.ts';
import type { Input, Output, ReplayedEvent, SessionState, Subscription } from './session-state.ts';
import { encodeToken } from './token.ts';

/** What becomes of a subscription that has begun. */
export type Progress = Extract<Input, { readonly ref: number }>;

/** How a subscription comes from its start by snapshot and replay to live events, or ends. */
export function onProgress(state: SessionState, input: Progress): Step {
  const subscription = [...state.subscriptions.values()].find(({ ref }) => ref === input.ref);
  // It has been unsubscribed meanwhile: what is still under way for it concerns nobody.
  if (!subscription) return { state, out: [] };
  const { sub, channel, phase, position } = subscription;
  switch (input.type) {
    case 'positioned': {
      if (phase !== 'starting') return { state, out: [] };
      const { start, oldest, head, snapshotAsOf } = input;
      const token = encodeToken({ epoch: state.epoch, seq: start - 1 });
      const next: Subscription = {
        ...subscription,
        phase: snapshotAsOf === undefined ? 'replaying' : 'snapshot',
        asOf: snapshotAsOf ?? 0,
        position: start - 1,
        told: start - 1,
      };
      return reply(withSubscription(state, next), {
        type: 'subscribed',
        ...idOf(subscription),
        sub,
        channel,
        epoch: state.epoch,
        oldest,
        head,
        start,
        token,
      });
    }
    case 'page': {
      if (phase !== 'snapshot') return { state, out: [] };
      const next: Subscription = { ...subscription, phase: input.more ? 'snapshot' : 'replaying' };
      return {
        state: withSubscription(state, next),
        out: [{ type: 'sendRows', sub, asOf: subscription.asOf, items: input.items, more: input.more }],
      };
    }
    case 'replayed': {
      if (phase !== 'replaying' || input.through < position) return { state, out: [] };
      const events = onlyNew(input.events, position, input.through);
      const out: Output[] = events.length === 0 ? [] : [{ type: 'sendEvents', sub, channel, events }];
      return { state: withSubscription(state, { ...subscription, position: input.through }), out };
    }
    case 'states': {
      if (phase !== 'replaying' || input.through < position) return { state, out: [] };
      const events = notFalling(input.items, position, input.through);
      const out: Output[] = events.length === 0 ? [] : [{ type: 'sendEvents', sub, channel, events }];
      return { state: withSubscription(state, { ...subscription, position: input.through }), out };
    }
    case 'caughtUp': {
      // Only from where the replay is, so that nothing can fall between it and the live events.
      if (phase !== 'replaying' || input.seq !== position) return { state, out: [] };
      const caughtUp: ControlFrame = { type: 'caught_up', sub, seq: input.seq, token: encodeToken({ epoch: state.epoch, seq: input.seq }) };
      const next = withSubscription({ ...state, liveTold: Math.max(state.liveTold, input.seq) }, { ...subscription, phase: 'live' });
      return {
        state: next,
        out: [
          { type: 'send', frame: caughtUp },
          { type: 'join', ref: subscription.ref },
        ],
      };
    }
    case 'failed': {
      const error: ControlFrame = { type: 'error', ...(phase === 'starting' ? idOf(subscription) : {}), sub, ...input.fault };
      const ended: ControlFrame[] = phase === 'starting' ? [error] : [error, { type: 'unsubscribed', sub, reason: input.fault.code }];
      return drop(
        state,
        subscription,
        ended.map((frame) => ({ type: 'send', frame })),
      );
    }
  }
}

/** Events in order, after `position` and up to `through`: what a replay should give anyway. */
function onlyNew(events: readonly ReplayedEvent[], position: Seq, through: Seq): readonly ReplayedEvent[] {
  let last = position;
  let inOrder = true;
  for (const { seq } of events) {
    inOrder &&= seq > last && seq <= through;
    last = seq;
  }
  if (inOrder) return events;
  last = position;
  return events.filter(({ seq }) => {
    if (seq <= last || seq > through) return false;
    last = seq;
    return true;
  });
}

/** States with sequences that do not fall, from `position` to `through`. None is left out: each is of something else. */
function notFalling(items: readonly CachedRow[], position: Seq, through: Seq): readonly ReplayedEvent[] {
  let last = position;
  return items.map(({ seq, event: bytes }) => {
    last = Math.max(last, Math.min(seq, through));
    return { seq: last, bytes };
  });
}
