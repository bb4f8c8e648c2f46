/** The value in the middle; of an even number the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new Error('the median of nothing');
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** How latencies are spread, in the unit they were given in. */
export interface Spread {
  readonly p50: number;
  readonly p90: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
}

/** Percentiles by nearest rank: each is a value that was measured. */
export function spreadOf(values: Float64Array): Spread {
  const sorted = values.toSorted();
  const rank = (share: number): number => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? NaN;
  return { p50: rank(0.5), p90: rank(0.9), p95: rank(0.95), p99: rank(0.99), max: rank(1) };
}

/** The median of each member over several runs; of `max` the largest. */
export function medianSpread(spreads: readonly Spread[]): Spread {
  const of = (member: keyof Spread): number => median(spreads.map((spread) => spread[member]));
  return { p50: of('p50'), p90: of('p90'), p95: of('p95'), p99: of('p99'), max: Math.max(...spreads.map(({ max }) => max)) };
}

/** `1,234,567` */
export function grouped(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

/** `0.71 – 0.83` */
export function range(values: readonly number[], digits: number): string {
  return `${Math.min(...values).toFixed(digits)} – ${Math.max(...values).toFixed(digits)}`;
}
