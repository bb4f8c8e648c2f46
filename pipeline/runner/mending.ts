import type { EventLog } from '../log/event-log.ts';
import { requireContinuity, stopsProcessor } from './offset-check.ts';
import type { Offset, StateStore } from './state-store.ts';

/**
 * The stored offset, as long as it says nothing about the log: the state that it belongs to is to be mended. Undefined when there is none, or one to go on from: another instance
 * has mended it, or another state has taken its place.
 */
export async function unfitOffset(
  processor: string,
  store: Pick<StateStore<unknown>, 'offset'>,
  eventLog: Pick<EventLog, 'bounds'>,
): Promise<Offset | undefined> {
  const stored = await store.offset();
  const bounds = await eventLog.bounds();
  try {
    if (stored) requireContinuity(processor, stored, bounds);
    return undefined;
  } catch (error) {
    if (stopsProcessor(error)) return stored;
    throw error;
  }
}
