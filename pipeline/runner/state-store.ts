import type { Seq } from '../log/event-log.ts';

/** How far a processor has come: the last sequence whose effects are in the store, and of which epoch. */
export interface Offset {
  readonly seq: Seq;
  readonly epoch: string;
  /** Names the last redrive whose effects are in the store, and says what became of each letter; see redrive.ts. */
  readonly redriven?: string;
  /** Where in the store the state is that belongs to it; absent for the processor's first place. A rebuilt state has another one. */
  readonly namespace?: string;
}

/** Is it the same position of the same state? */
export function sameOffset(a: Offset | undefined, b: Offset | undefined): boolean {
  return a?.seq === b?.seq && a?.epoch === b?.epoch && a?.namespace === b?.namespace && a?.redriven === b?.redriven;
}

/**
 * Holes of a state: events up to its offset that it lacks, since they went to the dead letters. They are part of the state: another one, made anew
 * by a processor that has been corrected, has holes of its own, or none.
 */
export interface Holes {
  readonly made: readonly Seq[];
  /** Redriven: their effects are in the same commit, or they are not wanted any more. */
  readonly mended: readonly Seq[];
}

/** `lost`: the stored offset was not the expected one, and nothing was changed. */
export type CommitOutcome = 'committed' | 'lost';

/**
 * Holds a processor's state and its offset, and changes both in one atomic step (compare-and-set on the offset).
 * The lease only decides who works; the comparison alone makes two instances harmless.
 */
export interface StateStore<Effects> {
  /** Commits are carried out in the order in which they are given, so that the next one may be given before the answer to the one before it. */
  readonly ordered?: boolean;
  offset(): Promise<Offset | undefined>;
  commit(effects: Effects, expected: Offset | undefined, next: Offset, holes?: Holes): Promise<CommitOutcome>;
  /** Which of these sequences are holes of the state. */
  holes(seqs: readonly Seq[]): Promise<ReadonlySet<Seq>>;
  /** Takes or renews the lease for `ttlMs`; false while another owner holds it. */
  lease(owner: string, ttlMs: number): Promise<boolean>;
  /** Gives the lease back, if this owner holds it. */
  release(owner: string): Promise<void>;
}
