import type { Seq } from '../pipeline/log/event-log.ts';

const textOpcode = 0x81;

/** A whole WebSocket text frame from a server, which is not masked (RFC 6455, section 5.2), of these parts in one buffer. */
export function textFrame(parts: readonly Uint8Array[]): Buffer {
  let length = 0;
  for (const part of parts) length += part.length;
  const headerLength = length < 126 ? 2 : length < 65_536 ? 4 : 10;
  const frame = Buffer.allocUnsafe(headerLength + length);
  frame[0] = textOpcode;
  if (headerLength === 2) frame[1] = length;
  else if (headerLength === 4) {
    frame[1] = 126;
    frame.writeUInt16BE(length, 2);
  } else {
    frame[1] = 127;
    frame.writeBigUInt64BE(BigInt(length), 2);
  }
  let offset = headerLength;
  for (const part of parts) {
    frame.set(part, offset);
    offset += part.length;
  }
  return frame;
}

/** A ping without a body: one and the same bytes for every connection. */
export const pingFrame: Buffer = Buffer.from([0x89, 0x00]);

/** A control frame: an object as JSON. */
export function jsonFrame(value: object): Buffer {
  return textFrame([Buffer.from(JSON.stringify(value))]);
}

const endOfObject = Buffer.from('}');

/** An event: the log's own bytes spliced into the frame. With `sub` only while that subscription replays. */
export function eventFrame(seq: Seq, channel: string, event: Uint8Array, sub?: string): Buffer {
  const head = Buffer.from(`{"type":"event","seq":${seq},"channel":${JSON.stringify(channel)},"event":`);
  return textFrame([head, event, sub === undefined ? endOfObject : Buffer.from(`,"sub":${JSON.stringify(sub)}}`)]);
}

/** A page of current rows. */
export function snapshotFrame(
  sub: string,
  asOf: Seq,
  items: readonly { readonly seq: Seq; readonly event: Uint8Array }[],
  more: boolean,
): Buffer {
  const parts: Uint8Array[] = [Buffer.from(`{"type":"snapshot","sub":${JSON.stringify(sub)},"asOf":${asOf},"items":[`)];
  for (const [i, { seq, event }] of items.entries())
    parts.push(Buffer.from(`${i === 0 ? '' : ','}{"seq":${seq},"event":`), event, endOfObject);
  parts.push(Buffer.from(`],"more":${more}}`));
  return textFrame(parts);
}
