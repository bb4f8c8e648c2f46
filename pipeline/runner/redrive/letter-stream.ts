import type { JetStreamManager, NatsConnection } from '../../clients/nats.ts';

/** The stream of the dead letters, and what is kept beside them in it. */
export interface LetterStream {
  readonly connection: NatsConnection;
  readonly jsm: JetStreamManager;
  readonly stream: string;
  /** First token of its subjects. */
  readonly subject: string;
}

/** Subjects beside the letters: what is to be redriven, what has been, and letters that were dropped. No processor's name begins like this. */
export const beside = { redrive: '_redrive', redriven: '_redriven', dropped: '_dropped' } as const;
