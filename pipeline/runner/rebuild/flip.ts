import { backoffMs, pause } from '../../runtime/backoff.ts';
import { stopsProcessor } from '../offset-check.ts';
import type { Beside, FlipOutcome, Steering } from './model.ts';

const attempts = 10;

/** Flips if it can be. A flip whose answer is lost may have been made: asking again tells. */
export async function askToFlip<Effects>(beside: Pick<Beside<Effects>, 'flip'>, steering: Steering): Promise<FlipOutcome> {
  for (let n = 0; ; n++) {
    try {
      return await beside.flip(steering);
    } catch (error) {
      if (n === attempts || steering.signal.aborted || stopsProcessor(error)) throw error;
      await pause(backoffMs(n, { baseMs: 200 }), steering.signal);
    }
  }
}
