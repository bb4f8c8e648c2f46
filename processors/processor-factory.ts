import type { RedisClient } from '../pipeline/clients/redis.ts';
import type { EventLog } from '../pipeline/log/event-log.ts';
import type { DeadLetters } from '../pipeline/runner/dead-letters.ts';
import type { Role, RoleContext } from '../pipeline/runtime/lifecycle.ts';
import type { Catalog } from '../schemas/catalog.ts';

/** What the composition root gives a processor. */
export interface ProcessorConnections {
  readonly eventLog: EventLog;
  readonly deadLetters: DeadLetters;
  readonly catalog: Catalog;
  /** Connected and checked; closed by whoever opened it, after the role has stopped. */
  readonly redis: RedisClient;
}

/** A processor as the command line knows it: its name is its role, its offset's name and its metric label. */
export interface ProcessorFactory {
  readonly name: string;
  start(context: RoleContext, connections: ProcessorConnections): Role;
}
