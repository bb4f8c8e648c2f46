import { withDeadline } from '../../pipeline/runtime/tasks.ts';
import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, existsSync, openSync, readSync, fstatSync, renameSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { backoffMs } from '../../pipeline/runtime/backoff.ts';
import { HeadwaterError, messageOf } from '../../pipeline/runtime/errors.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import type { Account } from './account.ts';
import { lastLines } from './exec.ts';
import { stopTimeoutMs, type ServerTrace } from './orphans.ts';
import { choosePort } from './ports.ts';
import { signalProcess, waitUntil } from './processes.ts';

/** How one kind of server is started, probed and stopped. */
export interface ServerSpec extends ServerTrace {
  readonly path: string;
  readonly account?: Account | undefined;
  readonly logFile: string;
  /** Writes what depends on the port (a configuration file), and says how to start. */
  launch(port: number): { args: readonly string[]; env: Readonly<Record<string, string>> };
  /** Answers when the server serves; throws while it does not. */
  probe(port: number, signal: AbortSignal): Promise<void>;
}

/** A server that runs. */
export interface Server {
  readonly port: number;
  readonly pid: number;
  /** Resolves when it died so often that it is no longer started again. */
  readonly failed: Promise<HeadwaterError>;
  stop(): Promise<void>;
}

/** Recovery after a crash can take long, so the bound is on starting to answer at all. */
const startTimeoutMs = 120_000;
/** Deaths within this time that are put up with. */
const deathsAllowed = 5;
const deathsWithinMs = 60_000;

/**
 * Starts a server and returns when it serves. Should it die later, it is started again on the same port, and the log says
 * why it died. Nobody else may run on its data: see `stopOrphans`.
 */
export async function startServer(spec: ServerSpec, port: number, log: Logger, signal: AbortSignal): Promise<Server> {
  rotate(spec.logFile);
  for (let attempt = 1; ; attempt++) {
    const life = new Life(spec, port);
    try {
      await life.ready(log, signal);
      return new Supervised(spec, life, log);
    } catch (error) {
      await life.stop();
      if (signal.aborted) throw signal.reason;
      if (attempt >= 10 || !mayRetry(error)) throw error;
      // The port was taken after it was chosen, or children of a killed postmaster have not yet gone.
      if (/already exists|still in use/.test(messageOf(error))) await sleep(500);
      else port = await choosePort();
    }
  }
}

function mayRetry(error: unknown): boolean {
  return /address (already )?in use|could not bind|shared memory block .* still in use/i.test(messageOf(error));
}

/** One process of a server, from its start to its end. */
class Life {
  readonly port: number;
  readonly child: ChildProcess;
  /** Resolves, never rejects, with how it ended. */
  readonly ended: Promise<string>;
  readonly #spec: ServerSpec;
  readonly #logStart: number;
  #over = false;

  constructor(spec: ServerSpec, port: number) {
    this.#spec = spec;
    this.port = port;
    const { args, env } = spec.launch(port);
    const output = openSync(spec.logFile, 'a', 0o600);
    try {
      this.#logStart = fstatSync(output).size;
      // Detached: in a process group of its own, so that Ctrl-C on the terminal reaches us alone and we stop it in order.
      this.child = spawn(spec.path, [...args], {
        cwd: '/',
        env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin', ...env },
        stdio: ['ignore', output, output],
        detached: true,
        ...(spec.account ? { uid: spec.account.uid, gid: spec.account.gid } : {}),
      });
    } finally {
      closeSync(output);
    }
    this.child.unref();
    this.ended = new Promise((resolve) => {
      const end = (how: string): void => {
        this.#over = true;
        resolve(how);
      };
      this.child.once('exit', (code, signal) => end(signal === null ? `ended with code ${code}` : `was ended by ${signal}`));
      this.child.once('error', (error) => end(`could not be started: ${error.message}`));
    });
  }

  get over(): boolean {
    return this.#over;
  }

