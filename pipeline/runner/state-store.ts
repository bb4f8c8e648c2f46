import type { Seq } from '../log/event-log.ts';

/** How far a processor has come: the last sequence whose effects are in the store, and of which epoch. */
export interface Offset {
  readonly seq: Seq;
  readonly epoch: string;
}

/** `lost`: the stored offset was not the expected one, and nothing was changed. */
export type CommitOutcome = 'committed' | 'lost';

/**
 * Holds a processor's state and its offset, and changes both in one atomic step (compare-and-set on the offset).
 * The lease only decides who works; the comparison alone makes two instances harmless.
 */
export interface StateStore<Effects> {
  offset(): Promise<Offset | undefined>;
  commit(effects: Effects, expected: Offset | undefined, next: Offset): Promise<CommitOutcome>;
  /** Takes or renews the lease for `ttlMs`; false while another owner holds it. */
  lease(owner: string, ttlMs: number): Promise<boolean>;
  /** Gives the lease back, if this owner holds it. */
  release(owner: string): Promise<void>;
}
