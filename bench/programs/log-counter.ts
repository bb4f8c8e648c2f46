import { jetstream } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { order, tell } from './commits.ts';

/** The yardstick of replays: the client's own ordered consumer, which counts every event and does nothing else. */
export interface LogCounterOrder {
  readonly natsUrl: string;
  readonly stream: string;
  /** How many events are in the stream. */
  readonly events: number;
}

const { natsUrl, stream, events } = await order<LogCounterOrder>();
const { hostname, port, username, password } = new URL(natsUrl);
const connection = await connect({ servers: `${hostname}:${port}`, user: username, pass: password });
const begun = performance.now();
const consumer = await jetstream(connection).consumers.get(stream, { opt_start_seq: 1 });
let count = 0;
await consumer.consume({
  max_messages: 5_000,
  callback: () => {
    if (++count === events) tell({ seconds: (performance.now() - begun) / 1_000 });
  },
});
