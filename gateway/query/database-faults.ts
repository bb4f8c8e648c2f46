import { DatabaseError } from '../../pipeline/clients/postgres.ts';
import { messageOf } from '../../pipeline/runtime/errors.ts';
import { QueryRefused } from './refused.ts';

/** Bytes that the database may send for one answer. */
export const answersBytes = 16 * 1024 ** 2;

/** Privilege, role or function is missing: SET ROLE to a role that is not there is 22023. */
export function isNotSetUp(error: unknown): boolean {
  return error instanceof DatabaseError && (error.code === '42501' || (error.code === '22023' && /role/.test(error.message)));
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
  const code = error instanceof DatabaseError ? (error.code ?? '') : '';
  if (code === '57014')
    return new QueryRefused(
      'query_timeout',
      `the database did not finish within the ${timeoutMs} ms that are allowed: ask for fewer rows, by columns that have an index`,
    );
  // Too deep or too complex, a list of targets too long; memory or temporary files beyond what is configured.
  if (/^(?:54|53200|53400)/.test(code))
    return new QueryRefused('query_too_costly', `the database cannot do this with the resources it has: ${error.message}`);
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
