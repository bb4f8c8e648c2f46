import type { Bounds, Seq } from '../../log/event-log.ts';
import type { Logger } from '../../runtime/logging.ts';
import type { RunnerParts } from '../runner.ts';
import type { Offset, StateStore } from '../state-store.ts';

/**
 * What stands beside the live state of a processor: `filling`: a state that is made anew from the log; `kept`: the one that was live
 * before; `dropping`: what is being removed.
 */
export type BesideState = 'filling' | 'kept' | 'dropping';

export interface BesideStatus {
  readonly name: string;
  readonly state: BesideState;
  /** Since when, ISO 8601. */
  readonly since: string;
  /** Which one it is: random, and another one whenever somebody takes it over, flips it or removes it. */
  readonly making: string;
  /** How far it has come. */
  readonly offset: Offset | undefined;
  /** How far the live one has come. */
  readonly live: Offset | undefined;
}

/** Something that is not the same in both. Texts are short; undefined: it is not there. */
export interface Difference {
  readonly what: string;
  readonly live: string | undefined;
  readonly beside: string | undefined;
}

const shown = { before: 60, length: 240 };

/** A difference of two texts, which may be long: each from a little before the place where they part. */
export function difference(what: string, live: string | undefined, beside: string | undefined): Difference {
  let same = 0;
  if (live !== undefined && beside !== undefined) while (same < live.length && live[same] === beside[same]) same++;
  const start = same > shown.before * 2 ? same - shown.before : 0;
  const cut = (text: string | undefined): string | undefined =>
    text && `${start > 0 ? '…' : ''}${text.slice(start, start + shown.length)}${text.length > start + shown.length ? '…' : ''}`;
  return { what, live: cut(live), beside: cut(beside) };
}

export interface Comparison {
  /** How many rows, records or keys were compared, each at the same offset. */
  readonly compared: number;
  readonly differences: number;
  /** The first of them. */
  readonly listed: readonly Difference[];
  /** What changed all the while, so that it could not be seen at the same offset. */
  readonly moving: number;
  /** Why what was compared is not of the same offset: the live one can no longer go on from where it stands. */
  readonly apart?: string;
  /** Why nothing at all could be compared. A rebuild flips it only when it is told to. */
  readonly uncompared?: string;
  /** How many rows change places in the flip, where the store answers nobody else meanwhile: those that differ, and those that have changed since they were compared. */
  readonly changing?: number;
  /** How long that takes, about, in ms. */
  readonly pauseMs?: number;
}

/** The store will answer nobody else for so long (ms, about), while so many rows change places. */
export interface FlipPause {
  readonly rows: number;
  readonly ms: number;
}

/** So many differences are listed. */
export const mostListed = 20;

/** `behind`: the live one is further by now; `compare`: it has changed in a way that asks for another comparison first. */
export type FlipOutcome = 'flipped' | 'behind' | 'compare';

/**
 * What the log no longer held has come back by a backfill: a fold of this epoch that begins at `by` or before has as much as one that began at `from`,
 * the epoch's first event.
 */
export interface Refilled {
  readonly epoch: string;
  readonly from: Seq;
  readonly by: Seq;
}

/** What a comparison or a flip may ask of the fold that fills the state beside. */
export interface Steering {
  readonly signal: AbortSignal;
  /** Where it is said that a store is away. */
  readonly log: Logger;
  /** Shows how far it is, or what it waits for. */
  readonly progress: (text: string) => void;
  /** Told right before a flip in which many more rows change places than the comparison has told of. */
  readonly pausing?: (pause: FlipPause) => void;
  /** Lets the fold come to this sequence, and no further. False when it is beyond it, or does not come there in time. */
  reach(seq: Seq, withinMs?: number): Promise<boolean>;
  /** Lets the fold come as far as it can: there is nothing to stay behind. */
  letGo(): void;
  /** What the log holds now. */
  bounds(): Promise<Bounds>;
  /** Runs something while nothing is committed beside. */
  still<T>(work: () => Promise<T>): Promise<T>;
}

/**
 * A second state of a processor, in the store where the live one is. One process works on it: with `begin` or `claim` it is given a name of its own (`making`), and whatever is
 * done to its rows, keys and offset later is done in one step with a look at that name. Somebody else's name there: nothing is changed, and `rebuild_overtaken` (refused) is thrown.
 */
