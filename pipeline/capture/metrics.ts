import { Counter, Gauge, Histogram, latencyBuckets, type Registry } from '../runtime/metrics.ts';

export interface CaptureMetrics {
  readonly events: Counter;
  readonly batches: Counter;
  readonly bytes: Counter;
  readonly ackSeconds: Histogram;
  readonly head: Gauge;
  readonly lagBytes: Gauge;
  readonly lagSeconds: Gauge;
  readonly retainedBytes: Gauge;
}

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
  };
}
