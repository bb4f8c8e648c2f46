import type { Logger } from './logging.ts';
import type { Config } from './config.ts';
import type { Registry } from './metrics.ts';
import type { Health } from './health.ts';

/** What every role is given. Nothing in the project reads the environment or a global instead. */
export interface RoleContext {
  readonly config: Config;
  readonly log: Logger;
  readonly metrics: Registry;
  readonly health: Health;
  /** Fires when the program is asked to stop: stop taking, finish what is begun, close. */
  readonly signal: AbortSignal;
}

/** A running role. `done` settles when it has ended by itself: rejected with the reason when that was a fault. */
export interface Role {
  readonly name: string;
  readonly done: Promise<void>;
  /** Stops and waits until everything begun is finished and closed. Safe to call twice. */
  stop(): Promise<void>;
}
