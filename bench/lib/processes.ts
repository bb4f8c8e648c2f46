import { fork, spawn, type ChildProcess } from 'node:child_process';
import { extname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { BenchContext } from './bench.ts';
import type { Scope } from './scope.ts';

/** A line of Headwater's log, and when it came (`performance.now()`). */
interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly error?: string;
  readonly at: number;
}

const stopMs = 20_000;
const warning = 40;

/** `headwater run <role>…` as a process of its own. */
export class Headwater {
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #lines: LogLine[] = [];
  #ended: string | undefined;
  #stopping = false;
  readonly #died: Promise<never>;
  #wake: (() => void) | undefined;

  constructor(child: ChildProcess, say: (line: string) => void) {
    this.#child = child;
    this.pid = child.pid!;
    createInterface({ input: child.stderr! }).on('line', (text) => {
      const at = performance.now();
      const line = parsed(text, at);
      this.#lines.push(line);
      if (line.level >= warning) say(`  headwater: ${line.msg}${line.error ? ` (${line.error})` : ''}`);
      this.#wake?.();
    });
    this.#died = new Promise((_, reject) => {
      child.once('close', (code, signal) => {
        const lastWords = this.#lines.slice(-5).map(({ msg }) => msg);
        this.#ended = `headwater ended with ${code ?? signal}: ${lastWords.join('; ')}`;
        this.#wake?.();
        if (!this.#stopping) reject(new Error(this.#ended));
      });
    });
    this.#died.catch(() => undefined);
  }

  /** The first line of the log that matches, with when it was written. */
  async logged(pattern: RegExp, signal: AbortSignal): Promise<{ at: number; match: RegExpExecArray }> {
    for (let next = 0; ;) {
      for (; next < this.#lines.length; next++) {
        const { msg, at } = this.#lines[next]!;
        const match = pattern.exec(msg);
        if (match) return { at, match };
      }
      if (this.#ended !== undefined) throw new Error(this.#ended);
      await orAborted(new Promise<void>((resolve) => (this.#wake = resolve)), signal);
    }
  }

  /** Waits for something that only comes as long as this process lives. */
  while<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.#died]);
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    if (this.#ended !== undefined) return;
    const closed = new Promise((resolve) => this.#child.once('close', resolve));
    const force = setTimeout(() => this.#child.kill('SIGKILL'), stopMs);
    this.#child.kill('SIGTERM');
    await closed;
    clearTimeout(force);
  }
}

/** Starts roles on the given servers, configured by nothing else; the scope stops them. */
export function startHeadwater(
  roles: readonly string[],
  env: Readonly<Record<string, string>>,
  { profile, say }: Pick<BenchContext, 'profile' | 'say'>,
  scope: Scope,
): Headwater {
  const main = join(import.meta.dirname, `../../cli/main${extname(import.meta.filename)}`);
  const profiling = profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`];
  const child = spawn(process.execPath, [...process.execArgv, ...profiling, main, 'run', ...roles], {
    env: { ...inherited(), HEADWATER_ADMIN_PORT: '0', ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const headwater = new Headwater(child, say);
  scope.defer(() => headwater.stop());
  return headwater;
}

/** A program of `bench/programs`, told what to do by a message; it answers by messages. */
export interface Program {
  readonly pid: number;
  /** Its next message. Rejects when it ends first. */
  next<T>(signal: AbortSignal): Promise<T>;
}

/** Starts a program; the scope ends it. Typed arrays go through as they are. */
export function startProgram(name: string, order: object, scope: Scope): Program {
  const child = fork(join(import.meta.dirname, `../programs/${name}${extname(import.meta.filename)}`), { serialization: 'advanced' });
  const messages: unknown[] = [];
  let ended: string | undefined;
  let wake: (() => void) | undefined;
  child.on('message', (message) => {
    messages.push(message);
    wake?.();
  });
  const closed = new Promise<void>((resolve) =>
    child.once('close', (code, signal) => {
      ended = `${name} ended with ${code ?? signal}`;
      wake?.();
      resolve();
    }),
  );
  scope.defer(async () => {
    child.kill('SIGKILL');
    await closed;
  });
  child.send(order);
  return {
    pid: child.pid!,
    next: async <T>(signal: AbortSignal): Promise<T> => {
      while (messages.length === 0) {
        if (ended !== undefined) throw new Error(ended);
        await orAborted(new Promise<void>((resolve) => (wake = resolve)), signal);
      }
      return messages.shift() as T;
    },
  };
}

/** Waits for a promise, but not for ever. */
export async function within<T>(ms: number, what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${ms / 1_000} s`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits for a promise, but not beyond the signal. */
export async function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  let stop!: () => void;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason as Error);
    signal.addEventListener('abort', stop, { once: true });
  });
  promise.catch(() => undefined);
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** The environment without what would configure Headwater. */
function inherited(): NodeJS.ProcessEnv {
  const configured = /^(HEADWATER_.*|DATABASE_URL|NATS_URL|REDIS_URL)$/;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !configured.test(name)));
}

function parsed(text: string, at: number): LogLine {
  try {
    return { ...(JSON.parse(text) as { level: number; msg: string; error?: string }), at };
  } catch {
    return { level: warning, msg: text, at };
  }
}
