import { readFileSync } from 'node:fs';
import { median } from './statistics.ts';

/** A process to watch. A `tree` is PostgreSQL: the postmaster and its children, with those that ended in between. */
export interface Watched {
  readonly process: string;
  readonly pid: number;
  readonly tree?: boolean;
}

/** What a process took between start and stop of the watch. */
export interface Usage {
  readonly process: string;
  readonly cpuSeconds: number;
  /** Peak resident memory in MiB. Of a tree: the private memory of all, and the shared memory once. */
  readonly peakMb: number;
}

const sampleMs = 200;
/** proc(5): times are in clock ticks, which are 1/100 s on every Linux that Node runs on. */
const ticksPerSecond = 100;

/** Watches processes through /proc, where there is one (Linux); elsewhere there is nothing to tell. */
export class UsageWatch {
  readonly #entries: { watched: Watched; first: number; last: number; peakKb: number }[];
  readonly #timer: NodeJS.Timeout;

  constructor(watched: readonly Watched[]) {
    const entries = watched.map((each) => ({ watched: each, first: cpuTicks(each), last: 0, peakKb: 0 }));
    this.#entries = entries.filter(({ first }) => !Number.isNaN(first));
    this.#timer = setInterval(() => this.#sample(), sampleMs);
    this.#sample();
  }

  stop(): readonly Usage[] {
    clearInterval(this.#timer);
    this.#sample();
    return this.#entries.map(({ watched, first, last, peakKb }) => ({
      process: watched.process,
      cpuSeconds: (last - first) / ticksPerSecond,
      peakMb: peakKb / 1024,
    }));
  }

  #sample(): void {
    for (const entry of this.#entries) {
      const ticks = cpuTicks(entry.watched);
      // One that has ended keeps what was seen last.
      if (!Number.isNaN(ticks)) entry.last = ticks;
      entry.peakKb = Math.max(entry.peakKb, residentKb(entry.watched));
    }
  }
}

/** CPU seconds of this process's children that have ended: exact, where samples miss the last moments. */
export function endedChildrenCpuSeconds(): number {
  const stat = readStat(process.pid);
  return stat ? stat.ended / ticksPerSecond : 0;
}

/** Peak resident memory of a process over its whole life, in MiB. */
export function peakMbOf(pid: number): number {
  return memberKb(pid, 'VmHWM') / 1024;
}

/** Resident memory of a process now, in MiB. */
export function residentMbOf(pid: number): number {
  return memberKb(pid, 'VmRSS') / 1024;
}

/** The median of what each process took over several measurements. */
export function medianUsage(measurements: readonly (readonly Usage[])[]): readonly Usage[] {
  return (measurements[0] ?? []).map(({ process: name }) => {
    const all = measurements.flatMap((usage) => usage.filter((each) => each.process === name));
    return { process: name, cpuSeconds: median(all.map((each) => each.cpuSeconds)), peakMb: median(all.map((each) => each.peakMb)) };
  });
}

function cpuTicks({ pid, tree }: Watched): number {
  const own = readStat(pid);
  if (!own) return NaN;
  if (!tree) return own.running;
  const ofChildren = childrenOf(pid).map((child) => readStat(child)?.running ?? 0);
  return ofChildren.reduce((sum, ticks) => sum + ticks, own.running + own.ended);
}

function residentKb({ pid, tree }: Watched): number {
  if (!tree) return memberKb(pid, 'VmRSS');
  const all = [pid, ...childrenOf(pid)];
  const privateKb = all.reduce((sum, each) => sum + memberKb(each, 'RssAnon'), 0);
  return privateKb + Math.max(...all.map((each) => memberKb(each, 'RssShmem')));
}

/** Ticks of the process itself, and of its children that have ended. */
function readStat(pid: number): { running: number; ended: number } | undefined {
  const stat = read(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  // The name may hold blanks and parentheses: fields are counted from its last ")". utime is the 14th field.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [utime, stime, cutime, cstime] = fields.slice(11, 15).map(Number);
  return { running: utime! + stime!, ended: cutime! + cstime! };
}

function childrenOf(pid: number): readonly number[] {
  return (read(`/proc/${pid}/task/${pid}/children`) ?? '').split(' ').filter(Boolean).map(Number);
}

function memberKb(pid: number, member: string): number {
  const value = new RegExp(`^${member}:\\s+(\\d+) kB`, 'm').exec(read(`/proc/${pid}/status`) ?? '')?.[1];
  return Number(value ?? 0);
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return undefined;
  }
}
