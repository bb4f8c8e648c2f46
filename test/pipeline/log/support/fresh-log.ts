import { jetstreamManager, nanos, type JetStreamManager, type NatsConnection } from '../../../../pipeline/clients/nats.ts';
import type { Seq } from '../../../../pipeline/log/event-log.ts';
import { JetStreamLog } from '../../../../pipeline/log/jetstream-log.ts';
import type { StreamSettings } from '../../../../pipeline/log/stream.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import { freshStreamName } from '../../../support/servers.ts';
import { until } from '../../../support/role-context.ts';

/** A log on a stream of a test's own. */
export interface FreshLog {
  readonly log: JetStreamLog;
  /** Name of the stream, and first token of its subjects. */
  readonly subject: string;
  readonly settings: StreamSettings;
  readonly jsm: JetStreamManager;
  /** Makes the server forget everything before `first`, by bounding the stream for a moment. */
  trim(first: Seq): Promise<void>;
  /** Removes the stream. */
  remove(): Promise<void>;
}

export function settingsOf(stream: string): StreamSettings {
  return { stream, subject: stream, replicas: 1, maxAgeMs: undefined, maxBytes: undefined };
}

/** Makes the server forget everything before `first`, and perhaps more of a log that goes on. */
export async function trimLog(jsm: JetStreamManager, log: JetStreamLog, stream: string, first: Seq): Promise<void> {
  const { last } = await log.bounds();
  // A stream that is to hold nothing can only be bounded by age.
  await jsm.streams.update(stream, first > last ? { max_age: nanos(100) } : { max_msgs: last - first + 1 });
  await until(async () => (await log.bounds()).first >= first, 5_000, 'the trim');
  await jsm.streams.update(stream, { max_age: 0, max_msgs: -1 });
}

export async function freshLog(connection: NatsConnection): Promise<FreshLog> {
  const stream = freshStreamName();
  const settings = settingsOf(stream);
  const log = await JetStreamLog.create(connection, settings, silentLogger());
  const jsm = await jetstreamManager(connection);
  const trim = (first: Seq): Promise<void> => trimLog(jsm, log, stream, first);
  const remove = async (): Promise<void> => {
    await jsm.streams.delete(stream);
  };
  return { log, subject: stream, settings, jsm, trim, remove };
}
