import type { FieldFault } from '../../pipeline/runtime/http.ts';
import type { HttpErrorCode } from '../../schemas/error-codes.ts';

/** A query that is not answered, and why: what its asker can mend, or wait for. Becomes an error answer. */
export class QueryRefused extends Error {
  readonly code: HttpErrorCode;
  /** The part of the request at fault. */
  readonly field: string | undefined;
  /** All that is wrong, when it is more than one thing; the first of them is `message` and `field`. */
  readonly faults: readonly FieldFault[];
  /** After how many seconds the same request may succeed. */
  readonly retryAfterS: number | undefined;

  constructor(
    code: HttpErrorCode,
    message: string,
    more: {
      readonly field?: string;
      readonly faults?: readonly FieldFault[];
      readonly retryAfterS?: number;
      readonly cause?: unknown;
    } = {},
  ) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.name = 'QueryRefused';
    this.code = code;
    this.field = more.field;
    this.faults = more.faults ?? [];
    this.retryAfterS = more.retryAfterS;
  }
}

/** A table is not as it was when the query was prepared: prepare it again. */
export class TableChanged extends Error {
  constructor(table: string, cause?: unknown) {
    super(`the table ${table} has been changed`, cause === undefined ? undefined : { cause });
    this.name = 'TableChanged';
  }
}
