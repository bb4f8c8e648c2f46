import { connect } from 'node:net';
import { Arrivals, order, tell, type Commits } from './commits.ts';
import { readKeyRecord, recordBytes } from './key-record.ts';

export interface SocketOrder {
  readonly port: number;
  readonly commits: Commits;
}

const { port, commits } = await order<SocketOrder>();
const arrivals = new Arrivals(commits);
let rest = Buffer.alloc(0);
const socket = connect({ host: '127.0.0.1', port, noDelay: true });
socket.on('connect', () => tell('ready'));
socket.on('data', (chunk) => {
  const now = process.hrtime.bigint();
  const source = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
  let at = 0;
  for (; source.length - at >= recordBytes; at += recordBytes) {
    const { insert, id } = readKeyRecord(source, at);
    arrivals.record(insert, id, now);
    if (arrivals.complete) tell(arrivals);
  }
  rest = source.subarray(at);
});
socket.on('close', () => {
  throw new Error('the yardstick closed the connection');
});
