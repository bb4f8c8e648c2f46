// Reads the log as a team: every event at least once, in order as long as nothing fails. What is not acknowledged comes again.
import { jetstream } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';

const { NATS_URL, NATS_STREAM, NATS_CONSUMER, NATS_INBOX_PREFIX } = process.env as Record<string, string>;
const { host, username, password, protocol } = new URL(NATS_URL!);

const connection = await connect({
  servers: host,
  user: username,
  pass: password,
  inboxPrefix: NATS_INBOX_PREFIX!,
  maxReconnectAttempts: -1,
  ...(protocol === 'tls:' && { tls: {} }),
});
const consumer = await jetstream(connection).consumers.get(NATS_STREAM!, NATS_CONSUMER);

const messages = await consumer.consume({ max_messages: 500 });
process.once('SIGTERM', () => messages.stop());
for await (const message of messages) {
  process.stdout.write(`${message.seq} ${message.subject} ${message.string()}\n`);
  message.ack();
}
await connection.drain();
