import type { RuleChannel } from '../../../schemas/rule-channels.ts';
import { newSecret } from '../../notify/channels/secret.ts';

/** Where a rule notifies, as it is stored in `headwater.alert_rules.channels`; times in ISO 8601. */
export type StoredChannel =
  | {
      readonly type: 'webhook';
      readonly url: string;
      readonly secret?: string;
      /** The secret of before the last rotation: receivers may check against it until then. */
      readonly previousSecret?: string;
      readonly previousUntil?: string;
    }
  | { readonly type: 'email'; readonly to: string }
  | { readonly type: 'push' };

type StoredWebhook = StoredChannel & { readonly type: 'webhook' };

/** How long a secret stays valid beside its successor (ms). */
const overlapMs = 24 * 3_600_000;

/**
 * The channels to store, and the secrets that were made on the way, by index. A webhook without secret keeps the one it had under
 * the same URL, or gets one; with another one than before, it is rotated.
 */
export function mergeChannels(
  wanted: readonly RuleChannel[],
  stored: readonly StoredChannel[],
  now: Date,
): { readonly channels: readonly StoredChannel[]; readonly made: ReadonlyMap<number, string> } {
  const before = stored.filter((channel) => channel.type === 'webhook');
  const made = new Map<number, string>();
  const channels = wanted.map((channel, i): StoredChannel => {
    if (channel.type !== 'webhook') return channel;
    const found = before.findIndex(({ url }) => url === channel.url);
    // Each is taken once: of two webhooks with one URL, the second keeps the second's secret.
    const [old] = found < 0 ? [] : before.splice(found, 1);
    if (channel.secret !== undefined) return old ? rotated(old, channel.secret, now) : { ...channel };
    if (old?.secret !== undefined) return old;
    const secret = newSecret();
    made.set(i, secret);
    return { type: 'webhook', url: channel.url, secret };
  });
  return { channels, made };
}

/** A webhook with another secret; the one it had stays valid for a day. */
export function rotated(webhook: StoredWebhook, secret: string, now: Date): StoredChannel {
  if (webhook.secret === secret) return webhook;
  const { type, url } = webhook;
  if (webhook.secret === undefined) return { type, url, secret };
  return { type, url, secret, previousSecret: webhook.secret, previousUntil: new Date(now.getTime() + overlapMs).toISOString() };
}

/** A channel as answers show it: no secrets but one just `made`. */
export function shownChannel(channel: StoredChannel, made?: string): object {
  if (channel.type !== 'webhook') return channel;
  const { type, url, secret, previousUntil } = channel;
  const overlaps = previousUntil !== undefined && Date.parse(previousUntil) > Date.now();
  return {
    type,
    url,
    ...(made !== undefined && { secret: made }),
    ...(secret !== undefined && { secretHint: `…${secret.slice(-4)}` }),
    ...(overlaps && { previousSecretUntil: previousUntil }),
  };
}
