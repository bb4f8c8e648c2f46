import { HeadwaterError } from '../runtime/errors.ts';
import type { Seq } from './event-log.ts';

/** The log's last sequence is not the expected one: nothing was stored. */
export class AppendConflict extends HeadwaterError {
  constructor(expected: Seq, detail: string) {
    super('append_conflict', `the log does not end at ${expected}: ${detail}`, { reaction: 'retry' });
  }
}

/** Whether the events were stored is not known; ask the log for its last event. */
export class AppendUnclear extends HeadwaterError {
  constructor(detail: string, cause?: unknown) {
    super('append_unclear', `no clear answer from the log: ${detail}`, { reaction: 'retry', cause });
  }
}

/** The position asked for is older than what the log still holds. */
export class OffsetExpired extends HeadwaterError {
  readonly oldest: Seq;
  constructor(asked: Seq, oldest: Seq) {
    super('offset_expired', `the log no longer holds sequence ${asked}: the oldest is ${oldest}`, {
      hint: 'rebuild this reader from the oldest event, or from a backfill',
    });
    this.oldest = oldest;
  }
}
