import { BadJson, readJson } from '../../../pipeline/runtime/json-body.ts';
import { badRequest } from '../../../pipeline/runtime/request-fault.ts';

/**
 * Reads a JSON body, or undefined when there is none.
 * @throws RequestFault `bad_request`
 */
export function parseBody(bytes: Buffer): unknown {
  try {
    return readJson(bytes);
  } catch (error) {
    throw error instanceof BadJson ? badRequest(error.message) : error;
  }
}

/** A body that must be an object. */
export function objectBody(body: unknown): Readonly<Record<string, unknown>> {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw badRequest('the body must be a JSON object');
  return body as Readonly<Record<string, unknown>>;
}
