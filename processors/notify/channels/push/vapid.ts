import { createECDH, createPrivateKey, sign, type KeyObject } from 'node:crypto';

/** What a push service knows this server by (RFC 8292). */
export interface Vapid {
  /** Uncompressed point on P-256, base64url; browsers subscribe with it. */
  readonly publicKey: string;
  readonly key: KeyObject;
  /** `mailto:` or `https:` URL of who can be asked about it. */
  readonly subject: string | undefined;
}

/** Push services refuse more than a day. */
const lifetimeSeconds = 12 * 3_600;

/** The key pair as the settings have it, base64url; undefined when it is none, or the two do not belong together. */
export function readVapid(publicKey: string, privateKey: string, subject: string | undefined): Vapid | undefined {
  const secret = Buffer.from(privateKey, 'base64url');
  if (secret.length !== 32) return undefined;
  try {
    const pair = createECDH('prime256v1');
    pair.setPrivateKey(secret);
    const point = pair.getPublicKey();
    if (!point.equals(Buffer.from(publicKey, 'base64url'))) return undefined;
    const [x, y] = [point.subarray(1, 33), point.subarray(33)].map((half) => half.toString('base64url')) as [string, string];
    const key = createPrivateKey({ key: { kty: 'EC', crv: 'P-256', d: secret.toString('base64url'), x, y }, format: 'jwk' });
    return { publicKey: point.toString('base64url'), key, subject };
  } catch {
    return undefined;
  }
}

/** The `Authorization` header for a request to an endpoint: a token signed for its origin, and the key to check it with. */
export function vapidHeader(vapid: Vapid, endpoint: URL, now: number): string {
  const claims = {
    aud: endpoint.origin,
    exp: Math.floor(now / 1_000) + lifetimeSeconds,
    ...(vapid.subject === undefined ? {} : { sub: vapid.subject }),
  };
  const text = [{ typ: 'JWT', alg: 'ES256' }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  const signature = sign('sha256', Buffer.from(text), { key: vapid.key, dsaEncoding: 'ieee-p1363' });
  return `vapid t=${text}.${signature.toString('base64url')}, k=${vapid.publicKey}`;
}
