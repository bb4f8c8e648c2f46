import { setImmediate as nextTurn } from 'node:timers/promises';
import { OffsetExpired } from '../pipeline/log/errors.ts';
import type { LogEvent, Seq } from '../pipeline/log/event-log.ts';
import type { CachedRow, RowSource, RowsPosition } from '../pipeline/runner/row-source.ts';
import { backoffMs, pause } from '../pipeline/runtime/backoff.ts';
import { messageOf } from '../pipeline/runtime/errors.ts';
import type { Logger } from '../pipeline/runtime/logging.ts';
import { FilterError, parseFilter } from '../schemas/filter.ts';
import type { ChannelEvent } from './channels.ts';
import { RequestFault, type Fault } from './fault.ts';
import type { GatewayMetrics } from './metrics.ts';
import type { Lease } from './reader-pool.ts';
import type { ReplayedEvent, SubscriptionRequest } from './session-state.ts';
import { selects, startPosition, takeReader, type LogAccess, type Selection, type StartPosition } from './start-position.ts';

/** The connection's side of one subscription's replay. Everything here is synchronous but `drained`. */
export interface ReplayTarget {
  positioned(position: StartPosition, selection: Selection, snapshotAsOf: Seq | undefined): void;
  page(items: readonly CachedRow[], more: boolean): void;
  /** These events, and with them everything up to `through`. */
  replayed(events: readonly ReplayedEvent[], through: Seq): void;
  /** Everything up to `seq` has been sent: from the next event on it is live. */
  caughtUp(seq: Seq): void;
  failed(fault: Fault): void;
  /**
   * Resolves with true when the socket can take more and it is this subscription's turn; what it sends right then is
   * within its share. With false when the patience ends first, or the signal fires. Without patience it waits however long it takes.
   */
  drained(patienceMs?: number): Promise<boolean>;
}

/** What replays share. */
export interface ReplayContext extends LogAccess {
  readonly rows: RowSource | undefined;
  readonly maxFilterValues: number;
  readonly metrics: GatewayMetrics;
  readonly log: Logger;
}

const sliceEvents = 2_000;
const sliceBytes = 256 * 1024;
const readerBytes = 4 * 1024 ** 2;
/** A snapshot of which nothing has been sent yet is begun so often again. */
const snapshotAttempts = 3;
/** A replay whose socket takes longer than this gives its place in the pool to others. */
const patienceMs = 1_000;

/** One subscription from its beginning until it is live. It ends when it is, when it fails, or when the signal fires. */
export async function runReplay(
  request: SubscriptionRequest,
  target: ReplayTarget,
  context: ReplayContext,
  signal: AbortSignal,
): Promise<void> {
  const resumes = request.from.kind === 'token';
  try {
    await new Replay(request, target, context, signal).run();
    if (resumes && !signal.aborted) context.metrics.resumes.inc({ outcome: 'ok' });
  } catch (error) {
    if (signal.aborted) return;
    const fault = faultOf(error, context);
    if (resumes) context.metrics.resumes.inc({ outcome: fault.code });
    if (fault.code === 'internal') context.log.error({ error: messageOf(error) }, 'a subscription failed');
    target.failed(fault);
  }
}

function faultOf(error: unknown, { tail }: ReplayContext): Fault {
  if (error instanceof RequestFault) return error.fault;
  if (error instanceof FilterError) return { code: 'bad_filter', message: error.message };
  if (error instanceof OffsetExpired) {
    return {
      code: 'resume_expired',
      message: 'the log was trimmed past this position while it was read',
      oldest: error.oldest,
      head: tail.position,
    };
  }
  return { code: 'internal', message: 'the subscription could not be served; try again', retryAfterMs: 1_000 };
}

class Replay {
  readonly #request: SubscriptionRequest;
  readonly #target: ReplayTarget;
  readonly #context: ReplayContext;
  readonly #signal: AbortSignal;
  readonly #selection: Selection;
  /** The next sequence to send. */
  #next: Seq = 0;

