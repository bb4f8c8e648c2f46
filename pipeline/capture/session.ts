import { once } from 'node:events';
import type { Catalog } from '../../schemas/catalog.ts';
import { connectPostgres, stableText, type PgClient } from '../clients/postgres.ts';
import type { JetStreamLog } from '../log/jetstream-log.ts';
import { headerBytes } from '../log/publisher.ts';
import type { RoleContext } from '../runtime/lifecycle.ts';
import { formatLsn } from '../source/position.ts';
import { connectReplication } from '../source/replication-stream.ts';
import { PostgresSource } from '../source/postgres-source.ts';
import { Backfill } from './backfill.ts';
import { BackfillQueue } from './backfill-queue.ts';
import { CaptureLog, beforeStream } from './capture-log.ts';
import { ChangeTracker } from './change-tracker.ts';
import { Clock } from './clock.ts';
import { requireFitDatabase } from './database.ts';
import type { LogRecord } from './log-record.ts';
import { resetHistory, type Reset } from './reset.ts';
import { LogWriter } from './log-writer.ts';
import type { CaptureMetrics } from './metrics.ts';
import { Snapshot } from './snapshot.ts';
import { createSlot, describeStart, findStart, loggedSchemas, notePendingCopies, requireRoom, type Start } from './start.ts';
import { ensurePublications, publicationList, publicationNames, selectTables, type CapturedTable } from './tables.ts';
import { Visibility } from './visibility.ts';

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
  readonly onStreaming: () => void;
}

/**
 * Capture from one connection to the database: prove that the stream goes on where the log ends, copy what is to be copied,
 * stream. It ends with the signal, or throws what went wrong; the next session starts over from the log's own last event.
 */
export async function runSession(options: SessionOptions): Promise<void> {
  const { context } = options;
  const ended = new AbortController();
  const signal = AbortSignal.any([context.signal, ended.signal]);
  const control = await connectPostgres(context.config.databaseUrl!, 'headwater capture control', context.log);
  try {
    await Promise.race([stream(options, control, signal), connectionEnd(control)]);
  } finally {
    ended.abort();
    await control.end().catch(() => undefined);
  }
}

/** A server that shuts down ends this connection first, and then waits for the stream's reader to go: so the session goes. */
async function connectionEnd(control: PgClient): Promise<never> {
  await once(control, 'end');
  throw new Error('the database connection was lost');
}

async function stream(options: SessionOptions, control: PgClient, signal: AbortSignal): Promise<void> {
  const { context, catalog, eventLog, record } = options;
  const { config, log } = context;
  // A commit of ours must not wait for standbys: the clock goes on without them.
  for (const setting of [...stableText, 'SET synchronous_commit = local']) await control.query(setting);
  await requireFitDatabase(control, config.slot);
  const selection = await selectTables(control, catalog);
  for (const { name, reason } of selection.leftOut) {
    if (!options.named.has(name)) log.warn(`${name} is left out: ${reason}`);
    options.named.add(name);
  }
  const reset = await takeReset(options, control);
  const publications = publicationNames(config.publication);
  const replication = await connectReplication(config.databaseUrl!, 'headwater capture', log);
  let start: Start;
  let first: { consistentPoint: bigint; snapshot: string } | undefined;
  try {
    start = await findStart(control, replication, config.slot, eventLog, record);
    if (start.decision.start === 'first' && options.snapshot)
      await requireRoom(config, inSnapshot(selection.tables, config.snapshotMax), log);
    await ensurePublications(control, publications, selection.tables, log);
    if (start.decision.start === 'first') {
      first = await createSlot(replication, config.slot, log);
      start = { ...start, end: { seq: start.end.seq, position: { lsn: first.consistentPoint - 1n, index: 0 } } };
    }
    const session = new Streaming(options, control, start, signal);
    const copy = reset === 'accept_gap' ? 'backfill' : options.snapshot ? 'snapshot' : 'none';
    await session.prepare(selection.tables, copy);
    await session.run(copy, first, selection.tables, async () => {
      await replication.end();
    });
  } finally {
    await replication.end().catch(() => undefined);
  }
}

/** How the rows that are there at a first start reach the log. */
type FirstCopy = 'snapshot' | 'backfill' | 'none';

/** Carries out what an operator has asked for. The request goes last, so that a crash in between repeats it. */
async function takeReset({ context, eventLog, record }: SessionOptions, control: PgClient): Promise<Reset | undefined> {
  const reset = (await record.get('reset')) as Reset | undefined;
  if (reset === undefined) return undefined;
  await resetHistory(reset, { control, slot: context.config.slot, eventLog, record, log: context.log });
  await record.forget('reset');
  return reset;
}

function inSnapshot(tables: readonly CapturedTable[], max: number): readonly CapturedTable[] {
  return tables.filter((table) => table.size <= max);
}

/** The parts of a session once it is clear where it starts. */
class Streaming {
  readonly #options: SessionOptions;
  readonly #control: PgClient;
  readonly #start: Start;
  readonly #signal: AbortSignal;
  readonly #tracker = new ChangeTracker();
  readonly #out: CaptureLog;
  readonly #eventLimit: number;
  #schemas = new Map<string, string>();
  #unknownBefore: readonly number[] = [];

