import type { Bounds, EventLog } from '../../log/event-log.ts';
import { pause, untilItWorks } from '../../runtime/backoff.ts';
import type { Logger } from '../../runtime/logging.ts';
import type { Offset } from '../state-store.ts';
import type { GatedLog, HeldStore } from './gate.ts';
import type { BesideStatus, FlipPause, Steering } from './model.ts';

const reachMs = 5_000;

export interface SteeringParts<Effects> {
  /** What the fold reads. */
  readonly gate: GatedLog;
  /** Where it commits. */
  readonly store: HeldStore<Effects>;
  readonly eventLog: Pick<EventLog, 'bounds'>;
  /** It has to stay behind the live one. */
  readonly follows: boolean;
  readonly status: () => Promise<BesideStatus>;
  readonly progress: (text: string) => void;
  readonly pausing: (pause: FlipPause) => void;
  readonly signal: AbortSignal;
  readonly log: Logger;
}

/** A fold that fills a state beside, as the rebuild steers it, besides what comparisons and flips may ask of it. */
export interface Steered extends Steering {
  /**
   * Keeps the fold behind the live one, where it must not overtake. Undefined when there is nothing to stay behind: the live one has not begun, or it can no longer go on from
   * where it is.
   */
  follow(bounds: Bounds): Promise<Offset | undefined>;
}

/** Steers a fold: how far it may come, and when it stands still. To be called before the fold begins, which must not come anywhere before it is known where the live one is. */
export function steer<Effects>({ gate, store, eventLog, follows, status, ...parts }: SteeringParts<Effects>): Steered {
  const { signal, log, progress, pausing } = parts;
  if (follows) gate.limit = 0;
  return {
    signal,
    log,
    progress,
    pausing,
    still: (work) => store.still(work),
    letGo: () => void (gate.limit = Infinity),
    bounds: () => untilItWorks('log', () => eventLog.bounds(), parts),
    async reach(seq, withinMs = reachMs) {
      const until = performance.now() + withinMs;
      gate.limit = seq;
      while ((store.at?.seq ?? 0) < seq && performance.now() < until) {
        signal.throwIfAborted();
        await pause(2, signal);
      }
      return store.at?.seq === seq;
    },
    async follow({ epoch, first }) {
      if (!follows) return undefined;
      const { live } = await untilItWorks('state store', status, parts);
      const followed = live?.epoch === epoch && live.seq + 1 >= first ? live : undefined;
      gate.limit = followed?.seq ?? Infinity;
      return followed;
    },
  };
}
