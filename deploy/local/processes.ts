import { readFileSync, readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { exec } from './exec.ts';

/** A process as the system lists it. */
export interface ProcessInfo {
  readonly pid: number;
  /** The words of its command line; one string where the system does not keep them apart. */
  readonly command: readonly string[];
}

/**
 * Names one life of a process id: the boot and the moment it started. Two processes that had the same id differ in it.
 * Undefined when there is no such process.
 */
export async function incarnation(pid: number): Promise<string | undefined> {
  if (process.platform !== 'linux') {
    const { stdout } = await exec('ps', ['-o', 'lstart=', '-p', String(pid)]).catch(() => ({ stdout: '' }));
    return stdout.trim() || undefined;
  }
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // proc(5): the name may hold blanks and parentheses, so fields are counted from its last ")"; the 22nd is the start time.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
    return `${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()}/${fields[19]}`;
  } catch {
    return undefined;
  }
}

/** Running processes of a program whose command line holds an argument, or `-x=argument`-like word that contains it. */
export async function findProcesses(program: string, argument: string): Promise<ProcessInfo[]> {
  const found: ProcessInfo[] = [];
  for (const info of process.platform === 'linux' ? fromProc() : await fromPs()) {
    const first = info.command[0] ?? '';
    const named = info.command.length === 1 ? first.includes(program) : basename(first) === program;
    if (named && info.command.some((word) => word === argument || (info.command.length === 1 && word.includes(argument)))) found.push(info);
  }
  return found;
}

function fromProc(): ProcessInfo[] {
  const found: ProcessInfo[] = [];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const words = readFileSync(`/proc/${entry}/cmdline`, 'utf8').split('\0');
      if (words.at(-1) === '') words.pop();
      // A zombie has an empty command line.
      if (words.length > 0) found.push({ pid: Number(entry), command: words });
    } catch {
      // It ended while we were looking.
    }
  }
  return found;
}

async function fromPs(): Promise<ProcessInfo[]> {
  const { stdout } = await exec('ps', ['-axww', '-o', 'pid=,command=']);
  return stdout.split('\n').flatMap((line) => {
    const match = /^\s*(\d+)\s+(.+)$/.exec(line);
    return match ? [{ pid: Number(match[1]), command: [match[2]!] }] : [];
  });
}

/** Sends a signal; a process that is gone already is no error. */
export function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Waits until the condition holds; false when the time is over first. */
export async function waitUntil(condition: () => boolean | Promise<boolean>, timeoutMs: number): Promise<boolean> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    if (await condition()) return true;
    if (performance.now() >= end) return false;
    await sleep(20);
  }
}
