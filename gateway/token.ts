import { createHash } from 'node:crypto';
import type { Seq } from '../pipeline/log/event-log.ts';

/** What a resume token says: everything up to `seq` of this history has been delivered. */
export interface Position {
  readonly epoch: string;
  readonly seq: Seq;
}

const version = 1;
const checksumBytes = 6;
const headBytes = 9;

/**
 * A resume token: version, sequence and epoch with a checksum, as base64url. It is stateless, so any node can read it.
 * The checksum only tells mangled tokens from whole ones: a token carries no rights, so nothing is gained by forging one.
 */
export function encodeToken({ epoch, seq }: Position): string {
  const name = Buffer.from(epoch, 'utf8');
  const payload = Buffer.alloc(headBytes + name.length);
  payload.writeUInt8(version, 0);
  payload.writeBigUInt64BE(BigInt(seq), 1);
  name.copy(payload, headBytes);
  return Buffer.concat([payload, checksum(payload)]).toString('base64url');
}

/** The position of a token, or undefined if it is not one of ours. */
export function decodeToken(token: string): Position | undefined {
  if (token.length > 256) return undefined;
  const bytes = Buffer.from(token, 'base64url');
  // Decoding skips what is not base64url: only the one spelling counts.
  if (bytes.length < headBytes + checksumBytes || bytes.toString('base64url') !== token) return undefined;
  const payload = bytes.subarray(0, -checksumBytes);
  if (!checksum(payload).equals(bytes.subarray(-checksumBytes)) || payload[0] !== version) return undefined;
  const seq = payload.readBigUInt64BE(1);
  if (seq > BigInt(Number.MAX_SAFE_INTEGER)) return undefined;
  return { epoch: payload.toString('utf8', headBytes), seq: Number(seq) };
}

function checksum(payload: Uint8Array): Buffer {
  return createHash('sha256').update('headwater resume token').update(payload).digest().subarray(0, checksumBytes);
}
