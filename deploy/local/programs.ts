import { accessSync, constants, existsSync, readdirSync, realpathSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { canReach, type Account } from './account.ts';
import { exec } from './exec.ts';

export type ProgramName = 'postgres' | 'nats' | 'redis';

/** What a local server must be. */
export interface Program {
  readonly label: string;
  /** The file's name, and the name of its processes. */
  readonly file: string;
  /** The oldest version that will do. */
  readonly minimum: string;
  /** Other files that must stand beside it. */
  readonly companions: readonly string[];
}

export const programs: Readonly<Record<ProgramName, Program>> = {
  // 14: the oldest major version that is still maintained.
  postgres: { label: 'PostgreSQL', file: 'postgres', minimum: '14', companions: ['initdb'] },
  // 2.14.4: atomic batch publishing, and the security fixes up to it.
  nats: { label: 'NATS', file: 'nats-server', minimum: '2.14.4', companions: [] },
  redis: { label: 'Redis', file: 'redis-server', minimum: '7', companions: [] },
};

/** A server program that was found, and runs. */
export interface Binary {
  readonly path: string;
  readonly version: string;
  /** What its environment needs: the directories of libraries that came with a private copy. */
  readonly env: Readonly<Record<string, string>>;
}

export interface Search {
  /** The project's own copies. */
  readonly cache: string;
  /** Who has to be able to run it, when it is not ourselves. */
  readonly account?: Account | undefined;
  /** The major version that the data on disk asks for. */
  readonly major?: string | undefined;
}

/** The first program of its kind that is new enough: on PATH, in the usual places, in the cache. */
export async function findProgram(name: ProgramName, search: Search): Promise<Binary | undefined> {
  for (const { directory, env } of directories(name, search.cache)) {
    const binary = await examine(name, directory, env, search);
    if (binary !== undefined) return binary;
  }
  return undefined;
}

/** The program in a directory, if it runs there and is new enough. */
async function examine(name: ProgramName, directory: string, env: Record<string, string>, search: Search): Promise<Binary | undefined> {
  const { file, minimum, companions } = programs[name];
  const path = join(directory, file);
  if (![file, ...companions].every((each) => isExecutable(join(directory, each)))) return undefined;
  if (name === 'postgres' && search.account && !canReach(search.account, realpathSync(path))) return undefined;
  const version = await versionOf(path, env);
  if (version === undefined || compareVersions(version, minimum) < 0) return undefined;
  if (search.major !== undefined && version.split('.')[0] !== search.major) return undefined;
  return { path, version, env };
}

/** What `<program> --version` says, or undefined when it does not run. */
async function versionOf(path: string, env: Readonly<Record<string, string>> = {}): Promise<string | undefined> {
  try {
    const { stdout, stderr } = await exec(path, ['--version'], { env: { ...process.env, ...env }, timeoutMs: 10_000 });
    return /\d+(?:\.\d+)*/.exec(`${stdout}${stderr}`)?.[0];
  } catch {
    return undefined;
  }
}

/** Compares dotted numbers; a missing part counts as 0. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [a.split('.').map(Number), b.split('.').map(Number)];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

function directories(name: ProgramName, cache: string): { directory: string; env: Record<string, string> }[] {
  const onPath = (process.env['PATH'] ?? '').split(delimiter).filter((directory) => directory.startsWith('/'));
  const usual = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/opt/homebrew/bin'];
  const tree = join(cache, name);
  const env = privateEnv(tree);
  return [
    ...[...onPath, ...usual, ...(name === 'postgres' ? postgresDirectories('') : [])].map((directory) => ({ directory, env: {} })),
    ...[join(tree, 'usr/sbin'), join(tree, 'usr/bin'), join(tree, 'bin'), ...(name === 'postgres' ? postgresDirectories(tree) : [])].map(
      (directory) => ({ directory, env }),
    ),
  ];
}

/** Debian and Homebrew keep PostgreSQL's programs off PATH, one directory a major version; the newest first. */
function postgresDirectories(root: string): string[] {
  const versioned = [
    ...children(`${root}/usr/lib/postgresql`).map((entry) => `${root}/usr/lib/postgresql/${entry}/bin`),
    ...['/opt/homebrew/opt', '/usr/local/opt'].flatMap((kegs) =>
      children(`${root}${kegs}`)
        .filter((entry) => entry.startsWith('postgresql@'))
        .map((entry) => `${root}${kegs}/${entry}/bin`),
    ),
  ];
  const major = (path: string): number => Number(/(\d+)\/bin$/.exec(path)?.[1] ?? 0);
  return versioned.sort((a, b) => major(b) - major(a));
}

/** The environment under which programs unpacked into a private tree find the libraries unpacked beside them. */
function privateEnv(tree: string): Record<string, string> {
  const libraries = ['usr/lib', 'lib'].flatMap((directory) =>
    children(join(tree, directory))
      .filter((entry) => /-linux-gnu/.test(entry))
      .map((entry) => join(tree, directory, entry)),
  );
  return libraries.length === 0 ? {} : { LD_LIBRARY_PATH: libraries.join(':') };
}

function children(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory) : [];
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
