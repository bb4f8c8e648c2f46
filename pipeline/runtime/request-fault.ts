import type { FieldFault } from './http.ts';
import type { HttpErrorCode } from '../../schemas/error-codes.ts';

/** A request that is not served: becomes an error answer. */
export class RequestFault extends Error {
  readonly code: HttpErrorCode;
  readonly field: string | undefined;
  /** All that is wrong, when it is more than one thing; the first of them is `message` and `field`. */
  readonly faults: readonly FieldFault[];

  constructor(code: HttpErrorCode, message: string, field?: string, faults: readonly FieldFault[] = []) {
    super(message);
    this.name = 'RequestFault';
    this.code = code;
    this.field = field;
    this.faults = faults;
  }
}

/** 400: the part of the request named `field` cannot be what it is. */
export function badRequest(message: string, field?: string): RequestFault {
  return new RequestFault('bad_request', message, field);
}

/** 400 with everything that is wrong. Each message is a sentence that the field's name begins. */
export function badBody(faults: readonly FieldFault[]): RequestFault {
  const [first] = faults;
  if (!first) return badRequest('the body is not valid');
  return new RequestFault('bad_request', `${first.field} ${first.message}`, first.field, faults.length > 1 ? faults : []);
}

/** 404. Somebody else's is not there either. */
export function notFound(what: string): RequestFault {
  return new RequestFault('not_found', `there is no such ${what}`);
}

/** 503: something that the answer needs is away; the same request may succeed later. */
export function unavailable(message: string): RequestFault {
  return new RequestFault('unavailable', message);
}
