import type { IncomingMessage } from 'node:http';
import proxyaddr from 'proxy-addr';
import { usage } from '../pipeline/runtime/errors.ts';

/** Finds out who is asking, behind proxies that are trusted. */
export interface ClientAddress {
  readonly trust: (address: string, distance: number) => boolean;
  of(request: IncomingMessage): string;
}

/** @throws HeadwaterError `bad_config` when an entry is no address, range or known name (`loopback`, `linklocal`, `uniquelocal`) */
export function clientAddress(trustedProxies: readonly string[]): ClientAddress {
  let trust: ClientAddress['trust'];
  try {
    trust = proxyaddr.compile([...trustedProxies]);
  } catch (error) {
    throw usage(
      'bad_config',
      `HEADWATER_TRUSTED_PROXIES: ${(error as Error).message}`,
      'give addresses or ranges like 10.0.0.0/8, comma-separated',
    );
  }
  return { trust, of: (request) => proxyaddr(request, trust) };
}

/** What counts as one address: of IPv6 the network of 64 bits, since each customer has at least that. */
export function addressGroup(address: string): string {
  if (!address.includes(':') || address.startsWith('::ffff:')) return address;
  const [head = '', tail] = address.split('::');
  const groups = head.split(':').filter(Boolean);
  if (tail !== undefined) {
    const behind = tail.split(':').filter(Boolean);
    while (groups.length + behind.length < 8) groups.push('0');
    groups.push(...behind);
  }
  return groups.slice(0, 4).join(':');
}
