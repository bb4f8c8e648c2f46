import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { projectRoot } from '../../project-root.ts';

export interface Ran {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

type Environment = Readonly<Record<string, string>>;

/** Starts the command line as a process: the compiled one, or the sources when the tests themselves are not compiled. */
export function startCli(args: readonly string[], env: Environment = {}): ChildProcess {
  const root = projectRoot();
  const program = import.meta.url.endsWith('.ts')
    ? ['--import', 'tsx', join(root, 'cli', 'main.ts')]
    : [join(root, 'dist', 'cli', 'main.js')];
  return spawn(process.execPath, [...program, ...args], {
    cwd: root,
    env: { ...process.env, HEADWATER_DATA: '/nonexistent', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

/** Runs it to its end. */
export async function runCli(args: readonly string[], env: Environment = {}): Promise<Ran> {
  const child = startCli(args, env);
  const [out, err]: [string[], string[]] = [[], []];
  child.stdout?.setEncoding('utf8').on('data', (text: string) => out.push(text));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => err.push(text));
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  return { code, signal, stdout: out.join(''), stderr: err.join('') };
}
