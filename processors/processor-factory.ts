import type { PgPool } from '../pipeline/clients/postgres.ts';
import type { RedisClient } from '../pipeline/clients/redis.ts';
import type { EventLog } from '../pipeline/log/event-log.ts';
import type { DeadLetters } from '../pipeline/runner/dead-letters.ts';
import type { Rebuildable } from '../pipeline/runner/rebuild/model.ts';
import type { Role, RoleContext } from '../pipeline/runtime/lifecycle.ts';
import type { Catalog } from '../schemas/catalog.ts';

/**
 * What the composition root can give a processor. A connection is opened when it is asked for, and closed by the composition
 * root after the role has stopped. Asking waits until the server is there; it rejects when the role is to stop first.
 */
export interface ProcessorConnections {
  readonly catalog: Catalog;
  /** The log, and where events go that cannot be applied. */
  log(): Promise<{ readonly eventLog: EventLog; readonly deadLetters: DeadLetters }>;
  /** Connected and checked. */
  redis(): Promise<RedisClient>;
  /** A pool of so many connections (default 4), each opened when it is needed. */
  postgres(max?: number): PgPool;
}

/** A processor as the command line knows it: its name is its role, its offset's name and its metric label. */
export interface ProcessorFactory {
  readonly name: string;
  start(context: RoleContext, connections: ProcessorConnections): Promise<Role>;
  /** Its states that `headwater rebuild` can make anew; absent where there is nothing to make anew. */
  rebuild?(context: RoleContext, connections: ProcessorConnections): Promise<readonly Rebuildable[]>;
}
