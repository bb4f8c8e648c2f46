import { Counter, Gauge, type Registry } from '../../pipeline/runtime/metrics.ts';
import type { QueueDepth } from './job-store.ts';
import { channelNames, type ChannelName } from './options.ts';

/** What is counted of notifications. */
export interface NotifyMetrics {
  /** An attempt has ended, or (`expired`) a notification was given up. */
  delivery(channel: ChannelName, outcome: string): void;
  /** A transition was planned. */
  planned(notices: number): void;
  queues(depths: readonly QueueDepth[], openBreakers: number): void;
}

export function notifyMetrics(registry: Registry): NotifyMetrics {
  const registers = [registry];
  const deliveries = new Counter({
    name: 'headwater_notify_deliveries_total',
    help: 'Attempts to deliver a notification, by how they ended; expired: given up',
    labelNames: ['channel', 'outcome'],
    registers,
  });
  const planned = new Counter({ name: 'headwater_notify_planned_total', help: 'Notifications and digests that were queued', registers });
  const labelNames = ['channel'] as const;
  const queued = new Gauge({ name: 'headwater_notify_queued', help: 'Notifications that are to be delivered', labelNames, registers });
  const dead = new Gauge({
    name: 'headwater_notify_dead',
    help: 'Notifications that were given up and can be sent again',
    labelNames,
    registers,
  });
  const oldest = new Gauge({
    name: 'headwater_notify_oldest_undelivered_seconds',
    help: 'Age of the oldest notification that is to be delivered',
    labelNames,
    registers,
  });
  const open = new Gauge({ name: 'headwater_notify_breakers_open', help: 'Endpoints that are left alone since they fail', registers });
  return {
    delivery: (channel, outcome) => deliveries.inc({ channel, outcome }),
    planned: (notices) => planned.inc(notices),
    queues(depths, openBreakers) {
      open.set(openBreakers);
      for (const channel of channelNames) {
        const depth = depths.find((each) => each.channel === channel);
        queued.set({ channel }, depth?.queued ?? 0);
        dead.set({ channel }, depth?.dead ?? 0);
        oldest.set({ channel }, depth?.oldestSeconds ?? 0);
      }
    },
  };
}