  /** What it wrote since it was started, the last lines of it. */
  tail(): string {
    return lastLines(readFrom(this.#spec.logFile, this.#logStart), 6);
  }

  async ready(log: Logger, signal: AbortSignal): Promise<void> {
    const started = performance.now();
    let saidAt = started;
    for (let reason = 'it does not answer'; ;) {
      signal.throwIfAborted();
      if (this.over) throw this.#failure(await this.ended);
      try {
        await withDeadline(5_000, signal, (attempt) => this.#spec.probe(this.port, attempt));
        if (!this.over) return;
      } catch (error) {
        reason = messageOf(error);
      }
      const now = performance.now();
      if (now - started > startTimeoutMs) throw this.#failure(`was not ready within ${startTimeoutMs / 1000} s: ${reason}`);
      if (now - saidAt > 10_000) {
        saidAt = now;
        log.info(`${this.#spec.label}: still starting (${reason})`);
      }
      await Promise.race([sleep(now - started < 2_000 ? 15 : 100), this.ended]);
    }
  }

  #failure(what: string): HeadwaterError {
    const tail = this.tail();
    return new HeadwaterError('server_failed', `${this.#spec.label} ${what}${tail ? `; the end of its log:\n${tail}` : ''}`, {
      hint: `its whole log is ${this.#spec.logFile}`,
    });
  }

  async stop(): Promise<void> {
    const pid = this.child.pid;
    if (pid === undefined || this.over) return;
    signalProcess(pid, this.#spec.stopSignal);
    for (const next of [this.#spec.forceSignal, 'SIGKILL'] as const) {
      if (await this.#endsWithin(next === 'SIGKILL' ? 5_000 : stopTimeoutMs)) return;
      signalProcess(pid, next);
    }
    await this.#endsWithin(5_000);
  }

  async #endsWithin(ms: number): Promise<boolean> {
    return waitUntil(() => this.over, ms);
  }
}

/** Starts a server again when it dies. */
class Supervised implements Server {
  readonly port: number;
  readonly failed: Promise<HeadwaterError>;
  readonly #spec: ServerSpec;
  readonly #log: Logger;
  readonly #stopping = new AbortController();
  readonly #watching: Promise<void>;
  #life: Life;
  #fail: (error: HeadwaterError) => void = () => undefined;

  constructor(spec: ServerSpec, life: Life, log: Logger) {
    this.#spec = spec;
    this.#life = life;
    this.#log = log;
    this.port = life.port;
    this.failed = new Promise((resolve) => (this.#fail = resolve));
    this.#watching = this.#watch();
  }

  get pid(): number {
    return this.#life.child.pid ?? 0;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#life.stop();
    await this.#watching;
  }

  async #watch(): Promise<void> {
    const deaths: number[] = [];
    const { signal } = this.#stopping;
    const { label } = this.#spec;
    for (;;) {
      const how = await this.#life.ended;
      if (signal.aborted) return;
      deaths.push(performance.now());
      const recent = deaths.filter((at) => at > performance.now() - deathsWithinMs).length;
      const text = `${label} ${how}; the end of its log:\n${this.#life.tail()}`;
      if (recent > deathsAllowed)
        return this.#fail(new HeadwaterError('server_failed', text, { hint: `its whole log is ${this.#spec.logFile}` }));
      this.#log.error(`${text}\n${label} is started again`);
      await sleep(backoffMs(recent, { baseMs: 20, capMs: 2_000 }), undefined, { signal, ref: false }).catch(() => undefined);
      if (signal.aborted) return;
      this.#life = new Life(this.#spec, this.port);
      await this.#life.ready(this.#log, signal).then(
        () => this.#log.info(`${label} runs again`),
        () => this.#life.stop(),
      );
    }
  }
}

/** Keeps a log from growing for ever: at a start, a large one is set aside. */
function rotate(path: string): void {
  if (existsSync(path) && statSync(path).size > 4 * 1024 * 1024) renameSync(path, `${path}.1`);
}

function readFrom(path: string, position: number): string {
  const file = openSync(path, 'r');
  try {
    const size = fstatSync(file).size;
    const start = Math.max(position, size - 16_384);
    const buffer = Buffer.alloc(Math.max(0, size - start));
    readSync(file, buffer, 0, buffer.length, start);
    return buffer.toString('utf8');
  } finally {
    closeSync(file);
  }
}
