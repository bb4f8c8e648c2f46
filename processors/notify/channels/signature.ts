import { createHmac } from 'node:crypto';
import { secretKey } from './secret.ts';

/** The headers of Standard Webhooks, which receivers check with any of its libraries. */
export interface SignedHeaders extends Record<string, string> {
  readonly 'webhook-id': string;
  readonly 'webhook-timestamp': string;
}

/**
 * Signs a webhook as Standard Webhooks 1.0 says: HMAC-SHA256 of `<id>.<timestamp>.<body>`, one signature `v1,<base64>` for each
 * secret, separated by spaces, so that secrets can change without a gap. Without secrets there is no signature.
 * @param at seconds since 1970, of this attempt
 * @returns undefined when a secret is none
 */
export function signedHeaders(id: string, at: number, body: Buffer, secrets: readonly string[]): SignedHeaders | undefined {
  const keys = secrets.map(secretKey);
  const signatures: string[] = [];
  for (const key of keys) {
    if (!key) return undefined;
    signatures.push(`v1,${createHmac('sha256', key).update(`${id}.${at}.`).update(body).digest('base64')}`);
  }
  return {
    'webhook-id': id,
    'webhook-timestamp': String(at),
    ...(signatures.length === 0 ? {} : { 'webhook-signature': signatures.join(' ') }),
  };
}
