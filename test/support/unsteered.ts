import type { Steering } from '../../pipeline/runner/rebuild/model.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';

/** What a comparison or a flip may ask of a fold that has ended. */
export function unsteered(signal: AbortSignal, more: Partial<Steering> = {}): Steering {
  return {
    signal,
    log: silentLogger(),
    progress: () => undefined,
    reach: () => Promise.resolve(false),
    letGo: () => undefined,
    bounds: () => Promise.reject(new Error('there is no log')),
    still: (work) => work(),
    ...more,
  };
}
