import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { startCli } from '../cli/support/run-cli.ts';

/** Instances of a role as processes of their own, to be killed. What ends by itself is a failure. */
export class Instances {
  readonly #role: string;
  readonly #env: Record<string, string>;
  readonly #running = new Set<ChildProcess>();
  readonly #said: string[] = [];
  #failure: Error | undefined;

  constructor(role: string, env: Record<string, string>) {
    this.#role = role;
    this.#env = { ...env, HEADWATER_ADMIN_PORT: '0' };
  }

  get running(): readonly ChildProcess[] {
    return [...this.#running];
  }

  /** The end of what they have logged. */
  get lastWords(): string {
    return this.#said.slice(-25).join('');
  }

  start(): void {
    const child = startCli(['run', this.#role], this.#env);
    child.stderr!.setEncoding('utf8').on('data', (text: string) => this.#said.push(text));
    child.once('exit', (code, signal) => {
      if (this.#running.delete(child)) this.#failure = new Error(`the ${this.#role} ended by themselves: ${String(code ?? signal)}`);
    });
    this.#running.add(child);
  }

  /** Throws if one has ended by itself. */
  check(): void {
    if (this.#failure) throw this.#failure;
  }

  async kill(child: ChildProcess): Promise<void> {
    this.#running.delete(child);
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }

  async killAll(): Promise<void> {
    for (const child of this.#running) await this.kill(child);
  }
}
