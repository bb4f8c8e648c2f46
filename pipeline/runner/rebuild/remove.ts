import { randomUUID } from 'node:crypto';
import { pause } from '../../runtime/backoff.ts';
import { refused } from '../../runtime/errors.ts';
import type { RoleContext } from '../../runtime/lifecycle.ts';
import { Lease } from '../lease.ts';
import { leaseMs, type Beside } from './model.ts';
import { removable } from './refusals.ts';

/** Removes what stands beside, as `Rebuildable.remove` says. */
export async function remove<Effects>(
  beside: Beside<Effects>,
  expected: 'filling' | 'kept',
  { signal, log, progress }: Pick<RoleContext, 'signal' | 'log'> & { readonly progress: ((text: string) => void) | undefined },
): Promise<boolean> {
  const { name, store } = beside;
  if (!removable(name, await beside.status(), expected)) return false;
  const owner = `remove:${randomUUID()}`;
  const until = performance.now() + leaseMs + 2_000;
  // Whoever was killed has it until it lapses.
  while (!(await store.lease(owner, leaseMs))) {
    if (performance.now() > until)
      throw refused('rebuild_busy', `a rebuild of ${name} is at work`, 'end it first (Ctrl-C): it can go on later, or be aborted then');
    await pause(500, signal);
    signal.throwIfAborted();
    // Whoever has it may have flipped it by now, or removed it.
    if (!removable(name, await beside.status(), expected)) return false;
  }
  const lease = new Lease(store, owner, leaseMs, log);
  try {
    return await lease.during(async () => {
      const status = await beside.status();
      if (!status || !removable(name, status, expected)) return false;
      await beside.claim(status);
      await beside.remove(signal, progress);
      return true;
    });
  } finally {
    await lease.release();
  }
}
