import { randomBytes } from 'node:crypto';

/** The sizes of a key that Standard Webhooks asks for. */
const minBytes = 24;
const maxBytes = 64;

/** A new webhook secret: `whsec_` and 32 random bytes in base64. */
export function newSecret(): string {
  return `whsec_${randomBytes(32).toString('base64')}`;
}

/** Why a text is no webhook secret, as a sentence's end that follows the field's name. The text itself is never repeated. */
export function judgeSecret(text: string): string | undefined {
  return secretKey(text) ? undefined : `must be whsec_ followed by ${minBytes} to ${maxBytes} bytes in base64, or left out`;
}

/** The key in a secret `whsec_<base64>`, as Standard Webhooks writes it; the prefix may be left out. Undefined when it is none. */
export function secretKey(text: string): Buffer | undefined {
  const base64 = text.startsWith('whsec_') ? text.slice('whsec_'.length) : text;
  if (!/^(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(base64)) return undefined;
  const key = Buffer.from(base64, 'base64');
  return key.length >= minBytes && key.length <= maxBytes ? key : undefined;
}
