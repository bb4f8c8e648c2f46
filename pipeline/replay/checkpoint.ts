import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { pause } from '../runtime/backoff.ts';
import { HeadwaterError, messageOf, usage } from '../runtime/errors.ts';
import type { Range } from './range.ts';
import type { Settled } from './target.ts';

/** A process: by its id, and by what tells it from a later one that got the same id. */
export interface Holder {
  readonly host: string;
  readonly pid: number;
  readonly incarnation: string;
}

/** How far a replay has come, so that it can go on after it was stopped or killed. */
export interface Checkpoint {
  readonly version: 1;
  /** Names this run to its target: what is sent again is known by it. */
  readonly run: string;
  readonly stream: string;
  readonly epoch: string;
  /** The process that is at work, or was. */
  readonly holder: Holder;
  /** What was asked for, with a name a part. */
  readonly what: Readonly<Record<string, string>>;
  readonly range: Range;
  /** The first sequence that is not done. */
  readonly next: number;
  /** The event in front of it when it was last seen: it tells whether this is still the same log. */
  readonly mark?: { readonly seq: number; readonly id: string };
  readonly settled: Settled;
  /** Events in front of `next` that passed although they lack a value that was asked for. */
  readonly undecided?: number;
}

/** A lock is held for as long as it takes to write a checkpoint; who was killed meanwhile left it. */
const staleLockMs = 10_000;
const lockPauseMs = 20;

/** Keeps the checkpoint in a file: whole, and on disk before anything goes on. */
export class CheckpointFile {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** @throws HeadwaterError `bad_checkpoint` (usage) when the file is something else */
  async read(): Promise<Checkpoint | undefined> {
    let text: string;
    try {
      text = await readFile(this.path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw fileFault(this.path, error);
    }
    try {
      const value = JSON.parse(text) as Partial<Checkpoint> | null;
      if (value?.version === 1 && typeof value.next === 'number' && value.settled && value.range) return value as Checkpoint;
    } catch {
      // Told below.
    }
    throw usage('bad_checkpoint', `${this.path} is no checkpoint of a replay`, 'name another file with --checkpoint');
  }

  async write(checkpoint: Checkpoint): Promise<void> {
    const fresh = `${this.path}.new`;
    try {
      await mkdir(dirname(this.path), { recursive: true, mode: 0o700 });
      const file = await open(fresh, 'w', 0o600);
      try {
        await file.writeFile(`${JSON.stringify(checkpoint)}\n`);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(fresh, this.path);
      await syncDirectory(dirname(this.path));
    } catch (error) {
      throw fileFault(this.path, error);
    }
  }

  /** Does work while nobody else does it with this file, in whatever process. */
  async alone<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    const lock = `${this.path}.lock`;
    try {
      await mkdir(dirname(this.path), { recursive: true, mode: 0o700 });
      while (!(await made(lock))) {
        signal.throwIfAborted();
        if (await isStale(lock)) await rm(lock, { force: true });
        else await pause(lockPauseMs, signal);
      }
    } catch (error) {
      throw signal.aborted ? error : fileFault(lock, error);
    }
    try {
      return await work();
    } finally {
      await rm(lock, { force: true });
    }
  }

  async remove(): Promise<void> {
    await rm(this.path, { force: true });
  }
}

/** Makes a file that is not there yet; false when it is. */
async function made(path: string): Promise<boolean> {
  try {
    await (await open(path, 'wx', 0o600)).close();
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

async function isStale(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found !== undefined && Date.now() - found.mtimeMs > staleLockMs;
}

/** A new name in a directory is on disk only when the directory is. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** A file that could not be read or written, in words. */
export function fileFault(path: string, error: unknown): HeadwaterError {
  if (error instanceof HeadwaterError) return error;
  const { code } = error as NodeJS.ErrnoException;
  const hints: Readonly<Record<string, string>> = {
    ENOSPC: 'make room on that disk; --resume goes on',
    EACCES: 'choose a place that you may write to',
    EISDIR: 'name a file, not a directory',
    ENOENT: 'make its directory first',
    ENOTDIR: 'name a file in a directory',
  };
  const hint = code === undefined ? undefined : hints[code];
  return new HeadwaterError('file_failed', `${path}: ${messageOf(error)}`, { cause: error, ...(hint === undefined ? {} : { hint }) });
}