  constructor(options: SessionOptions, control: PgClient, start: Start, signal: AbortSignal) {
    const { context, eventLog, metrics } = options;
    this.#options = options;
    this.#control = control;
    this.#start = start;
    this.#signal = signal;
    this.#eventLimit = eventLog.maxPayload - headerBytes;
    const writer = new LogWriter(eventLog, start.end, context.log, signal);
    this.#out = new CaptureLog(writer, this.#tracker, this.#eventLimit, start.between, ({ events, bytes, seconds }) => {
      metrics.events.inc(events);
      metrics.batches.inc();
      metrics.bytes.inc(bytes);
      metrics.ackSeconds.observe(seconds);
      metrics.head.set(writer.end.seq);
    });
  }

  async prepare(tables: readonly CapturedTable[], copy: FirstCopy): Promise<void> {
    const { context, eventLog, record } = this.#options;
    const { decision, epochStart } = this.#start;
    this.#schemas = await loggedSchemas(eventLog, context.config.subject, epochStart);
    const { rows } = await this.#control.query<{ snapshot: string }>('SELECT pg_current_snapshot()::text AS snapshot');
    this.#unknownBefore = new Visibility(rows[0]!.snapshot).inProgress;
    const pending = await notePendingCopies(record, tables, decision.start === 'stream' && decision.copyAll);
    if (decision.start === 'first' && copy === 'none')
      for (const table of tables) await record.putCopy({ table: table.name, oid: table.oid, state: 'done', rows: 0 });
    if (decision.start === 'stream' && pending.length > 0)
      context.log.info({ tables: pending }, 'new tables: their rows are copied by backfill');
  }

  async run(
    copy: FirstCopy,
    first: { consistentPoint: bigint; snapshot: string } | undefined,
    tables: readonly CapturedTable[],
    releaseSnapshot: () => Promise<void>,
  ): Promise<void> {
    const writing = this.#out.run();
    const stop = (): void => this.#out.stop();
    this.#signal.addEventListener('abort', stop, { once: true });
    try {
      await Promise.race([writing, this.#copyThenStream(copy, first, tables, releaseSnapshot)]);
    } finally {
      this.#signal.removeEventListener('abort', stop);
      this.#out.stop();
      await writing.catch(() => undefined);
    }
  }

  async #copyThenStream(
    how: FirstCopy,
    first: { consistentPoint: bigint; snapshot: string } | undefined,
    tables: readonly CapturedTable[],
    releaseSnapshot: () => Promise<void>,
  ): Promise<void> {
    const { context, catalog, record } = this.#options;
    const { config, log } = context;
    if (first && how === 'snapshot') {
      const copy = new Snapshot(first.consistentPoint, {
        url: config.databaseUrl!,
        catalog,
        subject: config.subject,
        eventLimit: this.#eventLimit,
        log,
        record,
        out: this.#out,
        schemas: this.#schemas,
        signal: this.#signal,
      });
      await copy.copy(first.snapshot, inSnapshot(tables, config.snapshotMax));
    }
    if (first && how === 'backfill') this.#markGap(first.consistentPoint);
    await releaseSnapshot();
    const source = new PostgresSource({
      url: config.databaseUrl!,
      slot: config.slot,
      publications: publicationList(config.publication),
      catalog,
      subject: config.subject,
      eventLimit: this.#eventLimit,
      log,
      client: this.#control,
      schemas: this.#schemas,
    });
    const clock = new Clock({
      control: this.#control,
      config,
      source,
      out: this.#out,
      record,
      tracker: this.#tracker,
      metrics: this.#options.metrics,
      slot: config.slot,
    });
    await Promise.race([this.#read(source, first), clock.run(this.#signal), this.#backfill(clock), record.resetAsked(this.#signal)]);
    await clock.confirm();
  }

  #markGap(consistentPoint: bigint): void {
    const { config } = this.#options.context;
    const note = 'changes before this may be missing; every table is copied again by backfill';
    const data = { from: formatLsn(consistentPoint), note };
    this.#out.add({
      due: () => true,
      run: () => this.#out.writeBetween([`${config.subject}._mark.gap`], (encoder, index) => encoder.mark(index, 'gap', data)),
    });
  }

  async #read(source: PostgresSource, first: { consistentPoint: bigint } | undefined): Promise<void> {
    const { log, health } = this.#options.context;
    const after = first ? beforeStream(first.consistentPoint) : this.#start.end.position;
    log.info(`streaming ${describeStart(this.#start)}`);
    for await (const events of source.read(after, this.#signal, () => {
      health.report('capture', true, 'streaming');
      this.#options.onStreaming();
    })) {
      await this.#out.push(events);
    }
  }

  async #backfill(clock: Clock): Promise<void> {
    const { context, catalog, eventLog, record } = this.#options;
    const { config, log } = context;
    const backfill = new Backfill({
      url: config.databaseUrl!,
      catalog,
      subject: config.subject,
      chunkRows: config.backfillChunk,
      largeAbove: config.snapshotMax,
      eventLimit: this.#eventLimit,
      log,
      eventLog,
      record,
      out: this.#out,
      tracker: this.#tracker,
      schemas: this.#schemas,
      unknownBefore: this.#unknownBefore,
      tick: () => clock.tick(),
      signal: this.#signal,
    });
    await new BackfillQueue().run({ record, backfill, control: this.#control, catalog, log, signal: this.#signal });
  }
}
