import { spawn, type ChildProcess } from 'node:child_process';
import { extname, join } from 'node:path';
import { createInterface } from 'node:readline';

/** A program of the tests that runs as a process of its own. */
export interface TestProgram {
  readonly child: ChildProcess;
  /** The next JSON line of its standard output; rejects with what it wrote to stderr when it ends first. */
  nextLine(): Promise<unknown>;
  /** How it ended: exit code or signal. */
  readonly ended: Promise<number | NodeJS.Signals | null>;
  readonly stderr: () => string;
}

export interface TestProgramOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly uid?: number;
  readonly gid?: number;
}

/** Starts `test/support/<name>`, compiled or from source as the tests themselves run. */
export function runTestProgram(name: string, args: readonly string[], options: TestProgramOptions = {}): TestProgram {
  const script = join(import.meta.dirname, `${name}${extname(import.meta.filename)}`);
  const child = spawn(process.execPath, [...process.execArgv, script, ...args], {
    env: { ...process.env, ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
    ...(options.uid === undefined ? {} : { uid: options.uid }),
    ...(options.gid === undefined ? {} : { gid: options.gid }),
  });
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors = (errors + text).slice(-8_000)));
  const ended = new Promise<number | NodeJS.Signals | null>((resolve) => child.once('close', (code, signal) => resolve(code ?? signal)));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const nextLine = async (): Promise<unknown> => {
    const line = await lines.next();
    if (line.done === true) throw new Error(`${name} ended with ${String(await ended)}: ${errors}`);
    return JSON.parse(line.value);
  };
  return { child, nextLine, ended, stderr: () => errors };
}
