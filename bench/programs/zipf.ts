import { randomInt } from 'node:crypto';

/** Picks from 0 to count - 1 by Zipf's law: the nth is picked 1/n as often as the first. */
export function zipf(count: number): () => number {
  let sum = 0;
  const shares = Array.from({ length: count }, (_, n) => (sum += 1 / (n + 1)));
  return () => {
    const at = (randomInt(2 ** 32) / 2 ** 32) * sum;
    return shares.findIndex((share) => at < share);
  };
}
