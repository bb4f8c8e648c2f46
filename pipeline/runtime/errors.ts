/**
 * Errors are sorted by the reaction they ask for, not by the place they come from:
 * `retry` waits and tries again, `usage` tells the person what to correct (exit 2),
 * `refused` stops because going on could lose or repeat data (exit 3).
 */
export type Reaction = 'failed' | 'usage' | 'refused' | 'retry';

/** Exit codes of the command line: 0 done, 1 failed, 2 usage or configuration, 3 refused for safety. */
export const exitCodes: Readonly<Record<Reaction, number>> = { failed: 1, retry: 1, usage: 2, refused: 3 };

/** An error written for the person who has to act on it. */
export class HeadwaterError extends Error {
  readonly code: string;
  readonly reaction: Reaction;
  /** What to do next: a sentence or a command. */
  readonly hint: string | undefined;

  constructor(code: string, message: string, options: { reaction?: Reaction; hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'HeadwaterError';
    this.code = code;
    this.reaction = options.reaction ?? 'failed';
    this.hint = options.hint;
  }
}

/** A mistake in arguments or configuration: exit 2. */
export function usage(code: string, message: string, hint?: string): HeadwaterError {
  return new HeadwaterError(code, message, { reaction: 'usage', ...(hint === undefined ? {} : { hint }) });
}

/** Going on would be unsafe: exit 3. */
export function refused(code: string, message: string, hint?: string): HeadwaterError {
  return new HeadwaterError(code, message, { reaction: 'refused', ...(hint === undefined ? {} : { hint }) });
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return error.errors.map(messageOf).join('; ');
  return error instanceof Error ? error.message || error.name : String(error);
}
