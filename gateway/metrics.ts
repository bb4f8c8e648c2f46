import { Counter, Gauge, Histogram, latencyBuckets, type Registry } from '../pipeline/runtime/metrics.ts';

/** What the gateway counts. */
export interface GatewayMetrics {
  readonly connections: Gauge;
  readonly subscriptions: Gauge;
  readonly windowBytes: Gauge;
  readonly deliveries: Counter;
  readonly sentBytes: Counter;
  readonly closes: Counter<'code'>;
  readonly replays: Counter<'source'>;
  readonly resumes: Counter<'outcome'>;
  readonly latency: Histogram;
}

/** Registers them. */
export function gatewayMetrics(registry: Registry): GatewayMetrics {
  const registers = [registry];
  const prefix = 'headwater_gateway_';
  return {
    connections: new Gauge({ name: `${prefix}connections`, help: 'Open WebSocket connections.', registers }),
    subscriptions: new Gauge({ name: `${prefix}live_subscriptions`, help: 'Subscriptions that are live.', registers }),
    windowBytes: new Gauge({ name: `${prefix}recent_window_bytes`, help: 'Memory of the recent window.', registers }),
    deliveries: new Counter({ name: `${prefix}deliveries_total`, help: 'Events sent to connections, live and replayed.', registers }),
    sentBytes: new Counter({ name: `${prefix}sent_bytes_total`, help: 'Bytes given to WebSocket connections.', registers }),
    closes: new Counter({
      name: `${prefix}closes_total`,
      help: 'Connections closed by the gateway or the client, by close code.',
      labelNames: ['code'],
      registers,
    }),
    replays: new Counter({
      name: `${prefix}replays_total`,
      help: 'Replays, by where they began to read: memory or log.',
      labelNames: ['source'],
      registers,
    }),
    resumes: new Counter({
      name: `${prefix}resumes_total`,
      help: 'Subscriptions from a token, by outcome: ok or an error code.',
      labelNames: ['outcome'],
      registers,
    }),
    latency: new Histogram({
      name: 'headwater_end_to_end_seconds',
      help: 'From the commit in Postgres to the write to the WebSocket.',
      buckets: latencyBuckets,
      registers,
    }),
  };
}
