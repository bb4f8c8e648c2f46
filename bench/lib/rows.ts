import { setTimeout as sleep } from 'node:timers/promises';
import type { PgClient } from '../../pipeline/clients/postgres.ts';
import { JetStreamLog } from '../../pipeline/log/jetstream-log.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { orAborted } from './processes.ts';
import type { BenchServers } from './servers.ts';

const stream = 'EVENTS';
const pollMs = 10;
const stalledMs = 60_000;
const subject = 'ev.public.trades.insert';

/** A table of an ordinary application; its rows take about 200 bytes. */
const schema = `
  CREATE TABLE public.trades (
    id bigint PRIMARY KEY, account text NOT NULL, symbol text NOT NULL, side text NOT NULL,
    price numeric(20, 8) NOT NULL, quantity numeric(20, 8) NOT NULL, note text, traded_at timestamptz NOT NULL
  );
  CREATE PROCEDURE public.load_trades(total bigint, per_transaction bigint) LANGUAGE plpgsql AS $$
  DECLARE first bigint := 1;
  BEGIN
    WHILE first <= total LOOP
      INSERT INTO public.trades
      SELECT i, '0x' || substr(md5(i::text) || md5((i + 1)::text), 1, 40), 'TOKEN' || i % 5000 || '-USD', (ARRAY['buy', 'sell'])[1 + i % 2],
             100 + (i % 100000) / 7.0, 1 + (i % 1000) / 3.0, md5('a' || i) || md5('b' || i), now()
      FROM generate_series(first, least(total, first + per_transaction - 1)) i;
      COMMIT;
      first := first + per_transaction;
    END LOOP;
  END $$`;

export async function createTrades(client: PgClient): Promise<void> {
  await client.query(schema);
}

/** Inserts rows with ids from 1, so many in a transaction, as fast as the server can. */
export async function loadTrades(client: PgClient, rows: number, perTransaction: number, signal: AbortSignal): Promise<void> {
  await client.query('SET synchronous_commit = off');
  await orAborted(client.query(`CALL public.load_trades(${rows}, ${perTransaction})`), signal);
  await client.query('SET synchronous_commit = on');
}

/** Waits until the log holds so many inserts of the table, and returns when that was (`performance.now()`). */
export async function tradesLogged(servers: BenchServers, rows: number, signal: AbortSignal): Promise<number> {
  let [most, grownAt] = [0, performance.now()];
  for (;;) {
    // All messages are cheaper to count than those of one subject, and never fewer.
    const { state } = await servers.jsm.streams.info(stream);
    if (state.messages >= rows && (await insertsLogged(servers)) >= rows) return performance.now();
    if (state.messages > most) [most, grownAt] = [state.messages, performance.now()];
    if (performance.now() - grownAt > stalledMs) throw new Error(`the log does not grow any more: ${most} events for ${rows} rows`);
    await sleep(pollMs, undefined, { signal });
  }
}

/** Reads the log and makes sure that the inserts are there once each and in commit order. Returns their mean size in bytes. */
export async function verifyTrades(servers: BenchServers, rows: number, signal: AbortSignal): Promise<number> {
  const log = await JetStreamLog.open(servers.connection, { stream, subject: 'ev' }, silentLogger());
  let next = 1;
  let bytes = 0;
  try {
    for await (const events of log.read(1, { subjects: [subject], signal })) {
      for (const { data } of events) {
        const { key } = JSON.parse(Buffer.from(data).toString('utf8')) as { key: { id: string } };
        if (key.id !== String(next)) throw new Error(`the log is wrong: row ${key.id} where ${next} was due`);
        next++;
        bytes += data.length;
      }
      if (next > rows) break;
    }
  } finally {
    log.close();
  }
  signal.throwIfAborted();
  const held = await insertsLogged(servers);
  if (held !== rows) throw new Error(`the log is wrong: ${held} inserts instead of ${rows}`);
  return bytes / rows;
}

async function insertsLogged({ jsm }: BenchServers): Promise<number> {
  const { state } = await jsm.streams.info(stream, { subjects_filter: subject });
  return state.subjects?.[subject] ?? 0;
}
