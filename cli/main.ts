#!/usr/bin/env node
import { readFileSync, realpathSync } from 'node:fs';
import { createInterface } from 'node:readline/promises';
import { fileURLToPath } from 'node:url';
import { CommanderError } from 'commander';
import { projectFile } from '../deploy/local/paths.ts';
import type { Cli } from './cli.ts';
import { report } from './failure.ts';
import { outputOn } from './output.ts';
import { createProgram } from './program.ts';
import { fromCommander } from './verb.ts';

/** The conventional codes of a process that a signal ended. */
const signalCodes = { SIGINT: 130, SIGTERM: 143 } as const;

/**
 * Ends what runs on the first signal; on the second the process ends at once, whatever is still open.
 * When nobody reads stdout any more (`headwater tail | head`), that is an end too, and a quiet one.
 */
function stopSignal(): { signal: AbortSignal; interrupted: () => number | undefined } {
  const controller = new AbortController();
  let code: number | undefined;
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (code !== undefined) process.exit(signalCodes[name]);
      code = signalCodes[name];
      controller.abort(new Error(`stopped by ${name}`));
    });
  }
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE' && error.code !== 'EIO') throw error;
      if (stream === process.stdout) {
        code ??= 0;
        controller.abort(new Error('nobody reads the output'));
      }
    });
  }
  return { signal: controller.signal, interrupted: () => code };
}

function version(): string {
  return (JSON.parse(readFileSync(projectFile('package.json'), 'utf8')) as { version: string }).version;
}

async function ask(question: string, signal: AbortSignal): Promise<string> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return await terminal.question(question, { signal });
  } finally {
    terminal.close();
  }
}

async function main(args: readonly string[]): Promise<number> {
  const { signal, interrupted } = stopSignal();
  const [out, err] = [outputOn(process.stdout, process.env), outputOn(process.stderr, process.env)];
  const canAsk = process.stdin.isTTY && process.stderr.isTTY;
  const cli: Cli = { env: process.env, out, err, signal, ask: canAsk ? (question) => ask(question, signal) : undefined };
  try {
    await createProgram(cli, version()).parseAsync([...args], { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    // Interrupted halfway: that needs no explanation.
    const code = interrupted();
    if (code !== undefined && (code === 0 || error === signal.reason || (error instanceof Error && error.name === 'AbortError')))
      return code;
    if (error instanceof CommanderError && error.code === 'commander.help') return 2;
    return report(error instanceof CommanderError ? fromCommander(error) : error, err);
  }
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  // Whatever a command has left open must not keep the process alive; what was written to a pipe or a file has been written.
  process.exit(await main(process.argv.slice(2)));
}