export interface Beside<Effects> {
  /** What is rebuilt, as messages name it. */
  readonly name: string;
  /** Where the fold commits, `lost` when something else stands there; its lease says who works on what stands beside. */
  readonly store: StateStore<Effects>;
  /**
   * The fold stays behind the live one, and takes its place at the very same offset: where the live one does more than change its state. A live one that can no longer go on
   * from where it stands is not waited for.
   */
  readonly follows: boolean;
  /** Undefined: nothing is there. */
  status(): Promise<BesideStatus | undefined>;
  /** Makes room for a state that is made anew, where nothing stands; to be cleared before it is filled. */
  begin(refilled?: Refilled): Promise<string>;
  /** Takes over what stands there, when it is still what was found. As `begin`, it returns which making it is now. */
  claim(found: BesideStatus): Promise<string>;
  /**
   * Empties what is being filled, which begins at the log's oldest event again.
   * @param progress told how far it is, where that may take long
   */
  clear(refilled?: Refilled, progress?: (text: string) => void): Promise<void>;
  /** The sequences of all events that it lacks since they could not be applied. */
  holes(): Promise<readonly Seq[]>;
  compare(steering: Steering): Promise<Comparison>;
  /**
   * Gives what stands beside the place of the live one, and the other way round, in one step of the store. Called again since no answer came, it
   * flips once.
   */
  flip(steering: Steering): Promise<FlipOutcome>;
  /** Removes what stands beside; interrupted, it says `dropping` until it is gone. */
  remove(signal: AbortSignal, progress?: (text: string) => void): Promise<void>;
}

/** How far a rebuild is. */
export interface RebuildProgress {
  readonly name: string;
  /** `waiting`: for another command, or nothing is stored beside yet. */
  readonly phase: 'waiting' | 'filling' | 'comparing' | 'flipping';
  readonly seq: Seq;
  /** Where it began, and where the log ends. */
  readonly first: Seq;
  readonly last: Seq;
  /** Events a second of late; undefined as long as that cannot be told. */
  readonly rate: number | undefined;
  readonly detail?: string;
}

export interface RebuildOptions {
  /** False: what has been filled and compared stays beside. */
  readonly flip: boolean;
  /** What was kept after a flip takes its place again. */
  readonly back?: boolean;
  /** Goes on with what stands beside, and begins nothing. */
  readonly existing?: boolean;
  /** Flips also what could not be compared at all. */
  readonly insist?: boolean;
  readonly onProgress?: (progress: RebuildProgress) => void;
  readonly onCompared?: (comparison: Comparison) => void;
  /** Many more rows change places in the flip, which comes now, than the comparison has told of. */
  readonly onPause?: (pause: FlipPause) => void;
  /**
   * The log no longer holds what was before its oldest event: called before anything is filled. Returns the sequence from which on the log holds a
   * backfill of every table; undefined: it is to be done without. Throws where that was not wanted.
   */
  readonly onTrimmed?: (bounds: Bounds) => Promise<Seq | undefined>;
}

export interface RebuildOutcome {
  readonly name: string;
  readonly flipped: boolean;
  readonly comparison: Comparison;
  /** How far it had come. */
  readonly offset: Offset;
  /** Events that it has folded now, and in how long. */
  readonly events: number;
  readonly seconds: number;
  /** Of these seconds, how many until it had come to the end of the log. */
  readonly fillSeconds: number;
}

/** A processor's state that can be made anew beside the live one. */
export interface Rebuildable {
  readonly name: string;
  status(): Promise<BesideStatus | undefined>;
  /**
   * Fills, compares and flips; goes on where another one was interrupted. The live state changes in the flip only.
   * @throws HeadwaterError `rebuild_kept`, `rebuild_missing`, `rebuild_overtaken`, `rebuild_incomplete`, `rebuild_uncompared`, `rebuild_live_stopped` (refused)
   */
  rebuild(options: RebuildOptions): Promise<RebuildOutcome>;
  /**
   * Removes what stands beside, when it is in the expected state.
   * @throws HeadwaterError `rebuild_busy`, `rebuild_kept`, `rebuild_filling` (refused)
   */
  remove(expected: 'filling' | 'kept', progress?: (text: string) => void): Promise<boolean>;
}

/** What a rebuild stands on: the parts of the processor's runner, with a store beside the live one. */
export interface RebuildParts<Effects> extends Omit<RunnerParts<Effects>, 'store' | 'mend'> {
  readonly beside: Beside<Effects>;
}

/** After so long another command takes over from one that was killed. */
export const leaseMs = 10_000;
