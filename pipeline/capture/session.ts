import type { Catalog } from '../../schemas/catalog.ts';
import { closePostgres, connectPostgres, stableText, type PgClient } from '../clients/postgres.ts';
import type { JetStreamLog } from '../log/jetstream-log.ts';
import { HeadwaterError } from '../runtime/errors.ts';
import type { RoleContext } from '../runtime/lifecycle.ts';
import { untilFirst } from '../runtime/tasks.ts';
import { connectReplication } from '../source/replication-stream.ts';
import { requireFitDatabase } from './database.ts';
import type { LogRecord } from './log-record.ts';
import type { CaptureMetrics } from './metrics.ts';
import { ensurePublications, findJoining } from './publications.ts';
import { resetHistory, type Reset } from './reset.ts';
import { createSlot, findStart, notePendingCopies, requireRoom, type NewSlot, type Start } from './start.ts';
import { inSnapshot, Streaming, type FirstCopy } from './streaming.ts';
import { selectTables, type CapturedTable } from './tables.ts';

/** The server gives a turn back with its connection: it has to notice soon that a host has vanished without a word. */
const soonGone = ['SET tcp_keepalives_idle = 10', 'SET tcp_keepalives_interval = 5', 'SET tcp_keepalives_count = 3'];

export interface SessionOptions {
  readonly context: RoleContext;
  readonly catalog: Catalog;
  readonly eventLog: JetStreamLog;
  readonly record: LogRecord;
  readonly metrics: CaptureMetrics;
  /** False: streaming begins without a copy of what is there. */
  readonly snapshot: boolean;
  /** Tables already named as left out, so that each is named once. */
  readonly named: Set<string>;
  /** Whether capture has streamed before: a standby behind the same name is then a failover under way, not a mistake. */
  readonly streamedBefore: () => boolean;
  readonly onStreaming: () => void;
}

/**
 * Capture from one connection to the database: prove that the stream goes on where the log ends, copy what is to be copied,
 * stream. It ends with the signal, or throws what went wrong, and then nothing of it goes on; the next session starts over
 * from the log's own last event.
 */
export async function runSession(options: SessionOptions): Promise<void> {
  const { context } = options;
  const control = await connectPostgres(context.config.databaseUrl!, 'headwater capture control', context.log);
  try {
    await untilFirst(
      context.signal,
      (signal) => prepareAndStream(options, control, signal).catch((error: unknown) => noteTorn(options.record, error)),
      (signal) => connectionEnd(control, signal),
    );
  } finally {
    await closePostgres(control);
  }
}

/** A torn log looks whole to the next start, so the record has to say it. */
async function noteTorn(record: LogRecord, error: unknown): Promise<never> {
  if (error instanceof HeadwaterError && error.code === 'log_torn') await record.put('torn', error.message);
  throw error;
}

/**
 * Resolves with the signal, rejects when the connection ends. A server that shuts down ends this connection first, and then
 * waits for the stream's reader to go: so the session goes. The other way round, a session that ends does not wait for an answer.
 */
function connectionEnd(control: PgClient, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    control.once('end', () => (signal.aborted ? resolve() : reject(new Error('the database connection was lost'))));
    signal.addEventListener('abort', () => void closePostgres(control).then(resolve, resolve), { once: true });
  });
}

async function prepareAndStream(options: SessionOptions, control: PgClient, signal: AbortSignal): Promise<void> {
  const { context, catalog } = options;
  const { config, log } = context;
  // A commit of ours must not wait for standbys: the clock goes on without them.
  for (const setting of [...stableText, 'SET synchronous_commit = local', ...soonGone]) await control.query(setting);
  await takeTurn(control, config.slot);
  await requireFitDatabase(control, config, options.streamedBefore());
  const { tables, leftOut } = await selectTables(control, catalog);
  for (const { name, reason } of leftOut) {
    if (!options.named.has(name)) log.warn(`${name} is left out: ${reason}`);
    options.named.add(name);
  }
  const reset = await takeReset(options, control);
  const replication = await connectReplication(config.databaseUrl!, 'headwater capture', log);
  // Making a slot waits for the application's transactions: the end of the session must not.
  const close = (): void => void closePostgres(replication);
  signal.addEventListener('abort', close, { once: true });
  try {
    const copy: FirstCopy = reset === 'accept_gap' ? 'backfill' : reset === 'resnapshot' || options.snapshot ? 'snapshot' : 'none';
    const { start, slot } = await prepare(options, control, replication, tables, copy);
    const streaming = new Streaming(options, control, start, { copy, slot, tables, reset });
    await streaming.run(signal, () => closePostgres(replication));
  } finally {
    signal.removeEventListener('abort', close);
    await closePostgres(replication);
  }
}

/** One capture a slot: another one waits here, before it could change anything. */
async function takeTurn(control: PgClient, slot: string): Promise<void> {
  const { rows } = await control.query<{ taken: boolean }>(
    `SELECT pg_try_advisory_lock(hashtextextended('headwater capture ' || $1, 0)) AS taken`,
    [slot],
  );
  if (!rows[0]!.taken) throw new HeadwaterError('slot_active', `another capture works on slot ${slot}: standing by`, { reaction: 'retry' });
}

/** Carries out what an operator has asked for. The request stays until the new epoch has its first events. */
async function takeReset({ context, eventLog, record }: SessionOptions, control: PgClient): Promise<Reset | undefined> {
  const reset = (await record.get('reset')) as Reset | undefined;
  if (reset !== undefined) await resetHistory(reset, { control, slot: context.config.slot, eventLog, record, log: context.log });
  return reset;
}

/** Decides where to start, and brings publications, slot and the record of copies in line with it. */
async function prepare(
  { context, eventLog, record }: SessionOptions,
  control: PgClient,
  replication: PgClient,
  tables: readonly CapturedTable[],
  copy: FirstCopy,
): Promise<{ start: Start; slot: NewSlot | undefined }> {
  const { config, log } = context;
  const start = await findStart(control, replication, config.slot, eventLog, record);
  const first = start.decision.start === 'first';
  const goesOn = start.decision.start === 'stream' && !start.decision.copyAll;
  if (first && copy === 'snapshot') await requireRoom(config, inSnapshot(tables, config.snapshotMax), log);
  const joining = goesOn ? await findJoining(control, config.publication, tables) : tables;
  // Noted before they are published: a crash in between copies a table once more, never too little.
  const pending = await notePendingCopies(
    record,
    tables,
    new Set(joining.map((table) => table.name)),
    first && copy === 'none' ? 'done' : 'pending',
  );
  if (goesOn && pending.length > 0) log.info({ tables: pending }, 'these tables are copied by backfill');
  await ensurePublications(control, config.publication, tables, log);
  if (!first) return { start, slot: undefined };
  const slot = await createSlot(replication, config.slot, log);
  return { start: { ...start, end: { seq: start.end.seq, position: { lsn: slot.consistentPoint - 1n, index: 0 } } }, slot };
}
