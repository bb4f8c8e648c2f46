import { Counter, Gauge, Histogram, latencyBuckets, type Registry } from '../runtime/metrics.ts';

/** What is counted of the copies of tables that are made beside the stream. */
export interface BackfillMetrics {
  /** Rows that were logged, and chunks that they came in. */
  readonly rows: Counter;
  readonly chunks: Counter;
  /** Rows of the last chunk; 0 when no table is being copied. */
  readonly chunkRows: Gauge;
  /** From reading a chunk to having noted that it is in the log, without the pauses of `--rate`. */
  readonly chunkSeconds: Histogram;
  /** Tables that an operator has paused. */
  readonly paused: Gauge;
  /** Tables that are to be copied, with the one that is. */
  readonly queue: Gauge;
}

export interface CaptureMetrics {
  readonly events: Counter;
  readonly batches: Counter;
  readonly bytes: Counter;
  readonly ackSeconds: Histogram;
  readonly head: Gauge;
  readonly lagBytes: Gauge;
  readonly lagSeconds: Gauge;
  readonly retainedBytes: Gauge;
  readonly backfill: BackfillMetrics;
}

/** A chunk may wait for transactions and for the log. */
const chunkBuckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

export function captureMetrics(registry: Registry): CaptureMetrics {
  const registers = [registry];
  return {
    events: new Counter({ name: 'headwater_capture_events_total', help: 'Events written to the log', registers }),
    batches: new Counter({ name: 'headwater_capture_batches_total', help: 'Batches written to the log', registers }),
    bytes: new Counter({ name: 'headwater_capture_bytes_total', help: 'Bytes of events written to the log', registers }),
    ackSeconds: new Histogram({
      name: 'headwater_log_ack_seconds',
      help: 'From publishing a batch to its durable acknowledgement',
      buckets: latencyBuckets,
      registers,
    }),
    head: new Gauge({ name: 'headwater_log_head', help: 'Last sequence of the log', registers }),
    lagBytes: new Gauge({ name: 'headwater_capture_lag_bytes', help: 'WAL between the server’s position and the log’s', registers }),
    lagSeconds: new Gauge({ name: 'headwater_capture_lag_seconds', help: 'Time since the log was last level with the server', registers }),
    retainedBytes: new Gauge({ name: 'headwater_slot_retained_bytes', help: 'WAL that the slot makes the server keep', registers }),
    backfill: backfillMetrics(registry),
  };
}

function backfillMetrics(registry: Registry): BackfillMetrics {
  const registers = [registry];
  return {
    rows: new Counter({ name: 'headwater_backfill_rows_total', help: 'Rows that backfills have written to the log', registers }),
    chunks: new Counter({ name: 'headwater_backfill_chunks_total', help: 'Chunks that backfills have copied', registers }),
    chunkRows: new Gauge({
      name: 'headwater_backfill_chunk_rows',
      help: 'Rows of the last chunk, 0 when no table is being copied',
      registers,
    }),
    chunkSeconds: new Histogram({
      name: 'headwater_backfill_chunk_seconds',
      help: 'From reading a chunk until it is in the log',
      buckets: chunkBuckets,
      registers,
    }),
    paused: new Gauge({ name: 'headwater_backfill_paused', help: 'Tables whose backfill is paused', registers }),
    queue: new Gauge({ name: 'headwater_backfill_queue_length', help: 'Tables that are being copied or wait for it', registers }),
  };
}
