import { filterTerms, matches, textOf, type Filter } from '../schemas/filter.ts';
import type { ChannelEvent } from './channels.ts';
import { eventFrame } from './wire.ts';

/** Takes the frames of live events. */
export interface Receiver {
  /** The last live event it was given, so that it gets none twice. The fan-out sets it. */
  lastLive: number;
  pushLive(frame: Buffer): void;
}

/** A live subscription, as the fan-out knows it. */
export interface LiveSubscription {
  readonly channel: string;
  readonly filter: Filter;
  readonly receiver: Receiver;
}

/**
 * The live subscriptions of one channel. Those with an equality in their filter are found by the value of the event's
 * column, so that an event costs what it matches, not what is subscribed; only the others are looked at one by one.
 */
class ChannelIndex {
  readonly all = new Set<LiveSubscription>();
  readonly #unindexed = new Set<LiveSubscription>();
  /** Table → column → text of the value → subscriptions. */
  readonly #byTable = new Map<string, Map<string, Map<string, Set<LiveSubscription>>>>();

  add(subscription: LiveSubscription): void {
    this.all.add(subscription);
    const terms = filterTerms(subscription.filter);
    if (!terms) this.#unindexed.add(subscription);
    for (const { table, column, value } of terms ?? []) {
      const columns = entry(this.#byTable, table, () => new Map<string, Map<string, Set<LiveSubscription>>>());
      const values = entry(columns, column, () => new Map<string, Set<LiveSubscription>>());
      entry(values, value, () => new Set<LiveSubscription>()).add(subscription);
    }
  }

  remove(subscription: LiveSubscription): void {
    this.all.delete(subscription);
    this.#unindexed.delete(subscription);
    for (const { table, column, value } of filterTerms(subscription.filter) ?? []) {
      const columns = this.#byTable.get(table);
      const values = columns?.get(column);
      const found = values?.get(value);
      found?.delete(subscription);
      if (found?.size === 0) values!.delete(value);
      if (values?.size === 0) columns!.delete(column);
      if (columns?.size === 0) this.#byTable.delete(table);
    }
  }

  /** Calls `visit` with all that can match, some of them more than once. */
  candidates({ content }: ChannelEvent, visit: (subscription: LiveSubscription) => void): void {
    if (content.op === 'truncate') return this.all.forEach(visit);
    this.#unindexed.forEach(visit);
    const columns = content.table === undefined ? undefined : this.#byTable.get(content.table);
    if (!columns) return;
    for (const [column, values] of columns) {
      for (const row of [content.after, content.before, content.key]) {
        const text = row && Object.hasOwn(row, column) ? textOf(row[column]) : undefined;
        if (text !== undefined) values.get(text)?.forEach(visit);
      }
    }
  }
}

/** Brings each new event to the live subscriptions it matches. */
export class FanOut {
  readonly #channels = new Map<string, ChannelIndex>();
  #size = 0;

  /** Live subscriptions. */
  get size(): number {
    return this.#size;
  }

  join(subscription: LiveSubscription): void {
    entry(this.#channels, subscription.channel, () => new ChannelIndex()).add(subscription);
    this.#size++;
  }

  leave(subscription: LiveSubscription): void {
    const index = this.#channels.get(subscription.channel);
    if (!index?.all.has(subscription)) return;
    index.remove(subscription);
    this.#size--;
    if (index.all.size === 0) this.#channels.delete(subscription.channel);
  }

  /** Gives the event to every receiver that should have it, once, in one frame for all. Returns how many. */
  deliver(event: ChannelEvent): number {
    const { channel } = event;
    const index = channel === undefined ? undefined : this.#channels.get(channel);
    if (!index || channel === undefined) return 0;
    let frame: Buffer | undefined;
    let delivered = 0;
    index.candidates(event, ({ receiver, filter }) => {
      if (receiver.lastLive === event.seq || !matches(filter, event.content)) return;
      receiver.lastLive = event.seq;
      frame ??= eventFrame(event.seq, channel, event.bytes);
      receiver.pushLive(frame);
      delivered++;
    });
    return delivered;
  }
}

function entry<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) map.set(key, (value = make()));
  return value;
}
