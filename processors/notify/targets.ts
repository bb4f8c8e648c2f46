import { createHash } from 'node:crypto';
import type { ChannelName } from './options.ts';

/** Where a rule notifies, as `headwater.alert_rules.channels` keeps it. Rows can be written by SQL, so nothing of it is certain. */
export interface StoredChannel {
  readonly type?: unknown;
  readonly url?: unknown;
  readonly to?: unknown;
  readonly secret?: unknown;
  readonly previousSecret?: unknown;
  /** ISO 8601: until then `previousSecret` signs, too. */
  readonly previousUntil?: unknown;
}

/** Where one notification goes: an address, without what is secret about it. */
export interface PlannedTarget {
  readonly channel: ChannelName;
  /** Names the target: the hash of channel and address. */
  readonly key: string;
  readonly address: { readonly url: string } | { readonly to: string } | { readonly deviceId: string };
  /** What fails together: the origin of a URL, the mail server. */
  readonly endpoint: string;
}

export interface Device {
  readonly id: string;
  readonly endpoint: string;
}

/** The targets of a rule's channels, each once, in their order. Channels that are none are left out. */
export function targetsOf(channels: readonly StoredChannel[], devices: readonly Device[]): readonly PlannedTarget[] {
  const targets = new Map<string, PlannedTarget>();
  for (const channel of channels) for (const target of targetsOfOne(channel, devices)) targets.set(target.key, target);
  return [...targets.values()];
}

function targetsOfOne({ type, url, to }: StoredChannel, devices: readonly Device[]): PlannedTarget[] {
  if (type === 'webhook' && typeof url === 'string') return [targetAt('webhook', url, { url }, originOf(url))];
  if (type === 'email' && typeof to === 'string') return [targetAt('email', to, { to }, 'smtp')];
  if (type === 'push') return devices.map(({ id, endpoint }) => targetAt('push', endpoint, { deviceId: id }, originOf(endpoint)));
  return [];
}

function targetAt(channel: ChannelName, text: string, address: PlannedTarget['address'], endpoint: string): PlannedTarget {
  return { channel, key: shortHash(channel, text), address, endpoint: `${channel} ${endpoint}` };
}

/** The origin; of a text that is no URL, nothing: the channel says what is wrong with it. */
function originOf(url: string): string {
  return URL.canParse(url) ? new URL(url).origin : '';
}

/** 96 bits that name texts, in letters, digits, `-` and `_`. */
export function shortHash(...texts: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(texts)).digest('base64url').slice(0, 16);
}

/** The secrets to sign with for a URL, the present one first; undefined when no channel leads there any more. */
export function secretsFor(url: string, channels: readonly StoredChannel[], nowMs: number): readonly string[] | undefined {
  const found = channels.filter((channel) => channel.type === 'webhook' && channel.url === url);
  if (found.length === 0) return undefined;
  const secrets = found.flatMap(({ secret, previousSecret, previousUntil }) => [
    secret,
    typeof previousUntil === 'string' && Date.parse(previousUntil) > nowMs ? previousSecret : undefined,
  ]);
  return [...new Set(secrets.filter((secret) => typeof secret === 'string' && secret !== ''))] as string[];
}
