import { compareDecimal } from '../../../schemas/decimal.ts';
import { DecimalSum, parseUnits } from '../../../schemas/decimal-sum.ts';
import { bucketOf } from '../engine/buckets.ts';
import { Distribution, grow } from '../engine/distribution.ts';
import { mostExactValues, type WindowRecord } from '../model.ts';

/** What is known of a stretch of time of one group: a window's record, or several put together. */
export type Summary = Omit<WindowRecord, 'sketched'>;

type Counts = ReadonlyMap<string, number>;

/** A window as it was read: the panes it spans, its record, and its values or buckets when they were wanted. */
export interface Piece {
  readonly first: number;
  readonly last: number;
  readonly record: WindowRecord;
  readonly counts: Counts;
}

/** Two stretches together, of which `earlier` is wholly before `later`. */
export function merge(earlier: Summary | undefined, later: Summary | undefined): Summary | undefined {
  if (!earlier || !later) return earlier ?? later;
  const sum = new DecimalSum(earlier.sum);
  const more = parseUnits(later.sum);
  if (more) sum.add(more);
  return {
    count: earlier.count + later.count,
    sum: sum.toString(),
    min: (compareDecimal(later.min, earlier.min) ?? 0) < 0 ? later.min : earlier.min,
    max: (compareDecimal(later.max, earlier.max) ?? 0) > 0 ? later.max : earlier.max,
    open: earlier.open,
    close: later.close,
    revision: Math.max(earlier.revision, later.revision),
  };
}

/** All pieces together, in order of time. */
export function mergeAll(pieces: readonly Piece[]): Summary | undefined {
  return pieces.reduce<Summary | undefined>((summary, { record }) => merge(summary, record), undefined);
}

/** The values of the pieces that are in it at the moment. */
export class Values {
  readonly #values = new Map<string, number>();
  /** All of them in buckets, from when that is needed first. */
  #buckets: Map<string, number> | undefined;
  #count = 0;
  #sketched = 0;

  add(piece: Piece): this {
    return this.#change(piece, 1);
  }

  remove(piece: Piece): this {
    return this.#change(piece, -1);
  }

  /** Exact while all are known one by one and are few; beyond that, buckets are quicker than sorting them. */
  distribution(): Distribution {
    if (this.#sketched === 0 && this.#count <= mostExactValues) return new Distribution().addValues(this.#values);
    return new Distribution().addBuckets(this.#inBuckets());
  }

  #change({ record, counts }: Piece, sign: 1 | -1): this {
    this.#count += sign * record.count;
    if (record.sketched) {
      this.#sketched += sign;
      const buckets = this.#inBuckets();
      for (const [bucket, count] of counts) grow(buckets, bucket, sign * count);
      return this;
    }
    for (const [value, count] of counts) {
      grow(this.#values, value, sign * count);
      if (this.#buckets) grow(this.#buckets, bucketOf(value), sign * count);
    }
    return this;
  }

  #inBuckets(): Map<string, number> {
    if (!this.#buckets) {
      this.#buckets = new Map();
      for (const [value, count] of this.#values) grow(this.#buckets, bucketOf(value), count);
    }
    return this.#buckets;
  }
}
