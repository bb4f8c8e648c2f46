import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { exec } from './exec.ts';

export interface Distribution {
  /** `ID` of os-release(5). */
  readonly id: string;
  /** Whether it has apt-get and dpkg. */
  readonly apt: boolean;
}

/** Which Linux distribution this is; undefined elsewhere. */
export async function distribution(): Promise<Distribution | undefined> {
  if (process.platform !== 'linux' || !existsSync('/etc/os-release')) return undefined;
  const id = /^ID="?([^"\n]+)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? '';
  const apt = ['/usr/bin/apt-get', '/usr/bin/dpkg'].every((path) => existsSync(path));
  return { id, apt };
}

const quiet: Readonly<Record<string, string>> = { DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C', RUNLEVEL: '1' };

/**
 * Installs packages system-wide, without starting what they contain: RUNLEVEL=1 keeps their installation scripts from
 * starting services where there is no policy that does so already.
 * @param privilege what goes before the command to run it as root
 */
export async function installPackages(privilege: readonly string[], packages: readonly string[], signal: AbortSignal): Promise<void> {
  const run = (...args: string[]): Promise<unknown> => {
    const words = [
      ...privilege,
      'env',
      ...Object.entries(quiet).map(([name, value]) => `${name}=${value}`),
      'apt-get',
      '-q',
      '-y',
      '-o',
      'DPkg::Lock::Timeout=120',
      ...args,
    ];
    return exec(words[0]!, words.slice(1), { signal });
  };
  const install = ['install', '--no-install-recommends', ...packages];
  try {
    await run(...install);
  } catch {
    // No package lists yet, or old ones whose files the mirror no longer has.
    if (signal.aborted) throw signal.reason;
    await run('update');
    await run(...install);
  }
}

/**
 * Unpacks packages of this system, with what they need and the system lacks, into a directory, without any privilege:
 * with package lists of our own, so that the system's are neither needed nor touched.
 */
export async function unpackPackages(packages: readonly string[], directory: string, signal: AbortSignal): Promise<void> {
  const apt = privateApt(directory);
  try {
    await exec('apt-get', [...apt.options, 'update'], { env: apt.env, signal });
    await exec('apt-get', [...apt.options, '-y', '--no-install-recommends', '--download-only', 'install', ...packages], {
      env: apt.env,
      signal,
    });
    await unpackArchives(apt.archives, directory, signal);
  } finally {
    rmSync(apt.state, { recursive: true, force: true });
  }
}

/** Unpacks one package of another suite of this distribution, alone, from the mirror and by the key the system trusts. */
export async function unpackFromSuite(suite: string, name: string, directory: string, signal: AbortSignal): Promise<void> {
  const apt = privateApt(directory);
  const sources = join(apt.state, 'sources.list');
  writeFileSync(sources, sourceLine(suite, systemSources()));
  const options = [
    ...apt.options,
    '-o',
    `Dir::Etc::sourcelist=${sources}`,
    '-o',
    'Dir::Etc::sourceparts=-',
    '-o',
    'APT::Get::List-Cleanup=0',
  ];
  try {
    await exec('apt-get', [...options, 'update'], { env: apt.env, signal });
    mkdirSync(apt.archives, { recursive: true });
    await exec('apt-get', [...options, 'download', name], { env: apt.env, cwd: apt.archives, signal });
    await unpackArchives(apt.archives, directory, signal);
  } finally {
    rmSync(apt.state, { recursive: true, force: true });
  }
}

interface PrivateApt {
  readonly state: string;
  readonly archives: string;
  readonly options: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** Options that make apt-get keep lists, downloads and locks in a directory of ours; sources and keys stay the system's. */
function privateApt(directory: string): PrivateApt {
  const state = join(directory, '.apt');
  const archives = join(state, 'cache/archives');
  for (const path of ['lists/partial', 'cache/archives/partial']) mkdirSync(join(state, path), { recursive: true });
  const settings = [
    `Dir::State::Lists=${state}/lists`,
    `Dir::Cache=${state}/cache`,
    `Dir::Cache::archives=${archives}`,
    'Debug::NoLocking=1',
    'Acquire::Languages=none',
    // Dropping to the account _apt is for root's own directories, which it could not write to here.
    ...(process.getuid?.() === 0 ? ['APT::Sandbox::User=root'] : []),
  ];
  return { state, archives, options: ['-q', ...settings.flatMap((setting) => ['-o', setting])], env: { ...process.env, ...quiet } };
}

async function unpackArchives(archives: string, directory: string, signal: AbortSignal): Promise<void> {
  const files = readdirSync(archives).filter((file) => file.endsWith('.deb'));
  if (files.length === 0) throw new Error('apt-get downloaded nothing');
  for (const file of files) await exec('dpkg', ['-x', join(archives, file), directory], { signal });
}

/** A package source of the system. */
interface Source {
  readonly uri: string;
  readonly suite: string;
  readonly components: readonly string[];
  readonly signedBy: string | undefined;
}

/** The line for another suite of the archive that the system itself is installed from. */
function sourceLine(suite: string, sources: readonly Source[]): string {
  const codename = /^VERSION_CODENAME=(.+)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1];
  const own =
    sources.find((source) => source.suite === codename && source.components.includes('main')) ??
    sources.find((source) => /\/debian\/?$/.test(source.uri));
  if (own === undefined) throw new Error('the system names no package source of its own to derive a mirror from');
  return `deb ${own.signedBy ? `[signed-by=${own.signedBy}] ` : ''}${own.uri} ${suite} main\n`;
}

/** Reads sources.list(5), in both its forms. */
function systemSources(etc = '/etc/apt'): Source[] {
  const parts = join(etc, 'sources.list.d');
  const files = [join(etc, 'sources.list'), ...(existsSync(parts) ? readdirSync(parts).map((file) => join(parts, file)) : [])].filter(
    (file) => existsSync(file),
  );
  return files.flatMap((file) => {
    const text = readFileSync(file, 'utf8');
    return file.endsWith('.sources') ? parseStanzas(text) : file.endsWith('.list') ? parseLines(text) : [];
  });
}

/** The one-line form: `deb [signed-by=… arch=…] uri suite component…`. */
export function parseLines(text: string): Source[] {
  return text.split('\n').flatMap((line) => {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)/.exec(line);
    if (!match) return [];
    const signedBy = /signed-by=(\S+)/.exec(match[1] ?? '')?.[1];
    return [{ uri: match[2]!, suite: match[3]!, components: match[4]!.trim().split(/\s+/), signedBy }];
  });
}

/** The deb822 form: stanzas of fields. */
export function parseStanzas(text: string): Source[] {
  return text.split(/\n\s*\n/).flatMap((stanza) => {
    const words = (name: string): string[] => {
      const match = new RegExp(`^${name}:[ \\t]*(.*(?:\\n[ \\t]+.*)*)`, 'im').exec(stanza.replace(/^#.*\n?/gm, ''));
      return match?.[1]?.trim().split(/\s+/).filter(Boolean) ?? [];
    };
    if (!words('Types').includes('deb') || words('Enabled')[0] === 'no') return [];
    const [signedBy] = words('Signed-By').filter((word) => word.startsWith('/'));
    return words('URIs').flatMap((uri) => words('Suites').map((suite) => ({ uri, suite, components: words('Components'), signedBy })));
  });
}
