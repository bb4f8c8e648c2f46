import { backoffMs } from '../../pipeline/runtime/backoff.ts';
import { messageOf } from '../../pipeline/runtime/errors.ts';
import { withDeadline } from '../../pipeline/runtime/tasks.ts';
import type { Attempt, Channel, Target } from './channel.ts';
import type { ClaimedJob, Verdict } from './job-store.ts';
import type { ChannelName, NotifyOptions } from './options.ts';
import { secretsFor } from './targets.ts';

/** The channels that can be delivered to. */
export type Channels = Readonly<Partial<Record<ChannelName, Channel>>>;

/** Makes one attempt. Never rejects: what went wrong is part of the verdict. `signal` fires when the program cannot wait any longer. */
export async function attemptOf(job: ClaimedJob, channels: Channels, options: NotifyOptions, signal: AbortSignal): Promise<Verdict> {
  const target = targetOf(job, Date.now());
  const channel = channels[job.channel];
  const begun = performance.now();
  if (!target) return withdrawn();
  const attempt = channel
    ? await deliver(channel, job, target, options, signal)
    : { outcome: 'retry' as const, answer: `the channel ${job.channel} is not configured` };
  // An attempt that the program's own end cut off says nothing of the endpoint, and is made again at once by whoever comes next.
  if (signal.aborted && attempt.outcome === 'retry')
    return { ...resultOf(attempt, performance.now() - begun), state: 'queued', endpoint: 'unknown' };
  return verdictOf(attempt, job, options, performance.now() - begun);
}

async function deliver(channel: Channel, job: ClaimedJob, target: Target, options: NotifyOptions, signal: AbortSignal): Promise<Attempt> {
  try {
    return await withDeadline(options.attemptMs, signal, (limit) => unlessAborted(limit, channel.deliver(job.notice, target, limit)));
  } catch (error) {
    // A channel that throws, or does not heed its signal, is at fault; the notification is not.
    return { outcome: 'retry', answer: messageOf(error) };
  }
}

/** Rejects when the signal fires before the promise settles. */
async function unlessAborted<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  let abort: (() => void) | undefined;
  let timer: NodeJS.Timeout | undefined;
  const aborted = new Promise<never>((_, reject) => {
    // A channel that heeds its signal has a moment to say how it ended.
    abort = () => void (timer = setTimeout(() => reject(signal.reason as Error), 100));
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
  });
  promise.catch(() => undefined);
  aborted.catch(() => undefined);
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', abort!);
    clearTimeout(timer);
  }
}

/** Address and secrets as they are now; undefined when the rule or the device is gone, or the target is none of the rule's any more. */
function targetOf({ channel, address, channels, device }: ClaimedJob, nowMs: number): Target | undefined {
  const all = channels.flat();
  if (channel === 'push') {
    return device && all.some(({ type }) => type === 'push') ? { channel, deviceId: address.deviceId!, ...device } : undefined;
  }
  if (channel === 'email')
    return all.some(({ type, to }) => type === 'email' && to === address.to) ? { channel, to: address.to! } : undefined;
  const secrets = secretsFor(address.url!, all, nowMs);
  return secrets && { channel, url: address.url!, secrets };
}

function withdrawn(): Verdict {
  const attempt: Attempt = { outcome: 'failed', answer: 'the rule does not notify this target any more' };
  return { state: 'suppressed', reason: 'withdrawn', delayMs: 0, attempt, latencyMs: 0, endpoint: 'unknown' };
}

function resultOf(attempt: Attempt, latencyMs: number): Pick<Verdict, 'attempt' | 'latencyMs' | 'delayMs' | 'reason'> {
  return { attempt, latencyMs, delayMs: 0, reason: null };
}

function verdictOf(attempt: Attempt, job: ClaimedJob, options: NotifyOptions, latencyMs: number): Verdict {
  const rest = resultOf(attempt, latencyMs);
  switch (attempt.outcome) {
    case 'delivered':
      return { ...rest, state: 'delivered', endpoint: 'well' };
    case 'failed':
      return { ...rest, state: 'dead', reason: 'failed', endpoint: attempt.status === undefined ? 'unknown' : 'well' };
    case 'gone':
      return { ...rest, state: 'dead', reason: 'gone', endpoint: 'well' };
    case 'retry':
      return {
        ...rest,
        state: 'queued',
        reason: attempt.retryAfterMs === undefined ? null : 'retry_after',
        delayMs: retryDelay(attempt, job.attempt, options),
        endpoint: endpointAfter(attempt),
      };
    default:
      throw new Error(`unknown outcome ${String(attempt.outcome)}`);
  }
}

/** Full jitter, doubling with each attempt; what the receiver asked for is honoured, up to a bound. */
function retryDelay({ retryAfterMs = 0 }: Attempt, attempt: number, options: NotifyOptions): number {
  const { retryBaseMs, retryCapMs, retryAfterCapMs } = options;
  const jitter = backoffMs(attempt - 1, { baseMs: retryBaseMs, capMs: retryCapMs });
  return Math.max(jitter, Math.min(retryAfterMs, retryAfterCapMs), retryBaseMs / 5);
}

/** Who answers is there, unless the answer is that it cannot serve. */
function endpointAfter({ status }: Attempt): Verdict['endpoint'] {
  return status === undefined || status >= 500 ? 'failing' : 'well';
}
