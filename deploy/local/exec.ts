import { execFile, type ExecFileOptions } from 'node:child_process';
import { messageOf } from '../../pipeline/runtime/errors.ts';

export interface Output {
  readonly stdout: string;
  readonly stderr: string;
}

export interface ExecOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number;
}

/**
 * Runs a command to its end and returns what it printed.
 * @throws Error with the command and the end of what it said, when it could not be run or failed
 */
export function exec(command: string, args: readonly string[], options: ExecOptions = {}): Promise<Output> {
  const settings: ExecFileOptions = { maxBuffer: 64 * 1024 * 1024, timeout: options.timeoutMs ?? 0 };
  if (options.env !== undefined) settings.env = { ...options.env };
  if (options.cwd !== undefined) settings.cwd = options.cwd;
  if (options.uid !== undefined) settings.uid = options.uid;
  if (options.gid !== undefined) settings.gid = options.gid;
  if (options.signal !== undefined) settings.signal = options.signal;
  return new Promise((resolve, reject) => {
    let result: () => void = () => undefined;
    const child = execFile(command, [...args], settings, (error, stdout, stderr) => {
      result = () => {
        if (error === null) resolve({ stdout: String(stdout), stderr: String(stderr) });
        else
          reject(
            new Error(`${command} ${args[0] ?? ''}: ${lastLines(`${String(stderr)}\n${String(stdout)}`, 5) || messageOf(error)}`, {
              cause: error,
            }),
          );
      };
      // One that was aborted, or never began, is answered here before it has ended: whoever cleans up after it must wait.
      if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) result();
    });
    child.once('close', () => result());
    child.stdin?.end();
  });
}

/** The last lines that say something, joined for an error message. */
export function lastLines(text: string, count: number): string {
  const lines = text.split('\n').map((line) => line.trimEnd());
  return lines
    .filter((line) => line !== '')
    .slice(-count)
    .join('\n');
}
