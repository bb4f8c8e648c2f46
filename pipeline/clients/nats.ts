import { connect, createInbox, headers, nanos, nuid, type MsgHdrs, type NatsConnection } from '@nats-io/transport-node';
import {
  jetstreamManager,
  JetStreamApiError,
  type ConsumerConfig,
  type ConsumerInfo,
  type JetStreamManager,
  type StreamConfig,
} from '@nats-io/jetstream';
import { Kvm, type KV, type KvEntry } from '@nats-io/kv';
import { backoffMs, pause } from '../runtime/backoff.ts';
import { messageOf, refused, usage } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logging.ts';
import { withoutSecrets } from '../runtime/without-secrets.ts';

export { headers, nanos, nuid, jetstreamManager, JetStreamApiError };
export type { ConsumerConfig, ConsumerInfo, JetStreamManager, KV, KvEntry, MsgHdrs, NatsConnection, StreamConfig };
export type { Msg } from '@nats-io/transport-node';

/** Atomic batch publish as we use it, and the security fixes up to then. */
const oldestServer = [2, 14, 4] as const;

/** What the server answers about a stream that is not there. */
const streamNotFound = 10059;

/** Users of `nats.conf` that may only use an inbox of their own. */
const ownInbox = new Set(['capture', 'processor', 'gateway']);

/**
 * Connects, and stays connected: once this has returned, the client reconnects for ever with jitter.
 * @throws HeadwaterError `nats_unauthorized` (usage), `nats_too_old` (refused); other failures as the client gives them
 */
export async function connectNats(url: string, name: string, log: Logger): Promise<NatsConnection> {
  const { protocol, hostname, port, username, password } = new URL(url);
  const user = decodeURIComponent(username);
  const connection = await connect({
    servers: `${hostname}:${port || '4222'}`,
    name: `headwater ${name}`,
    ...(user ? { user, pass: decodeURIComponent(password) } : {}),
    ...(protocol === 'tls:' ? { tls: {} } : {}),
    ...(ownInbox.has(user) ? { inboxPrefix: `_INBOX_${user}` } : {}),
    maxReconnectAttempts: -1,
    // Users of a server that restarts may be loaded a moment later.
    ignoreAuthErrorAbort: true,
    reconnectTimeWait: 200,
    reconnectJitter: 300,
    pingInterval: 10_000,
    maxPingOut: 2,
    // Stack traces captured for each request make publishing 1.6 times slower.
    noAsyncTraces: true,
  }).catch((error: unknown) => {
    if (/authorization|authentication/i.test(messageOf(error)))
      throw usage(
        'nats_unauthorized',
        `NATS at ${withoutSecrets(url)} refuses the user or password`,
        'correct NATS_URL: nats://user:password@host:port',
      );
    throw error;
  });
  void watch(connection, log);
  void connection.closed().then((error) => {
    if (error) log.error({ error: messageOf(error) }, 'the NATS client has given up its connection: restart this process');
  });
  try {
    requireVersion(connection.info?.version ?? '0');
  } catch (error) {
    await connection.close();
    throw error;
  }
  return connection;
}

/** What the client throws when nobody has answered a request. */
const unanswered = new Set([
  'TimeoutError',
  'NoResponders',
  'JetStreamNotEnabled',
  'RequestError',
  'ConnectionError',
  'ClosedConnectionError',
]);

/** Was there no answer, rather than one that refuses? */
export function isUnanswered(error: unknown): boolean {
  return error instanceof Error && unanswered.has(error.name);
}

function isUnserved(error: unknown): boolean {
  return error instanceof Error && (error.name === 'JetStreamNotEnabled' || /no ?responders/i.test(`${error.name} ${error.message}`));
}

/** So long a server may take to read its accounts anew (ms): until then nobody serves JetStream's API. */
const servedMs = 5_000;

/** Asks JetStream's API again for a while when nobody is there to answer: nothing was done then. */
export async function whenServed<T>(ask: () => Promise<T>): Promise<T> {
  const until = performance.now() + servedMs;
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask();
    } catch (error) {
      if (!isUnserved(error) || performance.now() > until) throw error;
      await pause(backoffMs(attempt, { capMs: 500 }));
    }
  }
}

/** Calls `listener` each time the connection was lost or is back, until it is closed. */
export function onConnectionChange(connection: NatsConnection, listener: (state: 'lost' | 'back') => void): () => void {
  const statuses = connection.status();
  void (async () => {
    for await (const status of statuses) {
      if (status.type === 'disconnect') listener('lost');
      if (status.type === 'reconnect') listener('back');
    }
  })();
  return () => (statuses as unknown as { stop(): void }).stop();
}

/** Sends messages of the client protocol that are already in their wire form; throws when the connection is closed. */
export function sendRaw(connection: NatsConnection, frame: Uint8Array): void {
  if (connection.isClosed()) throw new Error('the NATS connection is closed');
  (connection as unknown as { protocol: { sendCommand(frame: Uint8Array): void } }).protocol.sendCommand(frame);
}

/** A new inbox that this connection's user may subscribe to. */
export function newInbox(connection: NatsConnection): string {
  return createInbox((connection as NatsConnection & { options?: { inboxPrefix?: string } }).options?.inboxPrefix ?? '_INBOX');
}

async function watch(connection: NatsConnection, log: Logger): Promise<void> {
  for await (const status of connection.status()) {
    if (status.type === 'disconnect') log.warn('NATS connection lost, reconnecting until it is back');
    if (status.type === 'reconnect') log.info('NATS connection is back');
    if (status.type === 'error') log.error({ error: messageOf(status.error) }, 'NATS reports an error');
  }
}

function requireVersion(version: string): void {
  const parts = version.split(/[.-]/).map(Number);
  for (const [i, least] of oldestServer.entries()) {
    const part = parts[i] ?? 0;
    if (part > least) return;
    if (part < least || Number.isNaN(part))
      throw refused(
        'nats_too_old',
        `the NATS server is version ${version}; atomic batches need ${oldestServer.join('.')} or newer`,
        'upgrade the NATS server, or unset NATS_URL to use a local one',
      );
  }
}

/** The key-value bucket beside the log, if it is there. */
export async function findBucket(connection: NatsConnection, bucket: string): Promise<KV | undefined> {
  try {
    const found = await new Kvm(connection).open(bucket);
    await found.status();
    return found;
  } catch (error) {
    if (error instanceof JetStreamApiError && error.code === streamNotFound) return undefined;
    throw error;
  }
}

/** The key-value bucket beside the log, made if it is not there. */
export async function openBucket(connection: NatsConnection, bucket: string, replicas: number): Promise<KV> {
  return new Kvm(connection).create(bucket, { history: 1, replicas });
}
