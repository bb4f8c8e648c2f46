import type { PgClient } from '../clients/postgres.ts';
import type { Config } from '../runtime/config.ts';
import { pause } from '../runtime/backoff.ts';
import { tickPrefix, type PostgresSource } from '../source/postgres-source.ts';
import type { CaptureLog } from './capture-log.ts';
import type { ChangeTracker } from './backfill/change-tracker.ts';
import type { LogRecord } from './log-record.ts';
import type { CaptureMetrics } from './metrics.ts';
import { Visibility } from './visibility.ts';

const heartbeatMs = 10_000;
const heartbeatBytes = 16n * 1024n ** 2n;
const confirmMs = 1_000;
const roundMs = 250;

/** A server that does not answer, or whose stream is silent although ticks are written, for so long is gone without a word. */
const silenceMs = 30_000;

export interface ClockParts {
  readonly control: PgClient;
  readonly config: Config;
  readonly source: PostgresSource;
  readonly out: CaptureLog;
  readonly record: LogRecord;
  readonly tracker: ChangeTracker;
  readonly metrics: CaptureMetrics;
  readonly slot: string;
}

/**
 * What happens by time: ticks bring the database's clock into the log (and move an idle slot), and what the log holds is
 * confirmed to the database, at most once a second or each 16 MB. Only positions of acknowledged, whole transactions are.
 */
export class Clock {
  readonly #parts: ClockParts;
  #tickedAt = -Infinity;
  #confirmedAt = -Infinity;
  #confirmed = 0n;
  #levelAt = performance.now();

  constructor(parts: ClockParts) {
    this.#parts = parts;
  }

  async run(signal: AbortSignal): Promise<void> {
    const interval = this.#parts.config.tick || heartbeatMs;
    while (!signal.aborted) {
      const now = performance.now();
      this.#measure(now);
      if (now - this.#tickedAt >= interval - 5 || this.#behind() > heartbeatBytes) await this.tick();
      if (now - this.#confirmedAt >= confirmMs || this.#parts.out.wholeLsn - this.#confirmed > heartbeatBytes) await this.confirm();
      const due = Math.min(roundMs, interval - (performance.now() - this.#tickedAt));
      await pause(Math.max(5, due), signal);
    }
  }

  /** Writes a tick, as a transactional message: those are flushed at once and have a commit time. */
  async tick(): Promise<void> {
    this.#tickedAt = performance.now();
    const { control, tracker, metrics, slot, source } = this.#parts;
    if (source.silentMs > silenceMs) throw new Error(`nothing has come from the replication connection for ${silenceMs / 1_000} s`);
    const { rows } = await answered(
      control.query<{ snapshot: string; retained: number | null }>(
        `SELECT pg_logical_emit_message(true, $1, ''), pg_current_snapshot()::text AS snapshot,
              (SELECT (pg_current_wal_lsn() - restart_lsn)::float8 FROM pg_replication_slots WHERE slot_name = $2) AS retained`,
        [tickPrefix, slot],
      ),
    );
    tracker.forgetTransactions(new Visibility(rows[0]!.snapshot));
    metrics.retainedBytes.set(rows[0]!.retained ?? 0);
  }

  /** Keeps the position in the log's record, then lets the database know. */
  async confirm(): Promise<void> {
    const { out, record, source } = this.#parts;
    const { wholeLsn, end } = out;
    this.#confirmedAt = performance.now();
    if (wholeLsn <= this.#confirmed) return;
    await record.putPosition(end.seq, end.position);
    source.confirm(wholeLsn + 1n);
    this.#confirmed = wholeLsn;
  }

  /** WAL that the server has and the log has not, in bytes. */
  #behind(): bigint {
    const behind = this.#parts.source.serverEnd - this.#parts.out.wholeLsn;
    return behind > 0n ? behind : 0n;
  }

  #measure(now: number): void {
    const { metrics } = this.#parts;
    const behind = this.#behind();
    // A transaction's commit record itself lies between its position and the server's.
    if (behind < 8_192n) this.#levelAt = now;
    metrics.lagBytes.set(Number(behind));
    metrics.lagSeconds.set((now - this.#levelAt) / 1_000);
  }
}

async function answered<T>(query: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`the database has not answered for ${silenceMs / 1_000} s`)), silenceMs);
  });
  try {
    return await Promise.race([query, late]);
  } finally {
    clearTimeout(timer);
  }
}
