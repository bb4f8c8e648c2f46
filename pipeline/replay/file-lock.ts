import { randomBytes } from 'node:crypto';
import { open, readdir, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { backoffMs, pause } from '../runtime/backoff.ts';

/** Nobody holds the lock longer than it takes to write a small file; who was killed meanwhile left it. */
const staleMs = 10_000;

/** The lock could not be had because of the file system; `cause` says why. */
export class LockFault extends Error {
  constructor(cause: unknown) {
    super('the lock cannot be taken', { cause });
  }
}

/**
 * Does a short piece of work while nobody else does it for this path, in whatever process. Everybody first raises a flag of their own, a file
 * `<path>.lock.<random>`, and then looks for others: of two, at least one sees the other's and takes its own down again. No name is ever used
 * twice, so a stale flag can be removed by anybody without a second look, and nobody can remove one that is in use.
 * @throws LockFault; the signal's reason; what `work` throws
 */
export async function alone<T>(path: string, work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    signal.throwIfAborted();
    const flag = `${path}.lock.${randomBytes(8).toString('hex')}`;
    try {
      if (await raise(flag)) return await work();
    } finally {
      await rm(flag, { force: true });
    }
    await pause(backoffMs(attempt, { baseMs: 10, capMs: 100 }), signal);
  }

  async function raise(flag: string): Promise<boolean> {
    try {
      // Who sees somebody at work raises none: it would only be in the way of those who wait, too.
      if (await othersAt(path, undefined)) return false;
      await (await open(flag, 'wx', 0o600)).close();
      return !(await othersAt(path, basename(flag)));
    } catch (error) {
      throw new LockFault(error);
    }
  }
}

/** Is anybody else's flag up? Those that the dead left are removed. */
async function othersAt(path: string, own: string | undefined): Promise<boolean> {
  const folder = dirname(path);
  const start = `${basename(path)}.lock`;
  // Without a name of its own: as an earlier version locked.
  const flags = (await readdir(folder)).filter(
    (name) => name !== own && name.startsWith(start) && /^(?:\.[0-9a-f]{16})?$/.test(name.slice(start.length)),
  );
  let others = false;
  for (const flag of flags) {
    const found = await stat(join(folder, flag)).catch(() => undefined);
    if (found && Date.now() - found.mtimeMs > staleMs) await rm(join(folder, flag), { force: true });
    else others ||= found !== undefined;
  }
  return others;
}
