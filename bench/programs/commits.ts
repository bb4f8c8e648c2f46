/**
 * The commits of a latency measurement: the nth commit (from 0) inserts a row when n is even and updates an older one when
 * it is odd, so that operation and id together say which commit an event comes from.
 */
export interface Commits {
  readonly count: number;
  /** The id that the first insert takes. */
  readonly firstId: number;
}

/** An updated row was inserted so many inserts ago; as many rows have to be there before the first commit. */
export const updateDistance = 1_000;

export function commitOf({ firstId }: Commits, n: number): { insert: boolean; id: number } {
  const nth = n >> 1;
  return n % 2 === 0 ? { insert: true, id: firstId + nth } : { insert: false, id: firstId + nth - updateDistance };
}

/** When each commit's event arrived, in ns of the monotonic clock that all processes of the machine share. */
export class Arrivals {
  readonly at: Float64Array;
  readonly #commits: Commits;
  received = 0;
  /** Events that came twice, or of other commits. */
  odd = 0;

  constructor(commits: Commits) {
    this.#commits = commits;
    this.at = new Float64Array(commits.count);
  }

  get complete(): boolean {
    return this.received === this.#commits.count;
  }

  record(insert: boolean, id: number, now: bigint): void {
    const { firstId, count } = this.#commits;
    const n = insert ? 2 * (id - firstId) : 2 * (id - firstId + updateDistance) + 1;
    if (n < 0 || n >= count || this.at[n] !== 0) {
      this.odd++;
      return;
    }
    this.at[n] = Number(now);
    this.received++;
  }
}

/** Sends a message to the bench. */
export function tell(message: unknown): void {
  process.send?.(message);
}

/** The order this program was started with. Without the bench it has nothing to live for. */
export function order<T>(): Promise<T> {
  process.once('disconnect', () => process.kill(process.pid));
  return new Promise((resolve) => process.once('message', (message) => resolve(message as T)));
}
