import type { PostgresEffects } from '../pipeline/runner/postgres-state-store.ts';
import { PostgresStateStore } from '../pipeline/runner/postgres-state-store.ts';
import type { Processor } from '../pipeline/runner/processor.ts';
import { postgresBeside } from '../pipeline/runner/rebuild/postgres.ts';
import { redisBeside } from '../pipeline/runner/rebuild/redis.ts';
import { rebuildable } from '../pipeline/runner/rebuild/rebuild.ts';
import { RedisKeys } from '../pipeline/runner/redis-keys.ts';
import { RedisStateStore, type RedisEffects } from '../pipeline/runner/redis-state-store.ts';
import { startRunner } from '../pipeline/runner/runner.ts';
import { untilItWorks } from '../pipeline/runtime/backoff.ts';
import type { LogEvent } from '../pipeline/log/event-log.ts';
import type { ParsedEvent } from '../schemas/generated/event.ts';
import type { ProcessorFactory } from './processor-factory.ts';

/** A processor whose state is in tables of PostgreSQL. */
export interface OwnInPostgres<Effects> extends Processor<Effects>, PostgresEffects<Effects> {
  /** SQL that makes the tables where they are not there, and may run at every start. */
  readonly setup: string;
  /** Every table, as `<schema>.<table>`: the primary key of each begins with a column `processor`, which holds the namespace. */
  readonly tables: readonly string[];
}

/** A processor whose state is in keys of Redis. */
export interface OwnInRedis<Effects> extends Processor<Effects>, RedisEffects<Effects> {
  /** Its keys, as glob-style patterns of what follows `<prefix>:`, such as `trade-volumes:*`. */
  readonly keys: readonly string[];
}

/** Makes a role of a processor: state and place in the log change in one transaction. It can be rebuilt, by a version with another `setup`, too. */
export function inPostgres<Effects>(own: OwnInPostgres<Effects>): ProcessorFactory {
  const { name, setup, tables } = own;
  return {
    name,
    async start(context, connections) {
      const { eventLog, deadLetters } = await connections.log();
      const pool = connections.postgres();
      await untilItWorks('PostgreSQL', () => pool.query(setup), context);
      const store = new PostgresStateStore(pool, name, own);
      return startRunner(context, { eventLog, deadLetters, store, processor: own });
    },
    async rebuild(context, connections) {
      const { eventLog, deadLetters } = await connections.log();
      const pool = connections.postgres();
      const beside = postgresBeside({ pool, processor: name, effects: own, tables });
      const made = rebuildable(context, { eventLog, deadLetters, beside, processor: own });
      return [
        {
          ...made,
          async rebuild(options) {
            // Its role may not have been started since it was corrected.
            await pool.query(setup);
            return made.rebuild(options);
          },
        },
      ];
    },
  };
}

/** Makes a role of a processor: state and place in the log change in one call of a script. It can be rebuilt. */
export function inRedis<Effects>(own: OwnInRedis<Effects>): ProcessorFactory {
  const { name, keys } = own;
  return {
    name,
    async start(context, connections) {
      const { eventLog, deadLetters } = await connections.log();
      const store = new RedisStateStore(await connections.redis(), name, new RedisKeys(), own);
      return startRunner(context, { eventLog, deadLetters, store, processor: own });
    },
    async rebuild(context, connections) {
      const { eventLog, deadLetters } = await connections.log();
      const beside = redisBeside({ client: await connections.redis(), processor: name, effects: own, patterns: keys });
      return [rebuildable(context, { eventLog, deadLetters, beside, processor: own })];
    },
  };
}

/** The event's JSON. Numbers beyond what JavaScript holds are strings in it, except inside of json columns. */
export function parseEvent({ data }: LogEvent): ParsedEvent {
  return JSON.parse(Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('utf8')) as ParsedEvent;
}