  constructor(request: SubscriptionRequest, target: ReplayTarget, context: ReplayContext, signal: AbortSignal) {
    this.#request = request;
    this.#target = target;
    this.#context = context;
    this.#signal = signal;
    const channel = context.channels.get(request.channel);
    if (!channel) throw new RequestFault({ code: 'unknown_channel', message: `there is no channel ${request.channel}` });
    this.#selection = {
      channel: channel.name,
      filter: parseFilter(request.filter, channel.tables, { maxValues: context.maxFilterValues }),
    };
  }

  async run(): Promise<void> {
    const { tail, readers } = this.#context;
    const rows = this.#request.snapshot ? await this.#snapshotPosition() : undefined;
    const asOf = rows?.seq;
    const from = asOf === undefined ? this.#request.from : ({ kind: 'after', after: asOf } as const);
    const position = await startPosition(from, this.#selection, this.#context, this.#signal);
    this.#signal.throwIfAborted();
    this.#next = position.start;
    const recent = tail.window.covers(position.start) || position.start > tail.position;
    const lease = recent ? undefined : takeReader(readers);
    try {
      this.#target.positioned(position, this.#selection, asOf);
      if (rows) {
        // How long the socket takes for the rows is not known: a place in the pool is not kept over that.
        lease?.release();
        await this.#sendRows(rows);
      } else if (position.start <= tail.position) this.#context.metrics.replays.inc({ source: recent ? 'memory' : 'log' });
      if (lease && asOf === undefined) await this.#fromLog(lease);
    } finally {
      lease?.release();
    }
    await this.#untilLive();
  }

  async #untilLive(): Promise<void> {
    const { tail, readers } = this.#context;
    for (let attempt = 0; ;) {
      await this.#target.drained();
      this.#signal.throwIfAborted();
      const ahead = this.#next - tail.position;
      // No await between this comparison and the joining that `caughtUp` brings about: no event can come in between.
      if (ahead === 1) return this.#target.caughtUp(tail.position);
      if (ahead > 1) await tail.reached(this.#next - 1, this.#signal);
      else if (tail.window.covers(this.#next)) await this.#fromWindow();
      else {
        const lease = await readers.take(this.#signal);
        const before = this.#next;
        try {
          await this.#fromLog(lease);
        } finally {
          lease.release();
        }
        attempt = this.#next > before ? 0 : attempt + 1;
        if (attempt > 0) await pause(backoffMs(attempt), this.#signal);
      }
    }
  }

  async #fromWindow(): Promise<void> {
    const { window } = this.#context.tail;
    const slice = window.slice(this.#next, sliceEvents, sliceBytes);
    this.#send(slice, slice.at(-1)!.seq);
    // Others get their turn, too.
    if (this.#next <= this.#context.tail.position) await nextTurn();
  }

  /** Reads the log until the recent window has the rest, or the socket keeps it waiting. */
  async #fromLog(lease: Lease): Promise<void> {
    const { eventLog, tail, log } = this.#context;
    const signal = this.#signal;
    try {
      for await (const events of eventLog.read(this.#next, { signal, highWaterBytes: readerBytes })) {
        for (let begin = 0; begin < events.length;) {
          const mayGoOn = await this.#target.drained(patienceMs);
          signal.throwIfAborted();
          if (!mayGoOn) return;
          begin = this.#sendSlice(events, begin);
        }
        if (tail.window.covers(this.#next)) return;
      }
    } catch (error) {
      if (signal.aborted || error instanceof OffsetExpired) throw error;
      log.warn({ error: messageOf(error) }, 'a replay was interrupted, going on from where it was');
    } finally {
      lease.release();
    }
  }

  /** Sends a part of the events that is small enough for a socket, and returns where the next part begins. */
  #sendSlice(events: readonly LogEvent[], begin: number): number {
    const { channels } = this.#context;
    const slice: ChannelEvent[] = [];
    let end = begin;
    for (let size = 0; end < events.length && size < sliceBytes; end++) {
      const event = events[end]!;
      if (channels.channelOf(event.subject) !== this.#selection.channel) continue;
      slice.push(channels.read(event));
      size += event.data.length;
    }
    this.#send(slice, events[end - 1]!.seq);
    return end;
  }

  #send(events: readonly ChannelEvent[], through: Seq): void {
    this.#target.replayed(
      events.filter((event) => selects(this.#selection, event)),
      through,
    );
    this.#next = through + 1;
  }

  async #snapshotPosition(): Promise<RowsPosition> {
    const { rows, channels, tail } = this.#context;
    const unavailable = (message: string): RequestFault => new RequestFault({ code: 'snapshot_unavailable', message });
    if (!rows) throw unavailable('this gateway has no cache of current rows');
    try {
      const position = await rows.position();
      if (!position || position.epoch !== tail.epoch) throw unavailable('the cache is being built');
      if (position.from > tail.epochStart) throw unavailable('the cache began when the log no longer held its beginning');
      for (const table of channels.get(this.#selection.channel)!.tables.keys()) {
        if (!(await rows.holds(table))) throw unavailable(`the rows of ${table} are not cached`);
      }
      return position;
    } catch (error) {
      if (error instanceof RequestFault) throw error;
      this.#context.log.warn({ error: messageOf(error) }, 'the cache cannot be asked for a snapshot');
      throw unavailable('the cache cannot be asked now');
    }
  }

  /** The current rows that match, as of the position: what was written since comes with the stream. */
  async #sendRows(position: RowsPosition): Promise<void> {
    let of = position;
    for (let attempt = 0; ; attempt++) {
      const sent = { pages: 0 };
      try {
        await this.#sendPages(position.seq, of, sent);
        break;
      } catch (error) {
        if (this.#signal.aborted) throw error;
        // Rows that were rebuilt meanwhile make no whole with those of before. As long as none of them has been sent, it begins again.
        const again = sent.pages === 0 && attempt < snapshotAttempts ? await this.#remade(of) : undefined;
        if (!again) {
          this.#context.log.warn({ error: messageOf(error) }, 'the cache failed in the middle of a snapshot');
          throw new RequestFault({
            code: 'snapshot_unavailable',
            message: 'the cache failed in the middle of the snapshot, or was rebuilt: what was sent of it is not whole; try again',
          });
        }
        of = again;
      }
    }
  }

  /** The position of rows that have taken the place of those of the given one; undefined when it is not that. */
  async #remade(of: RowsPosition): Promise<RowsPosition | undefined> {
    const now = await this.#snapshotPosition();
    return now.making !== of.making && now.seq >= of.seq ? now : undefined;
  }

  async #sendPages(asOf: Seq, of: RowsPosition, sent: { pages: number }): Promise<void> {
    const { rows, channels } = this.#context;
    let page: CachedRow[] = [];
    let size = 0;
    const send = async (more: boolean): Promise<void> => {
      await this.#target.drained();
      this.#signal.throwIfAborted();
      sent.pages++;
      this.#target.page(page, more);
      [page, size] = [[], 0];
    };
    for (const [table, entry] of channels.get(this.#selection.channel)!.tables) {
      for await (const found of rows!.rows(table, { signal: this.#signal, of })) {
        for (const row of found) {
          if (row.seq > asOf || !selects(this.#selection, channels.readRow(row, entry))) continue;
          page.push(row);
          size += row.event.length;
          if (size >= sliceBytes) await send(true);
        }
      }
    }
    await send(false);
  }
}
