import { DatabaseError } from '../../pipeline/clients/postgres.ts';
import { messageOf } from '../../pipeline/runtime/errors.ts';
import { QueryRefused } from './refused.ts';

/** Bytes that the database may send for one answer. */
export const answersBytes = 16 * 1024 ** 2;

/** The role of queries cannot be taken, or something that it needs is not there: for the gateway, or who runs it, to mend. */
export class NotSetUp extends Error {
  constructor(cause: Error) {
    super(cause.message, { cause });
    this.name = 'NotSetUp';
  }

  /** Of an error in front of a query: 22023 is what SET ROLE says of a role that is not there. */
  static of(error: unknown): NotSetUp | undefined {
    return /^(?:42501|22023)$/.test(codeOf(error)) ? new NotSetUp(error as Error) : undefined;
  }
}

/** Nothing that the asker can mend: the role or a privilege is missing, for a policy of the table perhaps. */
export function isNotSetUp(error: unknown): boolean {
  return error instanceof NotSetUp || codeOf(error) === '42501';
}

/** The class and number of an error of the database; empty for others. */
export function codeOf(error: unknown): string {
  if (error instanceof NotSetUp) return codeOf(error.cause);
  return error instanceof DatabaseError ? (error.code ?? '') : '';
}

/** The refusal of a query that the database is not prepared for. */
export function notSetUp(cause: unknown): QueryRefused {
  return new QueryRefused('unavailable', 'the database is not set up for this query: what is missing is in the log of the gateway', {
    retryAfterS: 60,
    cause,
  });
}

/**
 * What an error of a question of the gateway's own means to the asker of a query, who is never at fault for it. `advice` says what an
 * operator has to do, where that is known to be needed.
 */
export function ownFaultOf(error: unknown): { readonly refusal: QueryRefused; readonly advice?: string } {
  const code = codeOf(error);
  if (/^(?:3F000|42P01|42883)$/.test(code))
    return { refusal: notSetUp(error), advice: 'the database has not been migrated to this version: run `headwater migrate`' };
  if (isNotSetUp(error))
    return {
      refusal: notSetUp(error),
      advice:
        'the database user of the gateway, or the role headwater_query, lacks a privilege, for a policy of the table perhaps: grant what the error names, or run `headwater migrate` as the owner of the schema headwater (docs/operations.md, "What the servers need")',
    };
  return { refusal: new QueryRefused('unavailable', 'the database cannot be asked now, try again', { retryAfterS: 1, cause: error }) };
}

/** The refusal of an answer that is too large. */
export function answerSize(): QueryRefused {
  return new QueryRefused(
    'query_too_large',
    `the answer has more than the ${answersBytes / 1024 ** 2} MB that are allowed: select fewer columns, or give a smaller limit`,
    { field: 'limit' },
  );
}

/**
 * What an error of the database means to who asks: what the query is at fault for is a 400, all else a 503. Undefined for what is no
 * error of the database.
 */
export function faultOf(error: unknown, timeoutMs: number): QueryRefused | undefined {
  if (!(error instanceof Error)) return undefined;
  const code = codeOf(error);
  if (code === '57014')
    return new QueryRefused(
      'query_timeout',
      `the database did not finish within the ${timeoutMs} ms that are allowed: ask for fewer rows, by columns that have an index`,
    );
  // Too deep or too complex, a list of targets too long; memory or temporary files beyond what is configured.
  if (/^(?:54|53200|53400)/.test(code))
    return new QueryRefused('query_too_costly', `the database cannot do this with the resources it has: ${error.message}`);
  if (isNotSetUp(error)) return notSetUp(error);
  // Class 22: a value out of range, say a sum beyond what its type holds. Class 42 and 0A: what the check has let through.
  if (/^(?:22|21|42|0A)/.test(code))
    return new QueryRefused('bad_query', `the database cannot do this: ${error.message}`, { cause: error });
  if (code === '55P03') return new QueryRefused('unavailable', 'the table is being changed, try again', { retryAfterS: 1, cause: error });
  if (code !== '' || isAway(error))
    return new QueryRefused('unavailable', 'the database cannot be asked now, try again', { retryAfterS: 1, cause: error });
  return undefined;
}

/** Connections that cannot be made, or that broke: errors of the driver and of sockets, which have no class. */
function isAway(error: Error): boolean {
  const { code } = error as { readonly code?: unknown };
  return typeof code === 'string' || /connect|terminated|timeout|closed/i.test(messageOf(error));
}
