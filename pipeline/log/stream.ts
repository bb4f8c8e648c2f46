import { randomBytes } from 'node:crypto';
import { JetStreamApiError, nanos, type JetStreamManager, type StreamConfig } from '../clients/nats.ts';
import { refused, usage } from '../runtime/errors.ts';

/** What the log's stream must be. */
export interface StreamSettings {
  readonly stream: string;
  /** First token of its subjects. */
  readonly subject: string;
  readonly replicas: number;
  readonly maxAgeMs: number | undefined;
  readonly maxBytes: number | undefined;
}

/** Where the stream's metadata keeps the name of this history. */
export const epochKey = 'headwater.epoch';

/** Where it keeps the first sequence of this history. */
export const epochStartKey = 'headwater.epoch_start';

const streamNotFound = 10059;

/** A new name for a history. */
function newEpoch(): string {
  return randomBytes(6).toString('base64url');
}

/**
 * Makes the stream, or checks that the one that is there can be the log, and adjusts its bounds to the settings.
 * @throws HeadwaterError `stream_unfit` (refused), `bad_config` (usage)
 */
export async function ensureStream(jsm: JetStreamManager, settings: StreamSettings, maxPayload: number): Promise<void> {
  if (settings.maxBytes !== undefined && settings.maxBytes < 64 * maxPayload)
    throw usage(
      'bad_config',
      `HEADWATER_LOG_MAX_BYTES is ${settings.maxBytes}, less than 64 times the NATS server's max_payload (${maxPayload})`,
      `set it to ${64 * maxPayload} or more`,
    );
  const found = await jsm.streams.info(settings.stream).catch((error: unknown) => {
    if (error instanceof JetStreamApiError && error.code === streamNotFound) return undefined;
    throw error;
  });
  const info = found ? await adjusted(jsm, found.config, settings) : await jsm.streams.add(wanted(settings));
  requireFit(info.config, settings);
}

function wanted(settings: StreamSettings): Partial<StreamConfig> & { name: string } {
  return {
    name: settings.stream,
    subjects: [`${settings.subject}.>`],
    retention: 'limits',
    storage: 'file',
    num_replicas: settings.replicas,
    discard: 'old',
    deny_delete: true,
    deny_purge: true,
    allow_direct: true,
    allow_rollup_hdrs: false,
    allow_atomic: true,
    metadata: { [epochKey]: newEpoch(), [epochStartKey]: '1' },
    // Duplicates are told by position, not by message id: the window is as small as the server allows.
    duplicate_window: nanos(100),
    ...bounds(settings),
  };
}

function bounds(settings: StreamSettings): { max_age: number; max_bytes: number } {
  return { max_age: settings.maxAgeMs === undefined ? 0 : nanos(settings.maxAgeMs), max_bytes: settings.maxBytes ?? -1 };
}

async function adjusted(jsm: JetStreamManager, config: StreamConfig, settings: StreamSettings): Promise<{ config: StreamConfig }> {
  const want = bounds(settings);
  const epoch = config.metadata?.[epochKey];
  if (config.max_age === want.max_age && config.max_bytes === want.max_bytes && config.num_replicas === settings.replicas && epoch)
    return { config };
  return jsm.streams.update(settings.stream, {
    ...want,
    num_replicas: settings.replicas,
    metadata: { ...config.metadata, [epochKey]: epoch ?? newEpoch() },
  });
}

/** An old server drops what it does not know, and would then store a batch message by message: only what it echoes counts. */
function requireFit(config: StreamConfig, settings: StreamSettings): void {
  const faults: string[] = [];
  if (!config.allow_atomic) faults.push('allow_atomic is off (or the server is too old for it)');
  if (config.retention !== 'limits') faults.push(`retention is ${config.retention}, not limits`);
  if (config.storage !== 'file') faults.push(`storage is ${config.storage}, not file`);
  if (config.subjects.length !== 1 || config.subjects[0] !== `${settings.subject}.>`)
    faults.push(`its subjects are ${config.subjects.join(', ')}, not ${settings.subject}.>`);
  if (config.max_msgs_per_subject > 0) faults.push(`it keeps only ${config.max_msgs_per_subject} messages a subject`);
  if (config.allow_rollup_hdrs) faults.push('rollups are allowed');
  if (!config.deny_delete || !config.deny_purge) faults.push('deletes or purges are allowed');
  if (faults.length > 0)
    throw refused(
      'stream_unfit',
      `stream ${settings.stream} cannot be the log: ${faults.join('; ')}`,
      'name another stream with HEADWATER_STREAM, or correct this one',
    );
}

/** Begins a new history on the same stream: positions of before say nothing from here on. */
export async function renewEpoch(jsm: JetStreamManager, stream: string): Promise<string> {
  const { config, state } = await jsm.streams.info(stream);
  const epoch = newEpoch();
  await jsm.streams.update(stream, { metadata: { ...config.metadata, [epochKey]: epoch, [epochStartKey]: String(state.last_seq + 1) } });
  return epoch;
}
