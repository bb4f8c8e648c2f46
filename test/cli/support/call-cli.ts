import { PassThrough } from 'node:stream';
import { CommanderError } from 'commander';
import { report } from '../../../cli/failure.ts';
import { outputOn } from '../../../cli/output.ts';
import { createProgram } from '../../../cli/program.ts';
import { fromCommander } from '../../../cli/verb.ts';

/**
 * Runs a command line in this process: quicker than a process of its own, where neither signals nor the process's end matter.
 * `onError` is told each piece of stderr.
 */
export async function callCli(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  { signal = new AbortController().signal, onError = () => undefined }: { signal?: AbortSignal; onError?: (said: string) => void } = {},
): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }> {
  const texts = [[], []] as [string[], string[]];
  const [out, err] = texts.map((text, i) => {
    const stream = new PassThrough().setEncoding('utf8').on('data', (chunk: string) => {
      text.push(chunk);
      if (i === 1) onError(chunk);
    });
    return outputOn(stream as unknown as NodeJS.WriteStream, {});
  });
  const cli = {
    env: { HEADWATER_DATA: '/nonexistent', ...env },
    out: out!,
    err: err!,
    ask: undefined,
    signal,
  };
  let code = 0;
  try {
    await createProgram(cli, 'test').parseAsync([...args], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) code = 0;
    else code = error === signal.reason ? 130 : await report(error instanceof CommanderError ? fromCommander(error) : error, cli.err);
  }
  // What was written reaches its listener in a later turn.
  await new Promise((resolve) => setImmediate(resolve));
  return { code, stdout: texts[0].join(''), stderr: texts[1].join('') };
}
