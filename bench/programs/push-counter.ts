import { jetstreamManager } from '@nats-io/jetstream';
import { connect, createInbox, type Msg } from '@nats-io/transport-node';
import { order, tell } from './commits.ts';

/** The yardstick of reading: a push consumer that counts what it is sent, and acknowledges nothing. */
export interface PushCounterOrder {
  readonly natsUrl: string;
  readonly stream: string;
  /** How many events are in the stream. */
  readonly events: number;
}

const { natsUrl, stream, events } = await order<PushCounterOrder>();
const { hostname, port, username, password } = new URL(natsUrl);
const connection = await connect({ servers: `${hostname}:${port}`, user: username, pass: password });
const manager = await jetstreamManager(connection);
const inbox = createInbox();
let count = 0;
let begun = 0;
connection.subscribe(inbox, {
  callback: (error: Error | null, message: Msg) => {
    if (error) throw error;
    // Heartbeats and flow control of the server.
    if (message.headers?.code === 100) {
      message.respond();
      return;
    }
    if (++count === events) tell({ seconds: (performance.now() - begun) / 1_000 });
  },
});
begun = performance.now();
await manager.consumers.add(stream, {
  deliver_subject: inbox,
  ack_policy: 'none',
  deliver_policy: 'all',
  flow_control: true,
  idle_heartbeat: 5_000_000_000,
  mem_storage: true,
});
