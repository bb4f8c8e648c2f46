import type { Catalog } from '../../schemas/catalog.ts';
import { connectNats, openBucket, type NatsConnection } from '../clients/nats.ts';
import { JetStreamLog } from '../log/jetstream-log.ts';
import { backoffMs, pause, untilItWorks } from '../runtime/backoff.ts';
import type { Config } from '../runtime/config.ts';
import { HeadwaterError, messageOf, refused } from '../runtime/errors.ts';
import type { Role, RoleContext } from '../runtime/lifecycle.ts';
import { LogMoved } from './log-writer.ts';
import { LogRecord, recordBucket } from './log-record.ts';
import { captureMetrics } from './metrics.ts';
import { runSession } from './session.ts';

const movedAgainMs = 10 * 60_000;
const sayAgainMs = 60_000;

export interface Capture extends Role {
  /** Settles when changes are being streamed for the first time. */
  readonly streaming: Promise<void>;
}

/** Starts capture. It runs until its signal fires or it has to refuse; everything else is tried again for as long as it takes. */
export function startCapture(context: RoleContext, parts: { catalog: Catalog; snapshot: boolean }): Capture {
  let onStreaming!: () => void;
  const streaming = new Promise<void>((resolve) => (onStreaming = resolve));
  const stopping = new AbortController();
  const signal = AbortSignal.any([context.signal, stopping.signal]);
  const done = run({ ...context, signal }, parts.catalog, parts.snapshot, onStreaming).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
  done.catch(() => undefined);
  return {
    name: 'capture',
    done,
    streaming,
    stop: async () => {
      stopping.abort();
      await done.catch(() => undefined);
    },
  };
}

/** The log's stream as the configuration describes it. */
function streamSettings(config: Config): {
  stream: string;
  subject: string;
  replicas: number;
  maxAgeMs: number | undefined;
  maxBytes: number | undefined;
} {
  return {
    stream: config.stream,
    subject: config.subject,
    replicas: Number(config.replicas),
    maxAgeMs: config.logMaxAge,
    maxBytes: config.logMaxBytes,
  };
}

async function run(context: RoleContext, catalog: Catalog, snapshot: boolean, onStreaming: () => void): Promise<void> {
  const { config, log, signal, health } = context;
  health.report('capture', false, 'starting');
  const connection = await untilItWorks('NATS', () => connectNats(config.natsUrl!, 'capture', log), { signal, log });
  try {
    const { eventLog, record } = await untilItWorks('JetStream', () => openLog(connection, config, context), { signal, log });
    const metrics = captureMetrics(context.metrics);
    const named = new Set<string>();
    let streamed = false;
    const started = (): void => {
      streamed = true;
      onStreaming();
    };
    await sessions(context, () =>
      runSession({ context, catalog, eventLog, record, metrics, snapshot, named, streamedBefore: () => streamed, onStreaming: started }),
    );
    eventLog.close();
  } finally {
    health.report('capture', false, 'stopped');
    await connection.close();
  }
}

async function openLog(
  connection: NatsConnection,
  config: Config,
  { log }: RoleContext,
): Promise<{ eventLog: JetStreamLog; record: LogRecord }> {
  const eventLog = await JetStreamLog.create(connection, streamSettings(config), log);
  const record = new LogRecord(await openBucket(connection, recordBucket(config), Number(config.replicas)));
  await record.put('epoch', (await eventLog.bounds()).epoch);
  return { eventLog, record };
}

/** One session after the other. What a session was interrupted by is said at once and then each minute. */
async function sessions({ log, signal, health }: RoleContext, session: () => Promise<void>): Promise<void> {
  let movedAt = -Infinity;
  let saidAt = -Infinity;
  let said = '';
  for (let attempt = 0; !signal.aborted; attempt++) {
    const begun = performance.now();
    try {
      await session();
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof HeadwaterError && (error.reaction === 'usage' || error.reaction === 'refused')) throw error;
      if (error instanceof LogMoved) movedAt = onceIn(movedAt, error);
      const message = messageOf(error);
      health.report('capture', false, message);
      if (message !== said || performance.now() - saidAt > sayAgainMs)
        log.warn({ error: message }, 'capture interrupted, starting again from the log’s last event');
      [said, saidAt] = [message, performance.now()];
    }
    if (performance.now() - begun > 10_000) attempt = 0;
    await pause(backoffMs(attempt, { baseMs: 100 }), signal);
  }
}

/** A late batch of our predecessor moves the log once; twice means that someone else writes. */
function onceIn(movedAt: number, error: LogMoved): number {
  if (performance.now() - movedAt < movedAgainMs)
    throw refused(
      'another_writer',
      `another process writes to the log: ${error.message}`,
      'find it (a second capture on another slot?) and stop it, then start again',
    );
  return performance.now();
}
