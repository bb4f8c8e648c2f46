import type { FastifyInstance, FastifyReply } from 'fastify';
import { errorCodes, type HttpErrorCode } from '../../schemas/error-codes.ts';

/** Who is asking: an API key and whose it is. */
export interface Principal {
  readonly keyId: string;
  readonly owner: string;
  /** `read`, `read:<channel>`, `alerts`, `admin`. */
  readonly scopes: readonly string[];
  /** When the key stops being valid, ms since 1970. */
  readonly expiresAt: number | undefined;
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Set by the gateway before any route under `/v2` runs. */
    principal: Principal;
  }
  interface FastifyContextConfig {
    /** Served without a key. */
    open?: true;
  }
}

/** HTTP routes that a processor exports; the composition root mounts them on the gateway, behind its authentication. */
export type Routes = (app: FastifyInstance) => void | Promise<void>;

/** May this principal read the channel? */
export function mayRead(principal: Pick<Principal, 'scopes'>, channel: string): boolean {
  const has = (scope: string): boolean => principal.scopes.includes(scope);
  return has('admin') || has('read') || has(`read:${channel}`) || (channel === 'alerts' && has('alerts'));
}

/** One thing that is wrong with a request: the message is a sentence that the field's name begins. */
export interface FieldFault {
  readonly field: string;
  readonly message: string;
}

/** The body of every error answer. `faults`: all that is wrong, where that is more than one thing. */
export function errorBody(
  code: HttpErrorCode,
  message: string,
  field?: string,
  faults: readonly FieldFault[] = [],
): { error: { code: HttpErrorCode; message: string; field?: string; faults?: readonly FieldFault[] } } {
  return { error: { code, message, ...(field === undefined ? {} : { field }), ...(faults.length > 0 && { faults }) } };
}

/** Answers with an error, and the status that belongs to its code. */
export function sendError(
  reply: FastifyReply,
  code: HttpErrorCode,
  message: string,
  field?: string,
  faults: readonly FieldFault[] = [],
): FastifyReply {
  return reply.code(errorCodes[code].status).send(errorBody(code, message, field, faults));
}
