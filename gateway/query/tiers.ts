import type { KeyLimits } from '../../pipeline/keys/key-store.ts';

/** What a key may ask. */
export interface Tier {
  /** Requests a minute, over all gateways. */
  readonly perMinute: number;
  /** Requests at once, of this gateway. */
  readonly atOnce: number;
}

/** The tiers by their names; the first is that of keys without one, and of keys whose tier is not there (any more). */
export class Tiers {
  readonly #first: Tier;
  readonly #tiers: ReadonlyMap<string, Tier>;

  /** @param items `HEADWATER_QUERY_TIERS`: `standard=600/16` */
  constructor(items: readonly string[]) {
    const entries = items.map((item): [string, Tier] => {
      const [name, perMinute, atOnce] = item.split(/[=/]/);
      return [name!, { perMinute: Number(perMinute), atOnce: Number(atOnce) }];
    });
    this.#tiers = new Map(entries);
    this.#first = entries[0]![1];
  }

  of(limits: KeyLimits | undefined): Tier {
    return this.#tiers.get(limits?.tier ?? '') ?? this.#first;
  }
}
