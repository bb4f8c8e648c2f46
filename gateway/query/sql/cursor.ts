import { createHmac, timingSafeEqual } from 'node:crypto';

/** What binds a cursor: to whom it was given, and for which query. */
export interface CursorSeal {
  readonly secret: string;
  readonly owner: string;
  /** The query without its limit: pages may differ in size. */
  readonly shape: string;
}

const version = 1;
const sealBytes = 16;
/** No text of a keyset makes a cursor longer than a request may be, in characters of the cursor. */
export const longestCursor = 32_768;

/** A cursor: version, seal, and the texts of the last row's keys, as base64url. Who can read the row may read it; nobody can make one. */
export function sealCursor(keyset: readonly (string | null)[], seal: CursorSeal): string {
  const payload = Buffer.from(JSON.stringify(keyset), 'utf8');
  return Buffer.concat([Buffer.of(version), sealOf(payload, seal), payload]).toString('base64url');
}

/** The keys in a cursor; undefined when it was not made for this query and owner. */
export function openCursor(cursor: string, seal: CursorSeal): readonly (string | null)[] | undefined {
  if (cursor.length > longestCursor) return undefined;
  const bytes = Buffer.from(cursor, 'base64url');
  // Decoding skips what is not base64url: only the one spelling counts.
  if (bytes[0] !== version || bytes.length <= 1 + sealBytes || bytes.toString('base64url') !== cursor) return undefined;
  const payload = bytes.subarray(1 + sealBytes);
  if (!timingSafeEqual(bytes.subarray(1, 1 + sealBytes), sealOf(payload, seal))) return undefined;
  return JSON.parse(payload.toString('utf8')) as readonly (string | null)[];
}

/** Each part with its length, so that none can run into the next. */
function sealOf(payload: Uint8Array, { secret, owner, shape }: CursorSeal): Buffer {
  const hmac = createHmac('sha256', secret);
  for (const part of ['headwater query cursor', owner, shape]) hmac.update(`${Buffer.byteLength(part)}:${part}`);
  return hmac.update(payload).digest().subarray(0, sealBytes);
}
