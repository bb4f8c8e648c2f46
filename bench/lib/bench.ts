import type { BenchServers } from './servers.ts';
import type { Usage } from './usage.ts';

/** What a bench is given. */
export interface BenchContext {
  readonly servers: BenchServers;
  /** Measurements of each size; what is printed is their median. */
  readonly runs: number;
  /** A tenth of the work, to see whether it works. Its figures are not for publishing. */
  readonly quick: boolean;
  /** Directory for CPU profiles of the Headwater process, if they are wanted. */
  readonly profile: string | undefined;
  readonly signal: AbortSignal;
  /** Tells how far it has come. */
  say(line: string): void;
}

/** One benchmark: a piece of work, its yardstick, and the figures of both. */
export interface Bench {
  readonly name: string;
  /** One line for `--help`. */
  readonly about: string;
  run(context: BenchContext): Promise<Report>;
}

export interface ReportTable {
  readonly title: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

export interface Report {
  readonly tables: readonly ReportTable[];
  /** What one has to know to read the tables. */
  readonly notes: readonly string[];
  /** Every single measurement, for the JSON file. */
  readonly measurements: readonly object[];
}

/** The processes of one measurement, under a title. */
export interface UsageOf {
  readonly title: string;
  readonly usage: readonly Usage[];
}

/** A table of what each process took. */
export function usageTable(title: string, groups: readonly UsageOf[]): ReportTable {
  const rows = groups.flatMap(({ title: name, usage }) =>
    usage.map(({ process, cpuSeconds, peakMb }) => [name, process, cpuSeconds.toFixed(2), peakMb.toFixed(0)]),
  );
  return { title, head: ['', 'PROCESS', 'CPU s', 'PEAK MB'], rows };
}
