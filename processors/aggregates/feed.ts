import type { Feed, FeedReceiver, FeedStart } from '../../pipeline/runtime/feed.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import { entryFor, unnamedEntry, type Catalog, type FilterField } from '../../schemas/catalog.ts';
import type { ChannelTables, Filter } from '../../schemas/filter.ts';
import { ChannelFeed } from './feed/channel-feed.ts';
import { eventType } from './feed/frames.ts';
import type { Definition } from './model.ts';
import type { AggregateReader } from './read/reader.ts';

export interface AggregateFeedParts {
  readonly reader: AggregateReader;
  readonly catalog: Catalog;
  readonly log: Logger;
  /** How often changes are asked for while somebody listens (default 250 ms). */
  readonly pollMs?: number;
  /** How often a group is told of at most (default 1 s). */
  readonly everyMs?: number;
}

/**
 * The channels `aggregates:<name>`: what has changed of a group, as it is now, at most once a second and the last state always. Redis is
 * asked for changes only while somebody listens, by one loop a channel, and only groups that somebody wants are read.
 */
export class AggregateFeed implements Feed {
  readonly prefix = 'aggregates:';
  readonly #parts: AggregateFeedParts;
  readonly #channels = new Map<string, ChannelFeed>();

  constructor(parts: AggregateFeedParts) {
    this.#parts = parts;
  }

  async tables(channel: string): Promise<ChannelTables | undefined> {
    return this.#parts.reader.use(this.#nameOf(channel), ({ definition }) =>
      Promise.resolve(new Map([[channel, { ...unnamedEntry, type: eventType, channel, filters: this.#filtersOf(definition) }]])),
    );
  }

  open(channel: string, filter: Filter, start: FeedStart, receiver: FeedReceiver): () => void {
    const { reader, log, pollMs = 250, everyMs = 1_000 } = this.#parts;
    const found = this.#channels.get(channel);
    const feed = found ?? new ChannelFeed({ name: this.#nameOf(channel), channel, reader, log, pollMs, everyMs });
    this.#channels.set(channel, feed);
    const leave = feed.join(filter, start, receiver);
    return () => {
      leave();
      if (feed.idle && this.#channels.get(channel) === feed) this.#channels.delete(channel);
    };
  }

  #nameOf(channel: string): string {
    return channel.slice(this.prefix.length);
  }

  /** Filter fields that the table's columns have, of those that make a group. */
  #filtersOf({ table, by }: Definition): Partial<Record<FilterField, string>> {
    const dot = table.indexOf('.');
    const { filters } = entryFor(this.#parts.catalog, table.slice(0, dot), table.slice(dot + 1));
    return Object.fromEntries(Object.entries(filters).filter(([field, column]) => field !== 'value' && by.includes(column)));
  }
}
