import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { isObject } from '../../schemas/condition/faults.ts';
import { HeadwaterError, messageOf, usage } from '../runtime/errors.ts';
import { alone, LockFault } from './file-lock.ts';
import type { Range } from './range.ts';
import type { Settled } from './target.ts';

/** A process: by its id, and by what tells it from a later one that got the same id. */
export interface Holder {
  readonly host: string;
  readonly pid: number;
  readonly incarnation: string;
}

/** Options of a replay by name, each with the text that was given, or the texts of a list. */
export type AskedFor = Readonly<Record<string, string | readonly string[]>>;

/** How far a replay has come, so that it can go on after it was stopped or killed. */
export interface Checkpoint {
  /** 1: of an earlier version, which kept neither the beginning nor the end as they were asked for; nobody can tell whether they are the same. */
  readonly version: 1 | 2;
  /** Names this run to its target: what is sent again is known by it. */
  readonly run: string;
  readonly stream: string;
  readonly epoch: string;
  /** The process that is at work, or was. */
  readonly holder: Holder;
  /** What was asked for: the options' values as they were given, by option. */
  readonly what: AskedFor;
  readonly range: Range;
  /** The first sequence that is not done. */
  readonly next: number;
  /** The event in front of it when it was last seen: it tells whether this is still the same log. */
  readonly mark?: { readonly seq: number; readonly id: string };
  readonly settled: Settled;
  /** Events in front of `next` that passed although they lack a value that was asked for. */
  readonly undecided?: number;
}

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
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT') return undefined;
      const other = 'name another file with --checkpoint';
      throw usage(
        'bad_checkpoint',
        `${this.path}, where a replay keeps how far it has come, cannot be read: ${messageOf(error)}`,
        code === 'EACCES' ? `run it as the user who began that replay, or ${other}` : other,
      );
    }
    const value = parsed(text);
    if (isCheckpoint(value)) return value;
    const later = isObject(value) && typeof value['version'] === 'number' && value['version'] > 2;
    throw usage(
      'bad_checkpoint',
      later ? `${this.path} was written by a later version of Headwater` : `${this.path} is no checkpoint of a replay`,
      later ? 'go on with that version, or name another file with --checkpoint' : 'name another file with --checkpoint',
    );
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
    try {
      await mkdir(dirname(this.path), { recursive: true, mode: 0o700 });
    } catch (error) {
      throw fileFault(this.path, error);
    }
    return alone(this.path, work, signal).catch((error: unknown) => {
      throw error instanceof LockFault ? fileFault(this.path, error.cause) : error;
    });
  }

  async remove(): Promise<void> {
    await rm(this.path, { force: true });
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isCheckpoint(value: unknown): value is Checkpoint {
  if (!isObject(value) || (value['version'] !== 1 && value['version'] !== 2)) return false;
  const { holder, what, range, next, settled } = value;
  const texts = ['run', 'stream', 'epoch'].every((name) => typeof value[name] === 'string');
  return (
    texts &&
    hasNumbers(holder, 'pid') &&
    isObject(what) &&
    Object.values(what).every((given) => (Array.isArray(given) ? given : [given]).every((one) => typeof one === 'string')) &&
    hasNumbers(range, 'first', 'last') &&
    typeof next === 'number' &&
    hasNumbers(settled, 'events', 'bytes')
  );
}

function hasNumbers(value: unknown, ...names: readonly string[]): boolean {
  return isObject(value) && names.every((name) => typeof value[name] === 'number');
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

/** A file that could not be written, in words: a mistake (usage) when nothing can be written to what it names. */
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
  return new HeadwaterError('file_failed', `${path} cannot be written: ${messageOf(error)}`, {
    reaction: hint === undefined || code === 'ENOSPC' ? 'failed' : 'usage',
    cause: error,
    ...(hint === undefined ? {} : { hint }),
  });
}
