import { createHash } from 'node:crypto';

/** The namespace of alert ids (RFC 9562, version 5). It never changes. */
const namespace = Buffer.from('5b0f3c0e6d6f4c0f9b1f0a9c7e2d4a61', 'hex');

/** The id of the alert that an episode becomes: UUIDv5 of `<rule>/<revision>/<entity>/<opener>`. */
export function alertId(rule: string, revision: number, entity: string, opener: string): string {
  const hash = createHash('sha1').update(namespace).update(`${rule}/${revision}/${entity}/${opener}`).digest().subarray(0, 16);
  hash[6] = (hash[6]! & 0x0f) | 0x50;
  hash[8] = (hash[8]! & 0x3f) | 0x80;
  const hex = hash.toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
