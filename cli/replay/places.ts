import { realpathSync, statSync, type Stats } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';

/** The options of a replay that name files. */
interface Places {
  readonly toFile?: string;
  readonly checkpoint?: string;
  readonly secretFile?: string;
  readonly dryRun?: boolean;
}

/** What is wrong with the files that are to be written; each a sentence. */
export function placeFaults(options: Places): readonly string[] {
  // Who only counts writes nothing.
  const written = options.dryRun ? {} : { '--to-file': options.toFile, '--checkpoint': options.checkpoint };
  const faults = Object.entries(written).map(([name, path]) => (path === undefined ? undefined : placeFault(name, path)));
  return [...faults.filter((fault) => fault !== undefined), ...checkpointFaults(options)];
}

/** A place is a file, so that what is interrupted can be gone on with. A directory is not made: its name may be a slip. */
function placeFault(name: string, path: string): string | undefined {
  if (path === '-')
    return `${name} takes no -, as standard output cannot be gone on with: name a file (./- is one called -); \`tail --from <seq> --json\` prints the same lines`;
  const directory = dirname(resolve(path));
  const there = found(directory);
  if (there === 'hidden') return undefined;
  if (!there?.isDirectory()) return `${name} ${path}: there is no directory ${directory}; make it first`;
  const file = found(path);
  if (file === undefined || file === 'hidden' || file.isFile()) return undefined;
  return `${name} ${path} is ${file.isDirectory() ? 'a directory' : 'a pipe or a device'}, which cannot be gone on with: name a file`;
}

/** What is there; `hidden` to whoever may not look: opening it tells. */
function found(path: string): Stats | 'hidden' | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return 'hidden';
  }
}

/** The checkpoint takes the place of what has its name, and is written under two more. */
function checkpointFaults({ checkpoint, toFile, secretFile }: Places): readonly string[] {
  if (checkpoint === undefined) return [];
  const path = placeOf(checkpoint);
  const taken = [path, `${path}.new`, `${path}.lock`];
  const others = { '--to-file': toFile, '--secret-file': secretFile };
  return Object.entries(others)
    .filter(([, other]) => other !== undefined && taken.includes(placeOf(other)))
    .map(([name, other]) => `--checkpoint would overwrite ${other}, the file of ${name}: name another one`);
}

/** A file's one path, however its directory is named. */
function placeOf(path: string): string {
  const whole = resolve(path);
  try {
    return join(realpathSync(dirname(whole)), basename(whole));
  } catch {
    return whole;
  }
}
