import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HeadwaterError, refused } from '../../pipeline/runtime/errors.ts';
import { incarnation } from './processes.ts';

interface Holder {
  readonly pid: number;
  /** See `incarnation`: a later process that got the same id is not the holder. */
  readonly incarnation: string;
}

/**
 * Takes the data directory for this process, until the returned function is called. A lock left by a process that was
 * killed is taken over.
 * @throws HeadwaterError `data_in_use` (refused) when another living process, or this one, holds it
 */
export async function lockData(data: string): Promise<() => void> {
  const path = join(data, 'lock');
  const own = `${path}.${process.pid}`;
  const me: Holder = { pid: process.pid, incarnation: (await incarnation(process.pid)) ?? '' };
  const text = `${JSON.stringify(me)}\n`;
  for (let attempt = 0; attempt < 20; attempt++) {
    const found = readLock(path);
    if (found !== undefined) {
      const holder = parseHolder(found);
      if (holder && (await incarnation(holder.pid)) === holder.incarnation) throw inUse(data, holder.pid);
      discard(path, found);
    }
    if (create(path, own, text)) {
      return () => {
        if (readLock(path) === text) rmSync(path, { force: true });
      };
    }
  }
  throw new HeadwaterError('lock_failed', `could not take ${path}`, {
    hint: 'remove the file if no headwater process runs on this directory',
  });
}

function inUse(data: string, pid: number): HeadwaterError {
  return refused(
    'data_in_use',
    `process ${pid} is already running on ${data}`,
    `if it is starting or stopping, try again in a moment; else stop it, or give this one a directory of its own with --data`,
  );
}

/** Creates the lock whole or not at all: a link, unlike a rename, fails when the name is taken. */
function create(path: string, own: string, text: string): boolean {
  writeFileSync(own, text);
  try {
    linkSync(own, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    rmSync(own, { force: true });
  }
}

/** Removes a stale lock. If another process replaced it in the meantime, what was moved away is put back. */
function discard(path: string, stale: string): void {
  const aside = `${path}.stale.${process.pid}`;
  try {
    renameSync(path, aside);
  } catch {
    return;
  }
  if (readLock(aside) !== stale) {
    try {
      linkSync(aside, path);
    } catch {
      // A third process has the lock by now.
    }
  }
  rmSync(aside, { force: true });
}

function readLock(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function parseHolder(text: string): Holder | undefined {
  try {
    const value = JSON.parse(text) as Partial<Holder>;
    return typeof value.pid === 'number' && typeof value.incarnation === 'string' ? (value as Holder) : undefined;
  } catch {
    return undefined;
  }
}
