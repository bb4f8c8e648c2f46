import { compareDecimal } from '../../../schemas/decimal.ts';
import { bucketOf, compareBuckets, estimateOf } from './buckets.ts';

type Counts = ReadonlyMap<string, number>;

/** The values of a window, or of several windows together: what percentiles are made of. */
export class Distribution {
  readonly #values = new Map<string, number>();
  readonly #buckets = new Map<string, number>();
  #sorted: { readonly names: readonly string[]; readonly counts: Counts; readonly total: number } | undefined;

  /** Are all values known one by one? Otherwise percentiles are within 1 %. */
  get exact(): boolean {
    return this.#buckets.size === 0;
  }

  /** @param values canonical decimal → how often */
  addValues(values: Counts): this {
    return this.#add(this.#values, values);
  }

  /** @param buckets see `bucketOf` → how often */
  addBuckets(buckets: Counts): this {
    return this.#add(this.#buckets, buckets);
  }

  /**
   * The nearest rank, as Postgres's `percentile_disc`; undefined without values.
   * @param percent more than 0, up to 100; whole
   */
  percentile(percent: number): string | undefined {
    this.#sorted ??= this.exact ? sorted(this.#values, (a, b) => compareDecimal(a, b) ?? 0) : sorted(this.#allBuckets(), compareBuckets);
    const { names, counts, total } = this.#sorted;
    let rank = Math.ceil((percent * total) / 100);
    for (const name of names) {
      rank -= counts.get(name)!;
      if (rank <= 0) return this.exact ? name : estimateOf(name);
    }
    return undefined;
  }

  #allBuckets(): Counts {
    const all = new Map(this.#buckets);
    for (const [value, count] of this.#values) grow(all, bucketOf(value), count);
    return all;
  }

  #add(to: Map<string, number>, counts: Counts): this {
    for (const [name, count] of counts) grow(to, name, count);
    this.#sorted = undefined;
    return this;
  }
}

/** Adds to a count; one that comes to 0 goes. */
export function grow(counts: Map<string, number>, name: string, by: number): void {
  const count = (counts.get(name) ?? 0) + by;
  if (count === 0) counts.delete(name);
  else counts.set(name, count);
}

function sorted(counts: Counts, compare: (a: string, b: string) => number) {
  const names = [...counts.keys()].filter((name) => counts.get(name)! > 0).sort(compare);
  return { names, counts, total: names.reduce((sum, name) => sum + counts.get(name)!, 0) };
}
