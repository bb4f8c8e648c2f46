/** The sizes of a key that Standard Webhooks asks for. */
const bytes = { least: 24, most: 64 } as const;
const prefix = 'whsec_';

/** The base64 of a webhook secret `whsec_<base64>` (Standard Webhooks); the prefix may be left out. Undefined when it is no secret. */
export function secretBase64(text: string): string | undefined {
  const base64 = text.startsWith(prefix) ? text.slice(prefix.length) : text;
  if (!/^(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/u.test(base64)) return undefined;
  const length = (base64.length / 4) * 3 - (base64.length - base64.replace(/=+$/u, '').length);
  return length >= bytes.least && length <= bytes.most ? base64 : undefined;
}

/** Why a text is no webhook secret, as a sentence's end that follows the field's name. The text itself is never repeated. */
export function judgeSecret(text: string): string | undefined {
  if (text.startsWith(prefix) && secretBase64(text) !== undefined) return undefined;
  return `must be ${prefix} followed by ${bytes.least} to ${bytes.most} bytes in base64, or be left out`;
}
