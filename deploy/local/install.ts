import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { HeadwaterError, messageOf } from '../../pipeline/runtime/errors.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import { exec } from './exec.ts';
import { distribution, installPackages, unpackFromSuite, unpackPackages } from './install-debian.ts';
import { unpackNatsRelease } from './install-release.ts';
import { findProgram, programs, type Binary, type ProgramName, type Search } from './programs.ts';

export interface ProvideOptions extends Search {
  /** Whether it may be installed when it is missing. */
  readonly install: boolean;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** One way to come by a program. */
interface Way {
  readonly name: string;
  run(signal: AbortSignal): Promise<void>;
}

/**
 * Finds a server program, or installs it.
 * @throws HeadwaterError `program_missing` with the command that would install it
 */
export async function provideProgram(name: ProgramName, options: ProvideOptions): Promise<Binary> {
  const found = await findProgram(name, options);
  if (found !== undefined) return found;
  const { label, minimum } = programs[name];
  const wanted = options.major === undefined ? `${label} ${minimum} or newer` : `${label} ${options.major}, which made the data on disk,`;
  if (options.major !== undefined && (await findProgram(name, { ...options, major: undefined }))) {
    throw missing(wanted, `install PostgreSQL ${options.major} beside the newer one, or give a new directory with --data`);
  }
  if (!options.install) throw missing(wanted, `${await commandFor(name)}   (or let it be installed: HEADWATER_INSTALL=true)`);
  const faults: string[] = [];
  for (const way of await waysTo(name, options)) {
    options.log.info(`${label} is missing: installing it ${way.name}`);
    try {
      await oneAtATime(() => way.run(options.signal));
      const installed = await findProgram(name, options);
      if (installed !== undefined) return installed;
      faults.push(`${way.name}: it is too old`);
    } catch (error) {
      if (options.signal.aborted) throw options.signal.reason;
      faults.push(`${way.name}: ${messageOf(error)}`);
    }
  }
  throw missing(wanted, await commandFor(name), faults);
}

function missing(wanted: string, hint: string, faults: readonly string[] = []): HeadwaterError {
  return new HeadwaterError('program_missing', [`${wanted} is not installed`, ...faults].join('\n'), { hint });
}

/** Package managers lock; and two of our own installations would only wait for each other with an error. */
let queue: Promise<unknown> = Promise.resolve();
function oneAtATime<T>(work: () => Promise<T>): Promise<T> {
  const result = queue.then(work, work);
  queue = result.catch(() => undefined);
  return result;
}

const brewFormulas: Readonly<Record<ProgramName, string>> = { postgres: 'postgresql@17', nats: 'nats-server', redis: 'redis' };
const debianPackages: Readonly<Record<ProgramName, readonly string[]>> = {
  postgres: ['postgresql'],
  nats: ['nats-server'],
  redis: ['redis-server'],
};

/** The ways there are on this machine, the best first. */
async function waysTo(name: ProgramName, { cache }: ProvideOptions): Promise<Way[]> {
  const ways: Way[] = [];
  const system = await distribution();
  const into = (what: string, unpack: (directory: string, signal: AbortSignal) => Promise<void>): Way => ({
    name: what,
    run: (signal) => intoCache(cache, name, (directory) => unpack(directory, signal)),
  });
  if (name === 'nats') {
    // Debian's stable release has one that is too old; the newer one needs nothing but the C library.
    if (system?.id === 'debian')
      ways.push(
        into(`from Debian's newer packages into ${cache}`, (directory, signal) => unpackFromSuite('sid', 'nats-server', directory, signal)),
      );
    ways.push(into(`from its official release into ${cache}`, unpackNatsRelease));
    return ways;
  }
  if (system?.apt) {
    const privilege = await privilegedPrefix();
    if (privilege !== undefined) {
      ways.push({ name: 'with apt-get', run: (signal) => installPackages(privilege, debianPackages[name], signal) });
    } else {
      ways.push(
        into(`from the system's packages into ${cache}`, (directory, signal) => unpackPackages(debianPackages[name], directory, signal)),
      );
    }
  }
  if (await runs('brew'))
    ways.push({
      name: 'with brew',
      run: (signal) => exec('brew', ['install', '--quiet', brewFormulas[name]], { signal }).then(() => undefined),
    });
  return ways;
}

/** What goes before a command to run it as root without being asked: nothing as root, `sudo -n` where it is allowed. */
async function privilegedPrefix(): Promise<readonly string[] | undefined> {
  if (process.getuid?.() === 0) return [];
  return (await runs('sudo', ['-n', 'true'])) ? ['sudo', '-n'] : undefined;
}

async function runs(command: string, args: readonly string[] = ['--version']): Promise<boolean> {
  return exec(command, args, { timeoutMs: 10_000 }).then(
    () => true,
    () => false,
  );
}

/** Unpacks beside its place and moves it there whole, so that an interrupted or concurrent one leaves nothing half. */
async function intoCache(cache: string, name: ProgramName, unpack: (directory: string) => Promise<void>): Promise<void> {
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, `.${name}-`));
  const place = join(cache, name);
  try {
    const tree = join(work, 'tree');
    mkdirSync(tree);
    await unpack(tree);
    if (existsSync(place)) renameSync(place, join(work, 'old'));
    renameSync(tree, place);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** The command that a person with the rights would give. */
async function commandFor(name: ProgramName): Promise<string> {
  if (name === 'nats')
    return 'install nats-server 2.14.4 or newer from https://github.com/nats-io/nats-server/releases and put it on PATH, or set NATS_URL';
  const managers: readonly (readonly [command: string, install: string])[] = [
    ['apt-get', `sudo apt-get install ${debianPackages[name].join(' ')}`],
    ['brew', `brew install ${brewFormulas[name]}`],
    ['dnf', `sudo dnf install ${name === 'postgres' ? 'postgresql-server' : 'redis'}`],
    ['apk', `apk add ${name === 'postgres' ? 'postgresql' : 'redis'}`],
    ['pacman', `sudo pacman -S ${name === 'postgres' ? 'postgresql' : 'redis'}`],
  ];
  for (const [command, install] of managers) if (await runs(command)) return install;
  return `install ${programs[name].label} ${programs[name].minimum} or newer, or set ${name === 'postgres' ? 'DATABASE_URL' : 'REDIS_URL'}`;
}
