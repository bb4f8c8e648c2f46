import { backoffMs, pause } from '../../runtime/backoff.ts';
import { stopsProcessor } from '../offset-check.ts';
import type { HeldStore } from './gate.ts';
import type { Beside, FlipOutcome, Steering } from './model.ts';

const attempts = 10;

export interface Flipping<Effects> {
  readonly beside: Pick<Beside<Effects>, 'flip' | 'follows'>;
  readonly store: HeldStore<Effects>;
  readonly steering: Steering;
  /** Called at once when it has been flipped, before anything more is committed beside. */
  readonly onFlipped: () => void;
  /** Called now and then as long as it has not. */
  readonly onWaiting: () => void;
}

/** Flips as soon as what stands beside is where the live one is. False when another comparison is due first. */
export async function flipWhenThere<Effects>(flipping: Flipping<Effects>): Promise<boolean> {
  const { beside, steering, onFlipped } = flipping;
  let outcome: FlipOutcome = 'behind';
  const attempt = async (): Promise<FlipOutcome> => {
    if (outcome !== 'behind') return outcome;
    outcome = await askToFlip(beside, steering);
    if (outcome === 'flipped') onFlipped();
    return outcome;
  };
  return (await (beside.follows ? steered(flipping, attempt) : behindCommits(flipping, attempt))) === 'flipped';
}

/** A flip that steers the fold itself: the fold must not wait for it. */
async function steered<Effects>({ steering, onWaiting }: Flipping<Effects>, attempt: () => Promise<FlipOutcome>): Promise<FlipOutcome> {
  for (let n = 0; ; n++) {
    steering.signal.throwIfAborted();
    const outcome = await attempt();
    if (outcome !== 'behind') return outcome;
    onWaiting();
    await pause(backoffMs(n, { baseMs: 10, capMs: 250 }), steering.signal);
  }
}

/** Right behind a commit it is ahead of the live one, as often as not. */
async function behindCommits<Effects>(
  { store, steering, onWaiting }: Flipping<Effects>,
  attempt: () => Promise<FlipOutcome>,
): Promise<FlipOutcome> {
  let outcome: FlipOutcome = 'behind';
  let failure: Error | undefined;
  const next = async (): Promise<void> => {
    // It may have been waited for until after the end.
    if (failure !== undefined || steering.signal.aborted) return;
    try {
      outcome = await attempt();
    } catch (error) {
      failure ??= error as Error;
    }
  };
  store.afterCommit = next;
  try {
    await store.still(next);
    while (outcome === 'behind' && failure === undefined) {
      steering.signal.throwIfAborted();
      onWaiting();
      await pause(20, steering.signal);
    }
  } finally {
    store.afterCommit = undefined;
  }
  if (failure !== undefined) throw failure;
  return outcome;
}

/** Flips if it can be. A flip whose answer is lost may have been made: asking again tells. */
async function askToFlip<Effects>(beside: Pick<Beside<Effects>, 'flip'>, steering: Steering): Promise<FlipOutcome> {
  for (let n = 0; ; n++) {
    try {
      return await beside.flip(steering);
    } catch (error) {
      if (n === attempts || steering.signal.aborted || stopsProcessor(error)) throw error;
      await pause(backoffMs(n, { baseMs: 200 }), steering.signal);
    }
  }
}
