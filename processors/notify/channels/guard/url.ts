import { isIP, isIPv4 } from 'node:net';
import { addressJudge } from './address.ts';

/** What webhooks and push endpoints may lead to. */
export interface UrlRules {
  /**
   * `HEADWATER_ALLOW_PRIVATE_WEBHOOKS`, for development: also `http://`, names without a dot, and loopback and private addresses.
   * Metadata addresses, link-local ones and the other special ranges stay refused.
   */
  readonly allowPrivate: boolean;
}

/** A URL that may be called, or why not: a sentence's end that follows the field's name, `must …` or `leads to …`. */
export type UrlJudgement = { readonly url: URL; readonly fault?: undefined } | { readonly url?: undefined; readonly fault: string };

const maxLength = 2_048;
const development = 'for development, HEADWATER_ALLOW_PRIVATE_WEBHOOKS=true allows it';

/** Names that machines give themselves and their neighbours (RFC 6761, 6762, 8375, 9476; ICANN's .internal; what routers and clusters use). */
const privateNames = /(?:^|\.)(?:localhost|localdomain|localhost6|local|internal|intranet|private|corp|home|lan|svc|home\.arpa|alt|onion)$/;

/** Names at which clouds tell machines their secrets. They stay shut also in development. */
const metadataNames =
  /^(?:metadata|instance-data|metadata\.goog|(?:.+\.)?metadata\.(?:google\.internal|azure\.internal|tencentyun\.com|packet\.net|platformequinix\.com)|instance-data\.ec2\.internal)$/;

/**
 * Judges where a webhook or a push endpoint leads, by its text alone: at the time of writing, and again before each request. What a name
 * resolves to is judged when connecting. `https://` alone, unless private webhooks are allowed; any port; no user info. Host names are
 * judged as the URL standard (WHATWG) reads them, so no other spelling of an address gets through; spellings that only confuse people
 * (octal, hexadecimal, short, full-width, percent-encoded, trailing dot, backslash) are refused as such.
 */
export function judgeUrl(text: string, rules: UrlRules): UrlJudgement {
  const fault = judgeText(text, rules);
  if (fault !== undefined) return { fault };
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url) return { fault: 'must be a URL like https://example.com/hook' };
  const hostFault = judgeHost(url.hostname, rules) ?? judgeSpelling(text, url);
  if (hostFault !== undefined) return { fault: hostFault };
  if (url.port === '0') return { fault: 'must not name port 0' };
  return { url };
}

/** What the parser would repair in silence, or read otherwise than a person does. */
function judgeText(text: string, { allowPrivate }: UrlRules): string | undefined {
  if (text.length > maxLength) return `must be at most ${maxLength} characters long`;
  if (/[\s\p{Cc}\p{Cf}]/u.test(text)) return 'must not contain spaces, line breaks, control characters or invisible ones';
  if (text.includes('\\')) return 'must not contain a backslash';
  if (!/^https?:\/\/[^/?#]/i.test(text))
    return allowPrivate ? 'must begin with https:// or http:// and a host' : 'must begin with https:// and a host';
  if (!allowPrivate && /^http:/i.test(text)) return `must begin with https://; ${development}`;
  const authority = authorityOf(text);
  if (authority.includes('@')) return 'must not contain a user name or a password';
  if (authority.includes('%')) return 'must not contain % in its host';
  return undefined;
}

function judgeHost(host: string, { allowPrivate }: UrlRules): string | undefined {
  const address = host.startsWith('[') ? host.slice(1, -1) : host;
  if (isIP(address)) {
    const fault = addressJudge(allowPrivate)(address);
    return fault && `leads to ${address}, ${fault.kind}, which is not allowed${fault.open ? `; ${development}` : ''}`;
  }
  const name = host.replace(/\.+$/, '');
  if (metadataNames.test(name)) return `leads to ${name}, a cloud metadata service, which is not allowed`;
  if (!allowPrivate && (privateNames.test(name) || !name.includes('.')))
    return `leads to ${name || host}, which is not a name on the public internet; ${development}`;
  if (host.endsWith('.')) return 'must not have a dot at the end of its host';
  return undefined;
}

/** An IPv4 address has one spelling here; the parser knows many. */
function judgeSpelling(text: string, url: URL): string | undefined {
  if (!isIPv4(url.hostname)) return undefined;
  const written = authorityOf(text).replace(/:\d*$/, '');
  return written === url.hostname ? undefined : `must write its address as ${url.hostname}`;
}

function authorityOf(text: string): string {
  return /^https?:\/\/([^/?#]*)/i.exec(text)?.[1] ?? '';
}
