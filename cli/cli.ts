import type { Config } from '../pipeline/runtime/config.ts';
import { readConfig } from '../pipeline/runtime/config.ts';
import type { Output } from './output.ts';

/** What a command is given of the process it runs in; commands touch nothing global. */
export interface Cli {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Answers: what was asked for. */
  readonly out: Output;
  /** Everything else: progress, warnings, errors. */
  readonly err: Output;
  /** Asks the person a question and returns the line that was typed; undefined where nobody can be asked. */
  readonly ask: ((question: string) => Promise<string>) | undefined;
  /** Fires on the first Ctrl-C or SIGTERM, or when nobody reads the output any more. */
  readonly signal: AbortSignal;
}

/** The configuration of this process. Throws with all faults at once. */
export function configOf(cli: Cli, args: Parameters<typeof readConfig>[1] = {}): Config {
  return readConfig(cli.env, args);
}
