import { createSocket } from 'node:dgram';
import ipaddr from 'ipaddr.js';

const typeA = 1;
const typeAaaa = 28;

/** A name server on UDP that knows a few names and their addresses, none of which may be kept. */
export async function startNameServer(names: Readonly<Record<string, readonly string[]>>): Promise<{ address: string; close(): void }> {
  const socket = createSocket('udp4');
  socket.on('message', (query, from) => socket.send(answerTo(query, names), from.port, from.address));
  await new Promise<void>((resolve) => void socket.bind(0, '127.0.0.1', resolve));
  return { address: `127.0.0.1:${socket.address().port}`, close: () => void socket.close() };
}

/** RFC 1035 §4: the header with the query's id, its question, and a record for each address of the type asked for. */
function answerTo(query: Buffer, names: Readonly<Record<string, readonly string[]>>): Buffer {
  const labels: string[] = [];
  let end = 12;
  while (query[end]! > 0) {
    labels.push(query.subarray(end + 1, end + 1 + query[end]!).toString());
    end += 1 + query[end]!;
  }
  const type = query.readUInt16BE(end + 1);
  const known = names[labels.join('.').toLowerCase()];
  const records = (known ?? [])
    .filter((address) => (address.includes(':') ? typeAaaa : typeA) === type)
    .map((address) => recordOf(address, type));
  const header = Buffer.alloc(12);
  query.copy(header, 0, 0, 2);
  header.writeUInt16BE(known ? 0x8180 : 0x8183, 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(records.length, 6);
  return Buffer.concat([header, query.subarray(12, end + 5), ...records]);
}

/** Named by a pointer to the question, of class IN, with no time to live. */
function recordOf(address: string, type: number): Buffer {
  const data = Buffer.from(ipaddr.parse(address).toByteArray());
  return Buffer.concat([Buffer.of(0xc0, 12, 0, type, 0, 1, 0, 0, 0, 0, 0, data.length), data]);
}
