import { createPool, type PgPool } from '../../pipeline/clients/postgres.ts';
import { pause, untilItWorks } from '../../pipeline/runtime/backoff.ts';
import type { Role } from '../../pipeline/runtime/lifecycle.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import { Market } from './market.ts';
import { seededRandom } from './random.ts';
import { run, seedOrContinue } from './seed.ts';
import type { Statement } from './statements.ts';

export interface DemoOptions {
  /** The database; its demo migrations have been applied. */
  readonly url: string;
  /** Rows a second. */
  readonly rate: number;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** Rows a second beyond which transactions get larger rather than more frequent: one connection commits one after another. */
const smallTransactionsUpTo = 300;

/**
 * The demo market: writes what a DeFi platform's indexers would, through ordinary SQL on one connection, at an even rate.
 * Returns when the tables are filled and it has begun. A database that goes away is waited for.
 */
export async function startDemo({ url, rate, log, signal }: DemoOptions): Promise<Role> {
  const stopping = new AbortController();
  const ending = AbortSignal.any([signal, stopping.signal]);
  const pool = createPool(url, 'headwater-demo', log, 1);
  const random = seededRandom(Date.now());
  try {
    const start = await untilItWorks('demo market', () => seedOrContinue(pool, random), { signal: ending, log });
    log.info(
      { tokens: start.world.tokens.length, rate },
      `demo market ${start.seeded ? 'opened' : 'goes on'}: ${start.world.tokens.length} tokens, ${rate} rows/s`,
    );
    const market = new Market({ ...start, random, now: Date.now() });
    const done = tradeAndClose(pool, market, rate, ending, log);
    // Whoever waits for `done` hears of a fault; nobody has to wait for it.
    done.catch(() => undefined);
    return {
      name: 'demo',
      done,
      async stop() {
        stopping.abort();
        await done.catch(() => undefined);
      },
    };
  } catch (error) {
    await pool.end();
    throw error;
  }
}

async function tradeAndClose(pool: PgPool, market: Market, rate: number, signal: AbortSignal, log: Logger): Promise<void> {
  try {
    await trade(pool, market, rate, signal, log);
  } finally {
    await pool.end();
  }
}

/** A token bucket that holds at most a second's worth: a pause is not made up for by a flood. */
async function trade(pool: PgPool, market: Market, rate: number, signal: AbortSignal, log: Logger): Promise<void> {
  const scale = Math.max(1, rate / smallTransactionsUpTo);
  let credit = 0;
  let at = performance.now();
  while (!signal.aborted) {
    const now = performance.now();
    credit = Math.min(rate, credit + ((now - at) / 1_000) * rate);
    at = now;
    if (credit <= 0) {
      await pause(Math.max(1, (-credit / rate) * 1_000), signal);
      continue;
    }
    try {
      credit -= await untilItWorks('demo market', () => commit(pool, market.next(Date.now(), scale)), { signal, log });
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}

async function commit(pool: PgPool, statements: readonly Statement[]): Promise<number> {
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    await run(client, statements);
    await client.query('COMMIT');
    client.release();
  } catch (error) {
    // Whatever state the connection is in, it is not used again.
    client.release(true);
    throw error;
  }
  return statements.reduce((sum, { rows }) => sum + rows, 0);
}
