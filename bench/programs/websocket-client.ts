import { WebSocket, type RawData } from 'ws';
import { Arrivals, order, tell, type Commits } from './commits.ts';

export interface WebSocketOrder {
  /** `http://host:port` of the gateway. */
  readonly gateway: string;
  readonly key: string;
  readonly channel: string;
  readonly commits: Commits;
}

interface Frame {
  readonly type: string;
  readonly code?: string;
  readonly message?: string;
  readonly event?: { readonly op: string; readonly key: { readonly id: string } };
}

const retryMs = 200;

const { gateway, key, channel, commits } = await order<WebSocketOrder>();
const arrivals = new Arrivals(commits);
const socket = new WebSocket(`${gateway.replace('http', 'ws')}/v2/realtime`);
const send = (frame: object): void => socket.send(JSON.stringify(frame));
socket.on('open', () => send({ type: 'connect', auth: { apiKey: key } }));
socket.on('message', (data) => receive(process.hrtime.bigint(), data));
socket.on('close', (code, reason) => {
  throw new Error(`the gateway closed the connection: ${code} ${reason.toString()}`);
});

function subscribe(): void {
  send({ type: 'subscribe', id: 1, sub: 'bench', channel });
}

/** Tells when it is live, and when all events are there. */
function receive(now: bigint, data: RawData): void {
  const frame = JSON.parse((data as Buffer).toString('utf8')) as Frame;
  if (frame.event) {
    arrivals.record(frame.event.op === 'insert', Number(frame.event.key.id), now);
    if (arrivals.complete) tell(arrivals);
  } else if (frame.type === 'connected') subscribe();
  else if (frame.type === 'caught_up') tell('ready');
  // A channel without a catalogue is there once the gateway has read the table's first event.
  else if (frame.code === 'unknown_channel') setTimeout(subscribe, retryMs);
  else if (frame.type === 'error') throw new Error(`${frame.code}: ${frame.message}`);
}
