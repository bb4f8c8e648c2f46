import type { Seq } from '../../../pipeline/log/event-log.ts';
import { DecimalSum } from '../../../schemas/decimal-sum.ts';
import { mostExactValues, type WindowRecord } from '../model.ts';
import { bucketOf } from './buckets.ts';
import { grow } from './distribution.ts';
import type { Entry, Group } from './memory.ts';
import { comparePlaces, compareValues, storedValue, toPlace, type Place, type Value } from './value.ts';

/** What the batch that is being filled has done to a window so far. */
export interface Change {
  readonly window: Window;
  values: Map<string, number> | undefined;
  buckets: Map<string, number> | undefined;
  anew: boolean;
  /** Of a pane of `rows`: id → the point; undefined: it goes. */
  points: Map<string, Entry | undefined> | undefined;
}

/** A window in memory. */
export class Window {
  readonly level: number;
  readonly group: Group;
  readonly index: number;
  /** Has the store been asked for it? Otherwise it only stands for the question. */
  known = false;
  count = 0;
  sum = new DecimalSum();
  min: Value | undefined;
  max: Value | undefined;
  open: Place | undefined;
  close: Place | undefined;
  revision: Seq = 0;
  sketched = false;
  /** An extreme has gone, and the next one has not been looked for yet. */
  lost = false;
  /** Does the store have a record of it, once all sealed batches are committed? */
  stored = false;
  /** All its points by id, if they are in memory; only of panes of `rows`. */
  points: Map<string, Place> | undefined;
  /** All its values, if they are in memory. */
  values: Map<string, number> | undefined;
  change: Change | undefined;
  /** The last event that changed it here; 0 while it is as it was loaded. */
  changed: Seq = 0;
  /** The last preparation that needed it. */
  used = 0;
  /** How many values the batch that is prepared adds to it, at most. */
  coming = 0;

  constructor(level: number, group: Group, index: number) {
    this.level = level;
    this.group = group;
    this.index = index;
  }

  /** How much it counts towards the limit of memory. */
  get weight(): number {
    return 1 + (this.points?.size ?? 0) + (this.values?.size ?? 0);
  }

  /** Takes what the store has of it. */
  load(record: WindowRecord | undefined): void {
    this.known = true;
    if (!record) return;
    this.count = record.count;
    this.sum = new DecimalSum(record.sum);
    this.min = storedValue(record.min);
    this.max = storedValue(record.max);
    this.open = toPlace(record.open);
    this.close = toPlace(record.close);
    this.revision = record.revision;
    this.sketched = record.sketched;
    this.stored = true;
  }

  /** Is this place its first or last, or this value its least or largest? */
  hasAsExtreme({ at, id, value }: Place): boolean {
    const { min, max, open, close } = this;
    return value === min?.text || value === max?.text || (at === open?.at && id === open.id) || (at === close?.at && id === close.id);
  }

  add(place: Place, percentiles: boolean): void {
    const { decimal } = place;
    if (this.count === 0) {
      this.min = this.max = decimal;
      this.open = this.close = place;
    } else {
      if (compareValues(decimal, this.min!) < 0) this.min = decimal;
      if (compareValues(decimal, this.max!) > 0) this.max = decimal;
      if (comparePlaces(place, this.open!) < 0) this.open = place;
      if (comparePlaces(place, this.close!) > 0) this.close = place;
    }
    this.count++;
    this.sum.add(decimal);
    if (percentiles) this.#weigh(decimal, 1);
  }

  remove(place: Place, percentiles: boolean): void {
    const { decimal } = place;
    this.count--;
    if (percentiles) this.#weigh(decimal, -1);
    if (this.count <= 0) this.#empty();
    else {
      this.sum.subtract(decimal);
      this.lost ||= this.hasAsExtreme(place);
    }
  }

  /** Looks for the extremes among all its points. */
  extremesFromPoints(points: Iterable<Place>): void {
    this.lost = false;
    let [first, min, max, open, close]: [boolean, Value?, Value?, Place?, Place?] = [true];
    for (const place of points) {
      if (first || compareValues(place.decimal, min!) < 0) min = place.decimal;
      if (first || compareValues(place.decimal, max!) > 0) max = place.decimal;
      if (first || comparePlaces(place, open!) < 0) open = place;
      if (first || comparePlaces(place, close!) > 0) close = place;
      first = false;
    }
    this.#setExtremes(min, max, open, close);
  }

  /** Looks for the extremes among those of its parts that are not empty. */
  extremesFromParts(parts: readonly Window[]): void {
    this.lost = false;
    let [min, max, open, close]: [Value?, Value?, Place?, Place?] = [];
    for (const part of parts) {
      if (!min || compareValues(part.min!, min) < 0) min = part.min;
      if (!max || compareValues(part.max!, max) > 0) max = part.max;
      if (!open || comparePlaces(part.open!, open) < 0) open = part.open;
      if (!close || comparePlaces(part.close!, close) > 0) close = part.close;
    }
    this.#setExtremes(min, max, open, close);
  }

  toRecord(): WindowRecord {
    return {
      count: this.count,
      sum: this.sum.toString(),
      min: this.min!.text,
      max: this.max!.text,
      open: this.open!,
      close: this.close!,
      revision: this.revision,
      sketched: this.sketched,
    };
  }

  #setExtremes(min?: Value, max?: Value, open?: Place, close?: Place): void {
    // Nothing found although something is there: the store has lost a part of it, and what was known is better than nothing.
    if (!min || !max || !open || !close) return;
    this.min = min;
    this.max = max;
    this.open = open;
    this.close = close;
  }

  #empty(): void {
    this.count = 0;
    this.sum = new DecimalSum();
    this.min = this.max = this.open = this.close = undefined;
    this.lost = false;
    if (!this.sketched) return;
    this.sketched = false;
    this.values = new Map();
    this.#anew(undefined);
  }

  #weigh(value: Value, by: 1 | -1): void {
    const change = this.change!;
    if (this.sketched) {
      grow((change.buckets ??= new Map<string, number>()), value.bucket, by);
      return;
    }
    grow((change.values ??= new Map<string, number>()), value.canonical, by);
    if (!this.values) return;
    grow(this.values, value.canonical, by);
    if (this.count > mostExactValues) this.#sketch(this.values);
  }

  #sketch(values: ReadonlyMap<string, number>): void {
    const buckets = new Map<string, number>();
    for (const [value, count] of values) grow(buckets, bucketOf(value), count);
    this.sketched = true;
    this.values = undefined;
    this.#anew(buckets);
  }

  /** From here on the change says all that there is. */
  #anew(buckets: Map<string, number> | undefined): void {
    const change = this.change!;
    change.values = undefined;
    change.buckets = buckets;
    change.anew = true;
  }
}
