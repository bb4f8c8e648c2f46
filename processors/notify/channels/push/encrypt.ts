import { createCipheriv, createECDH, ECDH, hkdfSync, randomBytes } from 'node:crypto';

/** A browser's keys for its subscription, base64url as `PushSubscription.toJSON()` gives them. */
export interface PushKeys {
  /** Uncompressed point on P-256, 65 bytes. */
  readonly p256dh: string;
  /** 16 bytes. */
  readonly auth: string;
}

/** Header (salt, record size, key id), delimiter and tag around the text; a push service takes 4,096 bytes at least (RFC 8030 §7.2). */
const overhead = 16 + 4 + 1 + 65 + 1 + 16;

/** Bytes of the longest text that every push service takes. */
export const maxPushText = 4_096 - overhead;

/** Why a subscription's keys are none, as a sentence's end that follows the field's name; undefined when they are fine. */
export function judgePushKeys({ p256dh, auth }: PushKeys): { readonly field: 'p256dh' | 'auth'; readonly fault: string } | undefined {
  const point = decode(p256dh);
  if (point?.length !== 65 || point[0] !== 4 || !onCurve(point))
    return { field: 'p256dh', fault: 'must be a P-256 public key in base64url' };
  if (decode(auth)?.length !== 16) return { field: 'auth', fault: 'must be 16 bytes in base64url' };
  return undefined;
}

/**
 * Encrypts a message for one subscription: `aes128gcm` (RFC 8188) with the keys of Web Push (RFC 8291), one record.
 * @param text at most `maxPushText` bytes
 * @param own for the RFC's example only: else a fresh key pair and salt each time
 * @throws when the keys are none; see `judgePushKeys`
 */
export function encryptPush(text: Buffer, keys: PushKeys, own: { readonly privateKey?: Buffer; readonly salt?: Buffer } = {}): Buffer {
  const theirs = Buffer.from(keys.p256dh, 'base64url');
  const pair = createECDH('prime256v1');
  if (own.privateKey) pair.setPrivateKey(own.privateKey);
  else pair.generateKeys();
  const ours = pair.getPublicKey();
  const salt = own.salt ?? randomBytes(16);
  const info = Buffer.concat([Buffer.from('WebPush: info\0'), theirs, ours]);
  const secret = derive(pair.computeSecret(theirs), Buffer.from(keys.auth, 'base64url'), info, 32);
  const key = derive(secret, salt, Buffer.from('Content-Encoding: aes128gcm\0'), 16);
  const nonce = derive(secret, salt, Buffer.from('Content-Encoding: nonce\0'), 12);
  const size = Buffer.alloc(4);
  size.writeUInt32BE(4_096);
  const cipher = createCipheriv('aes-128-gcm', key, nonce);
  // 2: the delimiter of the last record.
  const sealed = [cipher.update(text), cipher.update(Buffer.of(2)), cipher.final(), cipher.getAuthTag()];
  return Buffer.concat([salt, size, Buffer.of(ours.length), ours, ...sealed]);
}

function derive(secret: Buffer, salt: Buffer, info: Buffer, length: number): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, salt, info, length));
}

function decode(text: string): Buffer | undefined {
  return /^[A-Za-z0-9_-]+={0,2}$/.test(text) ? Buffer.from(text, 'base64url') : undefined;
}

function onCurve(point: Buffer): boolean {
  try {
    ECDH.convertKey(point, 'prime256v1');
    return true;
  } catch {
    return false;
  }
}
