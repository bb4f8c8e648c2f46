import { randomBytes } from 'node:crypto';
import { secretBase64 } from '../../../schemas/webhook-secret.ts';

/** A new webhook secret: `whsec_` and 32 random bytes in base64. */
export function newSecret(): string {
  return `whsec_${randomBytes(32).toString('base64')}`;
}

/** The key in a secret; undefined when it is none. */
export function secretKey(text: string): Buffer | undefined {
  const base64 = secretBase64(text);
  return base64 === undefined ? undefined : Buffer.from(base64, 'base64');
}
