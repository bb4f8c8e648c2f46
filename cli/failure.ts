import { exitCodes, HeadwaterError, messageOf } from '../pipeline/runtime/errors.ts';
import { CatalogError } from '../schemas/catalog.ts';
import type { Output } from './output.ts';

/** Thrown by a command that has said what there is to say, and only has to end with this exit code. */
export class Ended extends Error {
  readonly exitCode: number;
  constructor(exitCode: number) {
    super(`ended with ${exitCode}`);
    this.exitCode = exitCode;
  }
}

/** Writes what went wrong, why, and what to do next; returns the exit code. */
export async function report(error: unknown, err: Output): Promise<number> {
  if (error instanceof Ended) return error.exitCode;
  const { red, bold, dim } = err.colors;
  const lines = describe(error).split('\n');
  if (lines.length === 1) await err.line(`${red(bold('error:'))} ${lines[0]}`);
  else {
    await err.line(red(bold(`${lines.length} errors:`)));
    for (const line of lines) await err.line(`  - ${line}`);
  }
  if (error instanceof HeadwaterError && error.hint) await err.line(`${dim('next:')} ${error.hint}`);
  if (error instanceof HeadwaterError) return exitCodes[error.reaction];
  return error instanceof CatalogError ? exitCodes.usage : exitCodes.failed;
}

function describe(error: unknown): string {
  if (error instanceof CatalogError) return error.faults.join('\n');
  const message = messageOf(error);
  // A programming error: its place is what helps.
  if (error instanceof TypeError || error instanceof ReferenceError || error instanceof RangeError)
    return `${message}${(error.stack ?? '').split('\n')[1] ?? ''}`;
  const cause = error instanceof Error && error.cause !== undefined ? messageOf(error.cause) : '';
  return cause === '' || message.includes(cause) ? message : `${message}: ${cause}`;
}
