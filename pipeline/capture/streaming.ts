import { ownSchema } from '../../schemas/catalog.ts';
import type { PgClient } from '../clients/postgres.ts';
import { headerBytes } from '../log/publisher.ts';
import { untilFirst } from '../runtime/tasks.ts';
import { formatLsn } from '../source/position.ts';
import { PostgresSource } from '../source/postgres-source.ts';
import { Backfill } from './backfill/backfill.ts';
import { BackfillQueue } from './backfill/queue.ts';
import { CaptureLog, beforeStream } from './capture-log.ts';
import { ChangeTracker } from './backfill/change-tracker.ts';
import { Clock } from './clock.ts';
import { LogWriter } from './log-writer.ts';
import type { Reset } from './reset.ts';
import type { SessionOptions } from './session.ts';
import { Snapshot } from './snapshot.ts';
import { describeStart, loggedSchemas, type NewSlot, type Start } from './start.ts';
import { publicationList } from './publications.ts';
import type { CapturedTable } from './tables.ts';

/** How the rows that are there at a first start reach the log. */
export type FirstCopy = 'snapshot' | 'backfill' | 'none';

/** What a session that begins a history has prepared; `slot` is undefined for one that goes on. */
export interface Beginning {
  readonly copy: FirstCopy;
  readonly slot: NewSlot | undefined;
  readonly tables: readonly CapturedTable[];
  /** What an operator had asked for. */
  readonly reset: Reset | undefined;
}

/**
 * Tables of the first snapshot: Headwater's own first, so that rules are there before the rows that they are for; then those without key,
 * since nothing else can copy them, and all others that are not too large.
 */
export function inSnapshot(tables: readonly CapturedTable[], max: number): readonly CapturedTable[] {
  const own = tables.filter((table) => table.schema === ownSchema);
  const others = tables.filter((table) => table.schema !== ownSchema);
  return [...own, ...others.filter((table) => !table.hasKey), ...others.filter((table) => table.hasKey && table.size <= max)];
}

/** The parts of a session once it is clear where it starts, and how they work together. */
export class Streaming {
  readonly #options: SessionOptions;
  readonly #control: PgClient;
  readonly #start: Start;
  readonly #beginning: Beginning;
  readonly #tracker = new ChangeTracker();
  readonly #eventLimit: number;
  #schemas = new Map<string, string>();
  #firstKnownXid = 0n;

  constructor(options: SessionOptions, control: PgClient, start: Start, beginning: Beginning) {
    this.#options = options;
    this.#control = control;
    this.#start = start;
    this.#beginning = beginning;
    this.#eventLimit = options.eventLog.maxPayload - headerBytes;
  }

  async run(signal: AbortSignal, releaseSnapshot: () => Promise<void>): Promise<void> {
    const { context, eventLog } = this.#options;
    this.#schemas = await loggedSchemas(eventLog, context.config.subject, this.#start.epochStart);
    for (const [table, columns] of this.#schemas) this.#tracker.noteColumns(table, columns);
    const { rows } = await this.#control.query<{ xid: string }>('SELECT pg_current_xact_id()::text AS xid');
    this.#firstKnownXid = BigInt(rows[0]!.xid);
    await untilFirst(signal, async (ending) => {
      const out = this.#captureLog(ending);
      await untilFirst(
        ending,
        (either) => out.run(either),
        (either) => this.#copyThenStream(out, either, releaseSnapshot),
      );
    });
  }

  #captureLog(signal: AbortSignal): CaptureLog {
    const { context, eventLog, metrics } = this.#options;
    // A session before this one may have ended in trouble.
    context.health.report('log', true, 'takes events');
    const writer = new LogWriter(eventLog, this.#start.end, context.log, signal, (trouble) =>
      context.health.report('log', trouble === undefined, trouble ?? 'takes events'),
    );
    return new CaptureLog(writer, this.#tracker, this.#eventLimit, this.#start.between, ({ events, bytes, seconds }) => {
      metrics.events.inc(events);
      metrics.batches.inc();
      metrics.bytes.inc(bytes);
      metrics.ackSeconds.observe(seconds);
      metrics.head.set(writer.end.seq);
    });
  }

  async #copyThenStream(out: CaptureLog, signal: AbortSignal, releaseSnapshot: () => Promise<void>): Promise<void> {
    const { context, record, metrics } = this.#options;
    const { slot, copy, reset } = this.#beginning;
    if (slot && copy === 'snapshot') await this.#snapshot(slot, out, signal);
    if (slot && reset === 'accept_gap') await this.#markGap(slot, out);
    if (reset) await record.forget('reset');
    await releaseSnapshot();
    const source = this.#source();
    const { config } = context;
    const clock = new Clock({ control: this.#control, config, source, out, record, tracker: this.#tracker, metrics, slot: config.slot });
    await untilFirst(
      signal,
      (ending) => this.#read(source, out, ending),
      (ending) => clock.run(ending),
      (ending) => this.#backfill(clock, out, ending),
      // Asked for anew: the next session carries it out.
      (ending) => record.resetAsked(ending),
    );
  }

  async #snapshot(slot: NewSlot, out: CaptureLog, signal: AbortSignal): Promise<void> {
    const { context, catalog, record } = this.#options;
    const { config, log } = context;
    const copy = new Snapshot(slot.consistentPoint, {
      url: config.databaseUrl!,
      catalog,
      subject: config.subject,
      eventLimit: this.#eventLimit,
      log,
      record,
      out,
      schemas: this.#schemas,
      signal,
    });
    await copy.copy(slot.snapshot, inSnapshot(this.#beginning.tables, config.snapshotMax));
  }

  #source(): PostgresSource {
    const { context, catalog } = this.#options;
    const { config, log } = context;
    return new PostgresSource({
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
  }

  #markGap({ consistentPoint }: NewSlot, out: CaptureLog): Promise<void> {
    const note = 'changes before this may be missing; every table is copied again by backfill';
    const data = { from: formatLsn(consistentPoint), note };
    const subject = `${this.#options.context.config.subject}._mark.gap`;
    return out.between(() => out.writeBetween([subject], (encoder, index) => encoder.mark(index, 'gap', data)));
  }

  async #read(source: PostgresSource, out: CaptureLog, signal: AbortSignal): Promise<void> {
    const { log, health } = this.#options.context;
    const { slot } = this.#beginning;
    const after = slot ? beforeStream(slot.consistentPoint) : this.#start.end.position;
    log.info(`streaming ${describeStart(this.#start)}`);
    const events = source.read(after, signal, () => {
      health.report('capture', true, 'streaming');
      this.#options.onStreaming();
    });
    for await (const read of events) await out.push(read);
  }

  async #backfill(clock: Clock, out: CaptureLog, signal: AbortSignal): Promise<void> {
    const { context, catalog, eventLog, record, metrics } = this.#options;
    const { config, log } = context;
    const backfill = new Backfill({
      url: config.databaseUrl!,
      catalog,
      subject: config.subject,
      chunkRows: config.backfillChunk,
      timeoutMs: config.backfillTimeout,
      largeAbove: config.snapshotMax,
      log,
      eventLog,
      record,
      metrics: metrics.backfill,
      out,
      tracker: this.#tracker,
      schemas: this.#schemas,
      firstKnownXid: this.#firstKnownXid,
      tick: () => clock.tick(),
      signal,
    });
    const { databaseUrl, publication } = config;
    await new BackfillQueue({ record, backfill, metrics: metrics.backfill, url: databaseUrl!, publication, catalog, log, signal }).run();
  }
}
