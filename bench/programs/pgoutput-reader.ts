import { createServer, type AddressInfo, type Socket } from 'node:net';
import { once } from 'node:events';
import { connectPostgres } from '../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { order, tell } from './commits.ts';
import { keyRecord } from './key-record.ts';

/** The yardstick: a slot of its own, nothing decoded but operation and key, and these go straight to every socket. */
export interface ReaderOrder {
  readonly url: string;
  readonly slot: string;
  readonly publication: string;
}

/** What `pg` has beneath its typed interface: the messages of the replication protocol. */
interface ReplicationConnection {
  on(event: 'copyData', listener: (message: { chunk: Buffer }) => void): void;
  once(event: 'replicationStart', listener: () => void): void;
  sendCopyFromChunk(chunk: Buffer): void;
}

const [xlogData, keepalive, statusUpdate] = [0x77, 0x6b, 0x72];
const [insertMessage, updateMessage] = [0x49, 0x55];
const statusMs = 1_000;

const { url, slot, publication } = await order<ReaderOrder>();
const client = await connectPostgres(url, 'headwater bench yardstick', silentLogger(), { replication: 'database' } as object);
const { connection } = client as unknown as { connection: ReplicationConnection };
const sockets = new Set<Socket>();
let received = 0n;

const server = createServer({ noDelay: true }, (socket) => {
  sockets.add(socket);
  socket.on('error', () => undefined);
  socket.on('close', () => sockets.delete(socket));
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');

connection.on('copyData', ({ chunk }) => {
  if (chunk[0] === xlogData) take(chunk);
  else if (chunk[0] === keepalive && chunk[17] === 1) sendStatus();
});
connection.once('replicationStart', () => tell((server.address() as AddressInfo).port));
setInterval(sendStatus, statusMs);
await client.query(`START_REPLICATION SLOT ${slot} LOGICAL 0/0 (proto_version '1', publication_names '${publication}')`);

/** XLogData: 25 bytes of header, then a message of pgoutput. */
function take(chunk: Buffer): void {
  received = chunk.readBigUInt64BE(9);
  const kind = chunk[25];
  if (kind !== insertMessage && kind !== updateMessage) return;
  // The new row follows the relation's id: 'N', the number of columns, and the first column as 't', its length and its text.
  const length = chunk.readInt32BE(34);
  const record = keyRecord(kind === insertMessage, Number(chunk.toString('latin1', 38, 38 + length)));
  for (const socket of sockets) socket.write(record);
}

function sendStatus(): void {
  const status = Buffer.alloc(34);
  status[0] = statusUpdate;
  for (const offset of [1, 9, 17]) status.writeBigUInt64BE(received, offset);
  connection.sendCopyFromChunk(status);
}
