import type { Target } from './channel.ts';

export type ChannelName = Target['channel'];

export const channelNames: readonly ChannelName[] = ['webhook', 'email', 'push'];

/** What one endpoint is spared from, by this process. */
export interface EndpointLimits {
  /** Attempts under way at once. */
  readonly inFlight: number;
  /** Attempts a second. */
  readonly perSecond: number;
}

/** Everything that can be chosen about notifying. Times in ms. */
export interface NotifyOptions {
  /** Notices a user gets one by one in a minute; the rest are summarised at its end. */
  readonly perUserMinute: number;
  /** Notices of one rule that a target gets one by one in a minute. */
  readonly perRuleMinute: number;
  /** Attempts under way at once on one channel. */
  readonly concurrency: number;
  readonly endpoints: Readonly<Record<ChannelName, EndpointLimits>>;
  /** Failures in a row after which an endpoint is left alone. */
  readonly breakerFailures: number;
  /** How long it is left alone at first; doubles with each failure, up to `breakerCapMs`. */
  readonly breakerBaseMs: number;
  readonly breakerCapMs: number;
  readonly retryBaseMs: number;
  readonly retryCapMs: number;
  /** Longest wait that a receiver may ask for. */
  readonly retryAfterCapMs: number;
  /** No attempt begins when this much time has passed since the first one could. */
  readonly maxAgeMs: number;
  /** Longest one attempt may take. */
  readonly attemptMs: number;
  /** How long an attempt is taken to be under way in a process that does not say how it ended; more than `attemptMs`. */
  readonly leaseMs: number;
  /** How often Postgres is asked for what nobody works on. */
  readonly sweepMs: number;
  /** How long attempts that are under way at a stop may go on. */
  readonly stopMs: number;
  /** How long it is kept what became of a notification. */
  readonly keepMs: number;
  /** How long the minute of the digest is. */
  readonly minuteMs: number;
}

export const defaultOptions: NotifyOptions = {
  perUserMinute: 20,
  perRuleMinute: 10,
  concurrency: 128,
  endpoints: {
    webhook: { inFlight: 4, perSecond: 10 },
    email: { inFlight: 8, perSecond: 50 },
    push: { inFlight: 16, perSecond: 100 },
  },
  breakerFailures: 5,
  breakerBaseMs: 5_000,
  breakerCapMs: 60_000,
  retryBaseMs: 5_000,
  // Short, so that the one notice of an endpoint that is back is not long in coming; the breaker spares those that are not.
  retryCapMs: 600_000,
  retryAfterCapMs: 3_600_000,
  maxAgeMs: 24 * 3_600_000,
  attemptMs: 12_000,
  leaseMs: 30_000,
  sweepMs: 1_000,
  stopMs: 12_000,
  keepMs: 30 * 24 * 3_600_000,
  minuteMs: 60_000,
};
