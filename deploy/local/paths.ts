import { accessSync, constants, existsSync, mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';

/** A file of the project, by its path from the root; found from the sources and from `dist` alike. */
export function projectFile(path: string): string {
  let directory = import.meta.dirname;
  while (!existsSync(join(directory, 'package.json'))) {
    if (directory === dirname(directory)) throw new Error(`no package.json above ${import.meta.dirname}`);
    directory = dirname(directory);
  }
  return join(directory, path);
}

/** Where programs that the project fetched for itself are kept: the user's cache, else the data directory. */
export function cacheDirectory(data: string): string {
  const base = process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache');
  const shared = join(base, 'headwater');
  try {
    mkdirSync(shared, { recursive: true });
    accessSync(shared, constants.W_OK);
    return shared;
  } catch {
    return join(data, 'cache');
  }
}
