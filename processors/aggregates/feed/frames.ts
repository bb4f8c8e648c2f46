import type { Seq } from '../../../pipeline/log/event-log.ts';
import type { FeedItem } from '../../../pipeline/runtime/feed.ts';
import type { FilterableEvent } from '../../../schemas/filter.ts';
import type { Definition } from '../model.ts';
import { byOf, type AggregateItem } from '../read/items.ts';
import type { GroupState, SizedItem } from '../read/pages.ts';

/** The `type` of these frames' events, for filters too. */
export const eventType = 'aggregate';

/**
 * The event of a frame: a group's windows by their sizes, and of each sliding size the window that ends with the newest pane.
 * @param asOf every event of the log up to here is in it
 */
export function eventOf(definition: Definition, { group, windows, sliding }: GroupState, asOf: Seq): Uint8Array {
  const sized = new Map<string, Omit<AggregateItem, 'by'>[]>();
  for (const item of windows) sized.set(item.size, [...(sized.get(item.size) ?? []), withoutBy(item)]);
  return Buffer.from(
    JSON.stringify({
      type: eventType,
      name: definition.name,
      by: byOf(definition, group),
      asOf,
      windows: Object.fromEntries(sized),
      sliding: Object.fromEntries(sliding.map((item) => [item.size, withoutBy(item)])),
    }),
  );
}

function withoutBy({ item: { by: _by, ...rest } }: SizedItem): Omit<AggregateItem, 'by'> {
  return rest;
}

/** What filters look at: a group is a row of the channel's one table, with the columns of `by`. */
export function filterableOf(channel: string, definition: Definition, group: string): FilterableEvent {
  return { type: eventType, table: channel, after: byOf(definition, group) };
}

/** The item with a higher sequence, for whoever is further than the others. */
export function atLeast(item: FeedItem, seq: Seq): FeedItem {
  return item.seq >= seq ? item : { ...item, seq };
}
