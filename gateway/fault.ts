import type { Seq } from '../pipeline/log/event-log.ts';
import type { FaultCode } from '../schemas/error-codes.ts';

/** What an `error` frame says beyond whom it concerns. */
export interface Fault {
  readonly code: FaultCode;
  readonly message: string;
  readonly retryAfterMs?: number;
  /** With `resume_expired` and `position_ahead`: what the log holds. */
  readonly oldest?: Seq;
  readonly head?: Seq;
}

/** A fault as something to throw: it ends what was asked for and becomes an `error` frame. */
export class RequestFault extends Error {
  readonly fault: Fault;

  constructor(fault: Fault) {
    super(fault.message);
    this.name = 'RequestFault';
    this.fault = fault;
  }
}
